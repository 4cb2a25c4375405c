// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package enginetest

import (
	"net/netip"
	"slices"
	"sync"
)

// NextHops remembers what it is asked to resolve. It may be used from any goroutine.
type NextHops struct {
	mu    sync.Mutex
	addrs []netip.Addr
	asked int
}

// Want implements engine.NextHops.
func (n *NextHops) Want(addrs []netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addrs = slices.Clone(addrs)
	n.asked++
}

// Wanted is the last set, and how often one was given.
func (n *NextHops) Wanted() (addrs []netip.Addr, asked int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.addrs), n.asked
}
