// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrExited tells that a process ended that should be running.
var ErrExited = errors.New("process ended")

// pollInterval is how often WaitFor looks.
const pollInterval = 20 * time.Millisecond

// WaitFor calls reached until it returns nil or ctx ends. An error that wraps ErrExited ends the
// wait at once. The error says what was waited for and what reached returned last.
func WaitFor(ctx context.Context, what string, reached func() error) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		err := reached()
		if err == nil {
			return nil
		}
		if errors.Is(err, ErrExited) {
			return fmt.Errorf("wait for %s: %w", what, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w: %v", what, ctx.Err(), err)
		case <-ticker.C:
		}
	}
}
