// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// settler waits until every run of a packet program that was under way has ended. Memory that such
// a run may still read (a slot, a record, the half of a table that was in use) is reused only after
// that. An update of a map of maps is how BPF offers it: it returns after an RCU grace period
// (kernel/bpf/syscall.c, maybe_wait_bpf_programs).
type settler struct {
	outer, inner *ebpf.Map
	// needed says that something was taken out of use since the last wait.
	needed bool
}

func newSettler() (*settler, error) {
	spec := &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1}
	inner, err := ebpf.NewMap(spec)
	if err != nil {
		return nil, fmt.Errorf("make map to wait on: %v", err)
	}
	outer, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.ArrayOfMaps, KeySize: 4, ValueSize: 4, MaxEntries: 1, InnerMap: spec})
	if err != nil {
		inner.Close()
		return nil, fmt.Errorf("make map of maps to wait on: %v", err)
	}
	return &settler{outer: outer, inner: inner}, nil
}

// wait returns once no run sees what was taken out of use; at once if nothing was. It takes some
// milliseconds.
func (s *settler) wait() error {
	if !s.needed {
		return nil
	}
	if err := s.outer.Put(uint32(0), s.inner); err != nil {
		return fmt.Errorf("wait for running packet programs: %v", err)
	}
	s.needed = false
	return nil
}

func (s *settler) close() {
	s.outer.Close()
	s.inner.Close()
}
