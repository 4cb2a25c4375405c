// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// array is an ARRAY map with BPF_F_MMAPABLE, seen as a slice. The packet program reads the same
// memory, so each word is written by one store. close must be called once; the slice is void then.
type array[T any] struct {
	elems []T
	raw   []byte
}

// mapArray maps m, whose elements must have the size of T, a multiple of 8 bytes.
func mapArray[T any](m *ebpf.Map) (*array[T], error) {
	var zero T
	size := int(unsafe.Sizeof(zero))
	n := int(m.MaxEntries())
	if int(m.ValueSize()) != size {
		return nil, fmt.Errorf("map %v: elements have %d bytes, not %d", m, m.ValueSize(), size)
	}
	page := unix.Getpagesize()
	raw, err := unix.Mmap(m.FD(), 0, (n*size+page-1)/page*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %v into memory: %v", m, err)
	}
	return &array[T]{elems: unsafe.Slice((*T)(unsafe.Pointer(&raw[0])), n), raw: raw}, nil
}

func (a *array[T]) close() {
	if a == nil || a.raw == nil {
		return
	}
	// The only error is a wrong argument.
	_ = unix.Munmap(a.raw)
	a.raw, a.elems = nil, nil
}
