// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bfd

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// wireTo carries packets to a session, unless it is cut. It can count them.
type wireTo struct {
	mu    sync.Mutex
	to    *session
	cut   bool
	count int
}

func (w *wireTo) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.count++
	p, err := decode(b)
	if err == nil && !w.cut {
		w.to.deliver(p)
	}
	return len(b), err
}

func (w *wireTo) set(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
}

func (w *wireTo) sent() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count
}

// change is a change of state that a session told about.
type change struct {
	after   time.Duration
	state   State
	expired bool
}

// end is one end of a pair of sessions.
type end struct {
	*session
	out    *wireTo
	cancel context.CancelFunc
	began  time.Time
	mu     sync.Mutex
	list   []change
}

func (e *end) changes() []change {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.list)
}

// pair are two sessions that talk to each other in the bubble's time.
func pair(t *testing.T, a, b Config) (x, y *end) {
	t.Helper()
	ends := []*end{{began: time.Now()}, {began: time.Now()}}
	for i, cfg := range []Config{a, b} {
		e := ends[i]
		cfg.OnChange = func(s State, expired bool) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.list = append(e.list, change{time.Since(e.began), s, expired})
		}
		e.out = &wireTo{}
		e.session = newSession(cfg.withDefaults(), e.out)
	}
	ends[0].out.to, ends[1].out.to = ends[1].session, ends[0].session
	for _, e := range ends {
		var ctx context.Context
		ctx, e.cancel = context.WithCancel(t.Context())
		go e.run(ctx)
	}
	return ends[0], ends[1]
}

func fast() Config { return Config{Interval: 100 * time.Millisecond, Multiplier: 3} }

func TestSessionComesUpAndNoticesSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t, fast(), fast())
		time.Sleep(5 * time.Second)
		for _, e := range []*end{a, b} {
			c := e.changes()
			if last := c[len(c)-1]; last.state != Up || last.after > 2*time.Second {
				t.Fatalf("changes are %+v, want up within 2 s", c)
			}
		}
		b.out.set(true)
		cut := time.Since(a.began)
		time.Sleep(time.Second)
		c := a.changes()
		down := c[slices.IndexFunc(c, func(x change) bool { return x.expired })]
		if took := down.after - cut; down.state != Down || took > 300*time.Millisecond || took < 200*time.Millisecond {
			t.Errorf("the last changes are %+v; %v after the cut", c, took)
		}
		// The other end hears that this one is down; it did not notice by itself.
		if c := b.changes(); slices.ContainsFunc(c, func(x change) bool { return x.expired }) {
			t.Errorf("the other end has %+v", c)
		}
		b.out.set(false)
		time.Sleep(3 * time.Second)
		if c := a.changes(); c[len(c)-1].state != Up {
			t.Errorf("after the silence: %+v", c)
		}
	})
}

func TestSessionEndsOnPurpose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t, fast(), fast())
		time.Sleep(5 * time.Second)
		b.cancel()
		synctest.Wait()
		c := a.changes()
		if last := c[len(c)-1]; last.state != Down || last.expired {
			t.Errorf("changes are %+v, want down at once, not expired", c)
		}
		if c := b.changes(); c[len(c)-1].state != AdminDown {
			t.Errorf("the end that ended has %+v", c)
		}
	})
}

func TestSessionFollowsTheSlowerEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := Config{Interval: 500 * time.Millisecond, Multiplier: 4}
		a, b := pair(t, fast(), slow)
		time.Sleep(5 * time.Second)
		before := a.out.sent()
		time.Sleep(10 * time.Second)
		// One per 375 to 500 ms.
		if n := a.out.sent() - before; n < 20 || n > 27 {
			t.Errorf("%d packets in 10 s", n)
		}
		b.out.set(true)
		cut := time.Since(a.began)
		time.Sleep(5 * time.Second)
		c := a.changes()
		down := c[slices.IndexFunc(c, func(x change) bool { return x.expired })]
		if took := down.after - cut; took > 2*time.Second || took < 1500*time.Millisecond {
			t.Errorf("noticed after %v, want four intervals of the slower end", took)
		}
	})
}

// TestSessionForgivesItsOwnStandstill has the timer fire much too late.
func TestSessionForgivesItsOwnStandstill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSession(fast(), &wireTo{cut: true})
		s.machine = newTestMachine(Up)
		s.expiry = time.NewTimer(time.Hour)
		s.machine.receive(time.Now(), from(Up))
		late := s.machine.deadline().Add(time.Second)
		s.detect(late)
		if s.machine.state != Up {
			t.Error("a late timer was taken for a silent peer")
		}
		s.detect(late.Add(100 * time.Millisecond))
		if s.machine.state != Down {
			t.Error("the peer is forgiven forever")
		}
	})
}
