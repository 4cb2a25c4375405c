// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/remora-lb/remora/test/require"
)

// script is a probe whose results a test sets. It counts what is in flight.
type script struct {
	mu      sync.Mutex
	fails   map[netip.Addr]bool
	calls   map[netip.Addr]int
	starts  []time.Time
	active  map[netip.Addr]int
	most    map[netip.Addr]int
	all     int
	mostAll int
	// hold, if not nil, is awaited by every probe.
	hold chan struct{}
}

func newScript() *script {
	return &script{
		fails: make(map[netip.Addr]bool), calls: make(map[netip.Addr]int),
		active: make(map[netip.Addr]int), most: make(map[netip.Addr]int),
	}
}

func (p *script) Check(ctx context.Context, t Target) Result {
	a := t.Addr.Addr()
	p.mu.Lock()
	p.calls[a]++
	p.starts = append(p.starts, time.Now())
	p.active[a]++
	p.all++
	p.most[a], p.mostAll = max(p.most[a], p.active[a]), max(p.mostAll, p.all)
	fails, hold := p.fails[a], p.hold
	p.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.active[a]--
	p.all--
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return Result{Reason: Cancelled}
	case fails, ctx.Err() != nil:
		return Result{Reason: Timeout}
	}
	return Result{}
}

func (p *script) set(a netip.Addr, fails bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fails[a] = fails
}

func (p *script) count(a netip.Addr) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls[a]
}

func server(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}) }

// scripted is a check of server i every 20 ms.
func scripted(p Probe, i int) Check {
	return Check{Probe: p, Target: Target{Addr: netip.AddrPortFrom(server(i), 80)}, Rules: Rules{UpInterval: 20 * time.Millisecond}}
}

// log collects changes.
type log struct {
	mu      sync.Mutex
	changes []Change[string]
}

func (l *log) add(c []Change[string]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changes = append(l.changes, c...)
}

func (l *log) get() []Change[string] {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.changes)
}

// TestChanges: one call for each change of a verdict, none for anything else.
func TestChanges(t *testing.T) {
	noLeaks(t)
	p, l := newScript(), &log{}
	s := running(t, Config[string]{OnChange: l.add}, map[string]Check{"a": scripted(p, 1), "b": scripted(p, 2)})
	state := func(id string, want State) {
		t.Helper()
		eventually(t, func() error {
			if st := s.Snapshot()[id]; st.Verdict.State != want {
				return fmt.Errorf("%s is %+v, want %s", id, st, want)
			}
			return nil
		})
	}
	state("a", Up)
	state("b", Up)
	p.set(server(1), true)
	state("a", Down)
	p.set(server(1), false)
	state("a", Up)
	var got []string
	eventually(t, func() error {
		got = nil
		for _, c := range l.get() {
			if c.ID == "a" {
				got = append(got, fmt.Sprintf("%s>%s %s", c.Old.State, c.New.State, c.Result.Reason))
			}
		}
		if len(got) < 3 {
			return fmt.Errorf("changes %q", got)
		}
		return nil
	})
	if want := []string{"unknown>up ok", "up>down timeout", "down>up ok"}; !slices.Equal(got, want) {
		t.Errorf("changes of a: %q, want %q", got, want)
	}
	if n := len(l.get()); n != 4 {
		t.Errorf("%d changes, want 4", n)
	}
	st := s.Snapshot()["a"]
	if !st.Last.OK() || st.LastAt.IsZero() || st.Since.IsZero() {
		t.Errorf("status %+v", st)
	}
}

// TestReload: the same set again, with new but equal probes, changes no state and no schedule.
func TestReload(t *testing.T) {
	noLeaks(t)
	addr := serveTCP(t, "127.0.0.1:0", hold)
	set := func() map[string]Check {
		tcp, err := TCP{}.Probe()
		require.NoError(t, err)
		http, err := HTTP{Headers: map[string]string{"A": "b"}}.Probe()
		require.NoError(t, err)
		rules := Rules{UpInterval: time.Hour, Rise: 2}
		return map[string]Check{
			"tcp":  {Probe: tcp, Target: Target{Addr: addr}, Rules: rules},
			"http": {Probe: http, Target: Target{Addr: addr}, Rules: rules},
		}
	}
	s := running(t, Config[string]{}, set())
	eventually(t, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.queue) != 2 {
			return errors.New("not started")
		}
		return nil
	})
	before := tasksOf(s)
	for range 3 {
		require.NoError(t, s.Set(set()))
	}
	if after := tasksOf(s); !maps.Equal(before, after) {
		t.Errorf("before %v, after %v", before, after)
	}
	changed := set()
	c := changed["http"]
	c.Timeout = 3 * time.Second
	changed["http"] = c
	require.NoError(t, s.Set(changed))
	after := tasksOf(s)
	if after["tcp"] != before["tcp"] || after["http"] == before["http"] {
		t.Error("not exactly what has changed was replaced")
	}
}

