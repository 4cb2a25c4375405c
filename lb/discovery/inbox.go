// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"sync"

	"github.com/remora-lb/remora/lb/discovery/consul"
)

// inbox has the latest of everything that was read, until it is taken. It may be used from several
// goroutines.
type inbox struct {
	mu   sync.Mutex
	news news
	// ready holds a token while there are news.
	ready chan struct{}
}

// news is what was read and not yet looked at.
type news struct {
	// watched has answers by the name of their watch, claiming by the name in Consul.
	watched, claiming map[string]*consul.Answer
	// overlay and definitions are nil if there is nothing new.
	overlay, definitions *consul.Pairs
}

func newInbox() *inbox {
	return &inbox{news: newNews(), ready: make(chan struct{}, 1)}
}

func newNews() news {
	return news{watched: make(map[string]*consul.Answer), claiming: make(map[string]*consul.Answer)}
}

// put is where the reader hands over. It does not block.
func (b *inbox) put(u consul.Update) {
	b.mu.Lock()
	switch {
	case u.Overlay != nil:
		b.news.overlay = u.Overlay
	case u.Definitions != nil:
		b.news.definitions = u.Definitions
	case u.Answer != nil && u.Answer.Claims:
		b.news.claiming[u.Answer.Service] = u.Answer
	case u.Answer != nil:
		b.news.watched[u.Answer.Name] = u.Answer
	}
	b.mu.Unlock()
	select {
	case b.ready <- struct{}{}:
	default: // a token is there already
	}
}

// take empties the inbox.
func (b *inbox) take() news {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.news
	b.news = newNews()
	return n
}
