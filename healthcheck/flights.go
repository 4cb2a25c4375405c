// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"net/netip"
	"time"
)

// flights counts the probes in flight and keeps what has to wait for one to end. A task that waits
// for its server waits because the server has its full number, and a task in the backlog because
// everything has; so whenever a probe ends, somebody looks.
type flights[ID comparable] struct {
	most, perServer, active int
	servers                 map[netip.Addr]*flock[ID]
	backlog                 []*task[ID]
}

// flock is the probes of one server.
type flock[ID comparable] struct {
	active  int
	waiting []*task[ID]
}

func newFlights[ID comparable](most, perServer int) *flights[ID] {
	return &flights[ID]{most: most, perServer: perServer, servers: make(map[netip.Addr]*flock[ID])}
}

// board counts a task in if there is room; otherwise the task waits, and next returns it later.
func (f *flights[ID]) board(t *task[ID]) bool {
	server := f.servers[t.check.Server]
	if server == nil {
		server = &flock[ID]{}
		f.servers[t.check.Server] = server
	}
	switch {
	case server.active >= f.perServer:
		server.waiting = append(server.waiting, t)
		return false
	case f.active >= f.most:
		f.backlog = append(f.backlog, t)
		return false
	}
	server.active++
	f.active++
	return true
}

// leave counts a task out. The caller then boards what next returns, until that is nil.
func (f *flights[ID]) leave(t *task[ID]) {
	f.active--
	f.servers[t.check.Server].active--
}

// next takes a task that may board now, or that must wait for something else than before, out of
// those that wait; server is where there was a change.
func (f *flights[ID]) next(server netip.Addr) *task[ID] {
	if f.active < f.most {
		if t := pop(&f.backlog); t != nil {
			return t
		}
	}
	s := f.servers[server]
	if s == nil || s.active >= f.perServer {
		return nil
	}
	t := pop(&s.waiting)
	if t == nil && s.active == 0 {
		delete(f.servers, server)
	}
	return t
}

// pop takes the first task that is still wanted.
func pop[ID comparable](list *[]*task[ID]) *task[ID] {
	for len(*list) > 0 {
		t := (*list)[0]
		(*list)[0] = nil
		*list = (*list)[1:]
		if !t.gone {
			return t
		}
	}
	*list = nil
	return nil
}

// startDue starts the probes that are due and ends those whose time is over. It returns how long
// there is nothing to do.
func (s *Scheduler[ID]) startDue(now time.Time) time.Duration {
	const longest = time.Hour
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) > 0 && !s.queue[0].due.After(now) {
		t := heap.Pop(&s.queue).(*task[ID])
		if t.inFlight() {
			s.conclude(t, s.overdue(t, now), now)
			continue
		}
		t.planned = t.due
		s.admit(t, now)
	}
	s.wakes = now.Add(longest)
	if len(s.queue) > 0 && s.queue[0].due.Before(s.wakes) {
		s.wakes = s.queue[0].due
	}
	return max(0, time.Until(s.wakes))
}

// overdue is the result of a connection that failed at once, or whose time is over. If this host
// was too busy to look in time, the connection may have been made.
func (s *Scheduler[ID]) overdue(t *task[ID], now time.Time) Result {
	if t.failed != nil {
		return t.result(t.failed, now)
	}
	if c, ok := s.connector.look(*t.connection); ok {
		return t.result(c.outcome(), now)
	}
	return t.result(context.DeadlineExceeded, now)
}

// result is the result of a connection that ended with err, or was made.
func (t *task[ID]) result(err error, now time.Time) Result {
	var r Result
	if err != nil {
		r = failed(context.Background(), connectFailure(t.check.Target, err))
	}
	r.Duration = now.Sub(t.started)
	return r
}

// admit starts a probe, or has it wait. At the end of Run it does neither.
func (s *Scheduler[ID]) admit(t *task[ID], now time.Time) {
	if s.ctx.Err() == nil && s.flights.board(t) {
		s.launch(t, now)
	}
}

// launch starts a probe. Its outcome never comes before launch returns.
func (s *Scheduler[ID]) launch(t *task[ID], now time.Time) {
	t.started = now
	if !t.check.connectsOnly() {
		ctx, cancel := context.WithTimeout(s.ctx, t.check.Timeout)
		t.cancel = cancel
		s.probes.Go(func() { s.probe(ctx, t) })
		return
	}
	n, err := s.connector.begin(t.check.Target)
	if err != nil {
		t.failed = err
		s.enqueue(t, now)
		return
	}
	t.connection = &n
	s.connecting[n] = t
	s.enqueue(t, now.Add(t.check.Timeout))
}

// probe asks and judges, in a goroutine of its own.
func (s *Scheduler[ID]) probe(ctx context.Context, t *task[ID]) {
	r := t.check.Probe.Check(ctx, t.check.Target)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conclude(t, r, time.Now())
}

// finishConnections judges connections that were made or refused.
func (s *Scheduler[ID]) finishConnections(done []connected) {
	if len(done) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for _, d := range done {
		// One that was given up meanwhile is not there.
		if t := s.connecting[d.connection]; t != nil {
			s.conclude(t, t.result(d.outcome(), now), now)
		}
	}
}

// conclude ends a probe and judges its result.
func (s *Scheduler[ID]) conclude(t *task[ID], r Result, now time.Time) {
	s.land(t, now)
	if t.gone || s.ctx.Err() != nil {
		return
	}
	old := t.judgement.Verdict()
	verdict := t.judgement.Observe(now, r)
	t.last, t.lastAt = r, now
	s.counted.add(r)
	if verdict != old {
		s.changes = append(s.changes, Change[ID]{ID: t.id, Old: old, New: verdict, Result: r, At: now})
		select {
		case s.changed <- struct{}{}:
		default: // the signal is there already
		}
	}
	s.enqueue(t, t.next(now, rand.Float64()))
}

// land lets go of what a probe has, and starts what waited for its end.
func (s *Scheduler[ID]) land(t *task[ID], now time.Time) {
	if t.cancel != nil {
		t.cancel()
	}
	if t.connection != nil {
		delete(s.connecting, *t.connection)
		s.connector.forget(*t.connection)
	}
	t.cancel, t.connection, t.failed = nil, nil, nil
	s.flights.leave(t)
	for next := s.flights.next(t.check.Server); next != nil; next = s.flights.next(t.check.Server) {
		s.admit(next, now)
	}
}