// tasksOf are the tasks with the times when they are due.
func tasksOf(s *Scheduler[string]) map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string]any)
	for id, t := range s.tasks {
		all[id] = struct {
			t   *task[string]
			due time.Time
		}{t, t.due}
	}
	return all
}

// TestChangedCheckKeepsVerdict: a new question to the same server begins with the old verdict.
func TestChangedCheckKeepsVerdict(t *testing.T) {
	noLeaks(t)
	p, l := newScript(), &log{}
	s := running(t, Config[string]{OnChange: l.add}, map[string]Check{"a": scripted(p, 1)})
	eventually(t, func() error {
		if len(l.get()) == 0 {
			return errors.New("not up")
		}
		return nil
	})
	moved := scripted(p, 2)
	moved.Rules.Fall = 7
	require.NoError(t, s.Set(map[string]Check{"a": moved}))
	if v := s.Snapshot()["a"].Verdict; v.State != Up {
		t.Errorf("verdict %+v", v)
	}
	eventually(t, func() error {
		if p.count(server(2)) == 0 {
			return errors.New("not asked")
		}
		return nil
	})
	if n := len(l.get()); n != 1 {
		t.Errorf("%d changes", n)
	}
}

// TestRemove: a probe in flight ends when its check goes, and its result does not count.
func TestRemove(t *testing.T) {
	noLeaks(t)
	p, l := newScript(), &log{}
	p.hold = make(chan struct{})
	c := scripted(p, 1)
	c.Timeout, c.Rules.Fall = time.Minute, 1
	s := running(t, Config[string]{OnChange: l.add}, map[string]Check{"a": c})
	inFlight := func(want int) {
		t.Helper()
		eventually(t, func() error {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.all != want {
				return fmt.Errorf("%d probes in flight", p.all)
			}
			return nil
		})
	}
	inFlight(1)
	require.NoError(t, s.Set(nil))
	inFlight(0)
	if n := len(s.Snapshot()); n != 0 {
		t.Errorf("%d checks are left", n)
	}
	if c := l.get(); len(c) != 0 {
		t.Errorf("changes %v", c)
	}
}

// TestRemoveConnecting is TestRemove for connections, which have no goroutine.
func TestRemoveConnecting(t *testing.T) {
	if !isolated(t, "nft") {
		return
	}
	noLeaks(t)
	firewall(t, "drop")
	tcp, err := TCP{}.Probe()
	require.NoError(t, err)
	checks := make(map[string]Check)
	for i := range 50 {
		checks[fmt.Sprint(i)] = Check{Probe: tcp, Target: at(fmt.Sprintf("127.0.0.%d:80", 1+i)), Timeout: time.Minute, Rules: Rules{UpInterval: 10 * time.Millisecond}}
	}
	s := running(t, Config[string]{}, checks)
	connecting := func(want int) {
		t.Helper()
		eventually(t, func() error {
			s.mu.Lock()
			defer s.mu.Unlock()
			if n := len(s.connecting); n != want {
				return fmt.Errorf("%d connections", n)
			}
			return nil
		})
	}
	connecting(50)
	files := countFiles(t)
	delete(checks, "0")
	require.NoError(t, s.Set(checks))
	connecting(49)
	if n := countFiles(t); n != files-1 {
		t.Errorf("%d files, with one connection more it was %d", n, files)
	}
}

// TestOutcomes: what the scheduler makes of connections is what the probe makes of them.
func TestOutcomes(t *testing.T) {
	if !isolated(t, "nft") {
		return
	}
	noLeaks(t)
	open, closed := serveTCP(t, "127.0.0.1:0", hold), closedPort(t)
	silent := serveTCP(t, "127.0.0.2:0", hold)
	firewall(t, "ip daddr 127.0.0.2 drop")
	tcp, err := TCP{}.Probe()
	require.NoError(t, err)
	check := func(target Target) Check {
		return Check{Probe: tcp, Target: target, Timeout: shortTime, Rules: Rules{UpInterval: 50 * time.Millisecond}}
	}
	s := running(t, Config[string]{}, map[string]Check{
		"open": check(Target{Addr: open}), "closed": check(Target{Addr: closed}), "silent": check(Target{Addr: silent}),
		"route": check(at("192.0.2.1:80")), "interface": check(Target{Addr: open, Interface: "nosuch"}),
	})
	for id, reason := range map[string]Reason{"open": OK, "closed": Refused, "silent": Timeout, "route": Unreachable, "interface": Local} {
		eventually(t, func() error {
			st := s.Snapshot()[id]
			if st.LastAt.IsZero() {
				return errors.New("no result")
			}
			return nil
		})
		if got := s.Snapshot()[id].Last; got.Reason != reason {
			t.Errorf("%s: %v, want %s", id, got, reason)
		}
	}
	eventually(t, func() error {
		snapshot := s.Snapshot()
		for id, state := range map[string]State{"open": Up, "closed": Down, "silent": Down, "route": Down, "interface": Unknown} {
			if got := snapshot[id].Verdict.State; got != state {
				return fmt.Errorf("%s is %s, want %s", id, got, state)
			}
		}
		return nil
	})
}

