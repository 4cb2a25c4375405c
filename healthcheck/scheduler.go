// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Defaults of Config.
const (
	DefaultConcurrency = 8192
	DefaultPerServer   = 16
)

// Config is what a Scheduler needs to know.
type Config[ID comparable] struct {
	// Concurrency is how many probes may be in flight at once, 1 to 100 000; each has at least one
	// file descriptor. What is due beyond that waits. Default: 8192.
	Concurrency int
	// PerServer is how many probes of one server may be in flight at once, 1 to Concurrency. What
	// is due beyond that waits. Default: 16.
	PerServer int
	// OnChange receives the checks whose verdict has changed, in the order of the changes. It is
	// called from one goroutine at a time. Probes go on while it runs; what changes meanwhile comes
	// together in the next call. Default: nobody is told.
	OnChange func([]Change[ID])
}

// Change is a change of a verdict.
type Change[ID comparable] struct {
	ID       ID
	Old, New Verdict
	// Result is the result that made the change, At the time it was there.
	Result Result
	At     time.Time
}

// Status is what is known of a check.
type Status struct {
	Verdict Verdict
	// Since is when the state of the verdict changed last.
	Since time.Time
	// Penalty is the present penalty for flapping.
	Penalty float64
	// Last is the last result, LastAt the time it was there; zero if there is none yet.
	Last   Result
	LastAt time.Time
}

// Validate reports all problems, each with the name of its field.
func (c Config[ID]) Validate() error {
	c = c.withDefaults()
	var errs []error
	if c.Concurrency < 1 || c.Concurrency > 100_000 {
		errs = append(errs, fmt.Errorf("Concurrency: %d is not from 1 to 100000", c.Concurrency))
	}
	if c.PerServer < 1 || c.PerServer > c.Concurrency {
		errs = append(errs, fmt.Errorf("PerServer: %d is not from 1 to Concurrency, %d", c.PerServer, c.Concurrency))
	}
	return errors.Join(errs...)
}

func (c Config[ID]) withDefaults() Config[ID] {
	if c.Concurrency == 0 {
		c.Concurrency = DefaultConcurrency
	}
	if c.PerServer == 0 {
		c.PerServer = min(DefaultPerServer, c.Concurrency)
	}
	if c.OnChange == nil {
		c.OnChange = func([]Change[ID]) {}
	}
	return c
}

// Scheduler asks the questions of a set of checks, each at its interval, and judges the answers.
// Set and Snapshot may be called from any goroutine, before, during and after Run.
type Scheduler[ID comparable] struct {
	cfg Config[ID]
	// changed has room for one: it says that changes is not empty.
	changed chan struct{}

	mu      sync.Mutex // guards what follows
	tasks   map[ID]*task[ID]
	queue   queue[ID]
	changes []Change[ID]
	counted counting
	// What follows is set while Run runs.
	ctx        context.Context
	connector  *connector
	connecting map[connection]*task[ID]
	flights    *flights[ID]
	probes     sync.WaitGroup
	// wakes is when Run looks at the queue again by itself.
	wakes time.Time
}

// New checks cfg and starts nothing. IDs name checks across calls of Set.
func New[ID comparable](cfg Config[ID]) (*Scheduler[ID], error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("check health check settings: %v", err)
	}
	cfg = cfg.withDefaults()
	return &Scheduler[ID]{
		cfg:        cfg,
		changed:    make(chan struct{}, 1),
		tasks:      make(map[ID]*task[ID]),
		connecting: make(map[connection]*task[ID]),
	}, nil
}

