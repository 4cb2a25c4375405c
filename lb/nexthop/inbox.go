// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package nexthop

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"
)

// inbox gathers notifications between two looks of a session. The reader must never wait for the
// session, or the kernel's buffer would overrun; so only the last state of each neighbour is kept,
// which also bounds the inbox.
type inbox struct {
	ready chan struct{} // capacity 1: there is news

	mu   sync.Mutex
	news news
}

// news is what happened since the last look.
type news struct {
	links, routes bool
	neighbours    map[neighbourKey]neighbour
	// failure is set if notifications were lost, whether more will come or not.
	failure error
}

func newInbox() *inbox { return &inbox{ready: make(chan struct{}, 1)} }

// fill reads from sub until it ends.
func (b *inbox) fill(sub subscription) {
	for {
		events, err := sub.receive()
		b.change(func(n *news) {
			n.add(events)
			if err != nil {
				n.failure = err
			}
		})
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return
		}
	}
}

func (b *inbox) change(f func(*news)) {
	b.mu.Lock()
	f(&b.news)
	b.mu.Unlock()
	select {
	case b.ready <- struct{}{}:
	default: // the session has not looked since the last signal
	}
}

// take empties the inbox.
func (b *inbox) take() news {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.news
	b.news = news{}
	return n
}

func (n *news) add(events []event) {
	for _, e := range events {
		switch e.kind {
		case linkEvent:
			n.links = true
		case routeEvent:
			n.routes = true
		case neighbourEvent:
			if n.neighbours == nil {
				n.neighbours = make(map[neighbourKey]neighbour)
			}
			n.neighbours[e.key] = e.entry
		}
	}
}
