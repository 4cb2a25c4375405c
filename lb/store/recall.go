// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"log/slog"
)

// Recall is Load for a start that goes on without what cannot be read: it says what is the matter in the
// log if something is there, and tells whether there is a value.
func (s *Store) Recall(name string, version uint32, into any, log *slog.Logger) bool {
	_, err := s.Load(name, version, into)
	if err != nil && !errors.Is(err, ErrNone) {
		log.Warn("state of an earlier run not used", "name", name, "error", err)
	}
	return err == nil
}
