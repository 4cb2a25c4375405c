// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"encoding/binary"
	"fmt"

	"github.com/remora-lb/remora/lb"
)

// RecordLen is the length of a real's record, struct real in bpf/types.h.
const RecordLen = 64

// Record is a real's record as programs read it: the prepared outer headers of packets to it. It is
// for programs beside the packet program, which wrap packets in the same way.
func Record(r lb.Real) (record [RecordLen]byte, err error) {
	if _, err := binary.Encode(record[:], binary.NativeEndian, realRecord(r)); err != nil {
		return record, fmt.Errorf("lay out record of real %d: %v", r.ID, err) // never: its size is fixed
	}
	return record, nil
}