// Set replaces the whole set of checks. Checks that are in it as they were before are not touched.
// A check with a known ID that has changed keeps its verdict. Probes of checks that are gone or
// changed are cancelled, and their results do not count. On error, which names all invalid checks,
// nothing has changed.
func (s *Scheduler[ID]) Set(checks map[ID]Check) error {
	var errs []error
	for id, c := range checks {
		if err := c.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("check %v: %v", id, err))
		}
	}
	if len(errs) > 0 {
		slices.SortFunc(errs, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
		return fmt.Errorf("set health checks: %v", errors.Join(errs...))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for id, t := range s.tasks {
		if _, ok := checks[id]; !ok {
			s.remove(t, now)
		}
	}
	var fresh []*task[ID]
	for id, c := range checks {
		if t := s.place(id, c.withDefaults(), now); t != nil {
			fresh = append(fresh, t)
		}
	}
	s.spread(fresh, now)
	return nil
}

// place makes the task of a check; nil if it is there already.
func (s *Scheduler[ID]) place(id ID, c Check, now time.Time) *task[ID] {
	t := &task[ID]{id: id, check: c, judgement: NewJudgement(c.Rules, now), index: -1}
	if old := s.tasks[id]; old != nil {
		if old.check.same(c) {
			return nil
		}
		s.remove(old, now)
		t.judgement, t.last, t.lastAt = old.judgement, old.last, old.lastAt
		t.judgement.SetRules(c.Rules)
	}
	s.tasks[id] = t
	return t
}

// remove ends a task and its probe.
func (s *Scheduler[ID]) remove(t *task[ID], now time.Time) {
	t.gone = true
	s.queue.drop(t)
	delete(s.tasks, t.id)
	switch {
	case t.cancel != nil:
		t.cancel() // the probe's goroutine does the rest
	case t.inFlight():
		s.land(t, now)
	}
}

// spread gives new tasks their first times, evenly over their intervals and in random order.
// Before Run there is no time to start at.
func (s *Scheduler[ID]) spread(tasks []*task[ID], now time.Time) {
	if s.connector == nil {
		return
	}
	rand.Shuffle(len(tasks), func(i, k int) { tasks[i], tasks[k] = tasks[k], tasks[i] })
	for i, t := range tasks {
		share := (float64(i) + rand.Float64()) / float64(len(tasks))
		s.enqueue(t, now.Add(time.Duration(share*float64(t.judgement.Interval(0.5)))))
	}
}

// enqueue has Run look at the task at the time given.
func (s *Scheduler[ID]) enqueue(t *task[ID], due time.Time) {
	s.queue.put(t, due)
	if due.Before(s.wakes) {
		s.wakes = due
		s.connector.wake()
	}
}

// Snapshot is the status of all checks. The caller owns the map.
func (s *Scheduler[ID]) Snapshot() map[ID]Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	all := make(map[ID]Status, len(s.tasks))
	for id, t := range s.tasks {
		all[id] = Status{
			Verdict: t.judgement.Verdict(), Since: t.judgement.Since(), Penalty: t.judgement.Penalty(now),
			Last: t.last, LastAt: t.lastAt,
		}
	}
	return all
}

// Run asks and judges until ctx ends, which is no error. When it returns, no probe is in flight
// and OnChange does not run. It must not run twice at a time.
func (s *Scheduler[ID]) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	c, err := newConnector()
	if err != nil {
		cancel()
		return fmt.Errorf("run health checks: %v", err)
	}
	s.begin(ctx, c)
	woken := make(chan struct{})
	context.AfterFunc(ctx, func() {
		c.wake()
		close(woken)
	})
	told := make(chan struct{})
	go func() {
		defer close(told)
		s.tell(ctx)
	}()
	err = s.loop(ctx, c)
	cancel()
	s.end()
	<-told
	<-woken
	c.close()
	return err
}

func (s *Scheduler[ID]) begin(ctx context.Context, c *connector) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ctx, s.connector = ctx, c
	s.flights = newFlights[ID](s.cfg.Concurrency, s.cfg.PerServer)
	s.spread(slices.Collect(maps.Values(s.tasks)), time.Now())
}

// end lets go of all probes and waits for them.
func (s *Scheduler[ID]) end() {
	s.mu.Lock()
	now := time.Now()
	for _, t := range s.tasks {
		s.queue.drop(t)
		if t.cancel == nil && t.inFlight() {
			s.land(t, now)
		}
	}
	s.mu.Unlock()
	s.probes.Wait()
	s.mu.Lock()
	s.connector = nil
	s.mu.Unlock()
}

func (s *Scheduler[ID]) loop(ctx context.Context, c *connector) error {
	for ctx.Err() == nil {
		done, err := c.wait(s.startDue(time.Now()))
		if err != nil {
			return fmt.Errorf("run health checks: %v", err)
		}
		s.finishConnections(done)
	}
	return nil
}

// tell hands changes to OnChange.
func (s *Scheduler[ID]) tell(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.changed:
		}
		s.mu.Lock()
		changes := s.changes
		s.changes = nil
		s.mu.Unlock()
		s.cfg.OnChange(changes)
	}
}