// TestLimits: never more probes at a time than allowed, and everybody has a turn.
func TestLimits(t *testing.T) {
	noLeaks(t)
	p := newScript()
	p.hold = make(chan struct{})
	checks := make(map[int]Check)
	const servers, each = 4, 10
	for i := range servers * each {
		checks[i] = scripted(p, i%servers)
		c := checks[i]
		c.Timeout, c.Rules.DownInterval = 5*time.Millisecond, time.Millisecond
		checks[i] = c
	}
	s := running(t, Config[int]{Concurrency: 7, PerServer: 3}, checks)
	eventually(t, func() error {
		for id, st := range s.Snapshot() {
			if st.Verdict.State != Down {
				return fmt.Errorf("check %d has no verdict", id)
			}
		}
		return nil
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mostAll != 7 {
		t.Errorf("%d probes at a time, want 7", p.mostAll)
	}
	for a, n := range p.most {
		if n > 3 {
			t.Errorf("%d probes of %s at a time", n, a)
		}
	}
}

// TestSpread: the first probes of many checks are spread over the interval, and stay so.
func TestSpread(t *testing.T) {
	noLeaks(t)
	const checks, buckets = 1000, 10
	all := make(map[int]Check)
	for i := range checks {
		all[i] = scripted(newScript(), i%250)
		c := all[i]
		c.Rules = Rules{UpInterval: time.Hour}
		all[i] = c
	}
	s := running(t, Config[int]{}, all)
	due := make([]int, buckets)
	eventually(t, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.queue) < checks-checks/buckets {
			return errors.New("not started")
		}
		now := time.Now()
		for _, t := range s.queue {
			due[int(t.due.Sub(now)*buckets/time.Hour)]++
		}
		return nil
	})
	for i, n := range due {
		// Each check has a slice of the interval of its own, so it is one more or less.
		if n < checks/buckets-5 || n > checks/buckets+5 {
			t.Errorf("tenth %d of the interval has %d checks", i, n)
		}
	}
}

// TestRunEnds: when Run has returned nothing goes on, and it can be run again.
func TestRunEnds(t *testing.T) {
	noLeaks(t)
	p := newScript()
	var calls atomic.Int64
	s, err := New(Config[string]{OnChange: func([]Change[string]) { calls.Add(1) }})
	require.NoError(t, err)
	require.NoError(t, s.Set(map[string]Check{"a": scripted(p, 1)}))
	for range 2 {
		before := p.count(server(1))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		eventually(t, func() error {
			if p.count(server(1)) < before+3 {
				return errors.New("not enough probes")
			}
			return nil
		})
		cancel()
		require.NoError(t, <-ended)
		p.mu.Lock()
		if p.all != 0 {
			t.Errorf("%d probes in flight after Run", p.all)
		}
		p.mu.Unlock()
		require.NoError(t, s.Set(map[string]Check{"a": scripted(p, 1)}))
	}
	if calls.Load() != 1 {
		t.Errorf("%d changes", calls.Load())
	}
}

// TestSlowCallback: probes go on while OnChange runs, and changes come together afterwards.
func TestSlowCallback(t *testing.T) {
	noLeaks(t)
	p := newScript()
	release := make(chan struct{})
	batches := make(chan int, 10)
	checks := make(map[string]Check)
	for i := range 5 {
		checks[fmt.Sprint(i)] = scripted(p, i)
	}
	s := running(t, Config[string]{OnChange: func(c []Change[string]) {
		batches <- len(c)
		<-release
	}}, checks)
	eventually(t, func() error {
		for id, st := range s.Snapshot() {
			if st.Verdict.State != Up {
				return fmt.Errorf("%s is not up", id)
			}
		}
		return nil
	})
	close(release)
	total, calls := 0, 0
	for total < 5 {
		total += <-batches
		calls++
	}
	if total != 5 || calls > 2 {
		t.Errorf("%d changes in %d calls", total, calls)
	}
}

func TestSchedulerRefuses(t *testing.T) {
	_, err := New(Config[string]{Concurrency: -1, PerServer: 100})
	require.ErrorSays(t, err, "check health check settings: Concurrency: -1 is not from 1 to 100000", "PerServer: 100 is not from 1 to Concurrency")
	s, err := New(Config[string]{})
	require.NoError(t, err)
	good := scripted(newScript(), 1)
	require.NoError(t, s.Set(map[string]Check{"good": good}))
	err = s.Set(map[string]Check{
		"empty": {}, "source": {Probe: good.Probe, Target: Target{Addr: good.Target.Addr, Source: netip.MustParseAddr("::1")}, Timeout: time.Hour},
	})
	require.ErrorSays(t, err, "set health checks: check empty: Probe: is not set", `Target.Addr: "invalid AddrPort" is no address`,
		"check source: Target.Source: ::1 is of another family than 192.0.2.1", "Timeout: 1h0m0s is not from 1ms to 1m")
	if _, ok := s.Snapshot()["good"]; !ok {
		t.Error("a refused set took effect")
	}
}
