// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package nexthop

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/lb"
)

// fakeKernel is a kernel in memory, with one interface. It counts and times what it is asked.
type fakeKernel struct {
	start time.Time

	mu            sync.Mutex
	links         link
	routes        map[netip.Addr]route
	entries       map[netip.Addr]neighbour
	lookUps       []netip.Addr
	probes        []time.Duration // since start
	subscriptions []*fakeSubscription
	subscribedAt  []time.Duration // attempts, since start
	resyncedAt    []time.Duration // reads of all neighbours, since start
	failSubscribe int             // how many attempts will fail
	failRead      int             // how many reads of neighbours will fail
	failRoute     map[netip.Addr]int
}

func newFakeKernel() *fakeKernel {
	return &fakeKernel{
		start:     time.Now(),
		links:     goodLink(),
		routes:    map[netip.Addr]route{},
		entries:   map[netip.Addr]neighbour{},
		failRoute: map[netip.Addr]int{},
	}
}

func (k *fakeKernel) link(string) (link, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.links, nil
}

func (k *fakeKernel) route(dst netip.Addr, _ link) (route, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lookUps = append(k.lookUps, dst)
	if k.failRoute[dst] > 0 {
		k.failRoute[dst]--
		return route{}, unix.EAGAIN
	}
	if r, ok := k.routes[dst]; ok {
		return r, nil
	}
	return noRoute(dst), nil
}

func (k *fakeKernel) neighbours(index int) (map[netip.Addr]neighbour, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.resyncedAt = append(k.resyncedAt, time.Since(k.start))
	if k.failRead > 0 {
		k.failRead--
		return nil, errors.New("interrupted")
	}
	if index != k.links.index {
		return map[netip.Addr]neighbour{}, nil
	}
	return maps.Clone(k.entries), nil
}

func (k *fakeKernel) probe(int, netip.Addr, condition) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.probes = append(k.probes, time.Since(k.start))
	return nil
}

func (k *fakeKernel) subscribe() (subscription, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.subscribedAt = append(k.subscribedAt, time.Since(k.start))
	if k.failSubscribe > 0 {
		k.failSubscribe--
		return nil, errors.New("no socket")
	}
	s := &fakeSubscription{incoming: make(chan fakeNews), closed: make(chan struct{})}
	k.subscriptions = append(k.subscriptions, s)
	return s, nil
}

// set changes the fake's state. Nobody is told.
func (k *fakeKernel) set(change func(k *fakeKernel)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change(k)
}

// notify sends events, or an error, to the last subscription.
func (k *fakeKernel) notify(err error, events ...event) {
	k.mu.Lock()
	s := k.subscriptions[len(k.subscriptions)-1]
	k.mu.Unlock()
	s.incoming <- fakeNews{events, err}
	synctest.Wait()
}

// setNeighbour changes an entry and tells the subscription.
func (k *fakeKernel) setNeighbour(addr netip.Addr, n neighbour) {
	k.set(func(k *fakeKernel) { k.entries[addr] = n })
	k.notify(nil, event{kind: neighbourEvent, key: neighbourKey{k.links.index, addr}, entry: n})
}

type fakeNews struct {
	events []event
	err    error
}

type fakeSubscription struct {
	incoming chan fakeNews
	closed   chan struct{}
}

func (s *fakeSubscription) receive() ([]event, error) {
	select {
	case n := <-s.incoming:
		return n.events, n.err
	case <-s.closed:
		return nil, os.ErrClosed
	}
}

func (s *fakeSubscription) close() { close(s.closed) }

// fakeRun is a watcher that runs on a fake kernel inside a synctest bubble.
type fakeRun struct {
	*Watcher
	*fakeKernel
	log     *strings.Builder
	changes []map[netip.Addr]lb.NextHop // what OnChange got, and when
	times   []time.Duration
}

// runFake starts a watcher of dst; prepare fills the kernel before. The test's end stops it, and
// synctest fails if any goroutine is left then.
func runFake(t *testing.T, wanted []netip.Addr, prepare func(*fakeKernel)) *fakeRun {
	t.Helper()
	r := &fakeRun{fakeKernel: newFakeKernel(), log: &strings.Builder{}}
	prepare(r.fakeKernel)
	r.Watcher = &Watcher{kernel: r.fakeKernel, close: func() {}, changed: make(chan struct{}, 1)}
	r.cfg = Config{
		Interface: "eth0",
		Log:       slog.New(slog.NewTextHandler(r.log, nil)),
		OnChange: func(hops map[netip.Addr]lb.NextHop) {
			r.set(func(k *fakeKernel) {
				r.changes = append(r.changes, hops)
				r.times = append(r.times, time.Since(k.start))
			})
		},
	}.withDefaults()
	r.Want(wanted)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	synctest.Wait()
	return r
}

// pass lets time go by. The lock orders what the test has read before what the watcher will write.
func (r *fakeRun) pass(d time.Duration) {
	r.set(func(*fakeKernel) {})
	time.Sleep(d)
	synctest.Wait()
}

// last is the newest next hop of dst that OnChange got.
func (r *fakeRun) last(dst netip.Addr) lb.NextHop {
	if len(r.changes) == 0 {
		return lb.NextHop{}
	}
	return r.changes[len(r.changes)-1][dst]
}

func seconds(list ...float64) []time.Duration {
	var ds []time.Duration
	for _, s := range list {
		ds = append(ds, time.Duration(s*float64(time.Second)))
	}
	return ds
}

var (
	dst1 = netip.MustParseAddr("10.9.0.1")
	dst2 = netip.MustParseAddr("10.9.0.2")
	gw1  = netip.MustParseAddr("10.0.0.1")
	gw2  = netip.MustParseAddr("10.0.0.2")
)

// byGateway prepares routes of dst1 and dst2 by gw1, whose entry is n.
func byGateway(n neighbour) func(*fakeKernel) {
	return func(k *fakeKernel) {
		k.routes[dst1] = route{gateways: []netip.Addr{gw1}}
		k.routes[dst2] = route{gateways: []netip.Addr{gw1}}
		if n != (neighbour{}) {
			k.entries[gw1] = n
		}
	}
}

func TestMissingNeighbourIsProbedUntilFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runFake(t, []netip.Addr{dst1, dst2}, byGateway(neighbour{}))
		if got, want := r.last(dst1).Problem, "no neighbour entry for 10.0.0.1 on eth0 (none)"; got != want {
			t.Errorf("problem %q, want %q", got, want)
		}
		r.pass(20 * time.Second)
		if want := seconds(0, 1, 3, 7, 15); !slices.Equal(r.probes, want) {
			t.Errorf("probed at %v, want %v", r.probes, want)
		}
		if s := r.Stats(); s != (Stats{Wanted: 2, Unresolved: 2, Probes: 5}) {
			t.Errorf("stats %+v", s)
		}
		r.setNeighbour(gw1, neighbour{mac1, netlink.NUD_REACHABLE})
		r.pass(settleTime)
		want := map[netip.Addr]lb.NextHop{dst1: {MAC: mac1, MTU: 1500}, dst2: {MAC: mac1, MTU: 1500}}
		if got := r.changes[len(r.changes)-1]; !maps.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		r.pass(30 * time.Second)
		if len(r.probes) != 5 || len(r.changes) != 2 {
			t.Errorf("afterwards: %d probes, want 5; %d changes, want 2", len(r.probes), len(r.changes))
		}
	})
}

func TestStaleNeighbourIsUsedCountedAndLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runFake(t, []netip.Addr{dst1, dst2}, byGateway(neighbour{mac1, netlink.NUD_STALE}))
		r.pass(12 * time.Second)
		if got, want := r.last(dst1), (lb.NextHop{MAC: mac1, MTU: 1500, Stale: true}); got != want {
			t.Errorf("next hop %+v, want %+v", got, want)
		}
		if got := r.changes[0][dst1]; got.Stale {
			t.Error("called stale before it was asked in vain")
		}
		if want := seconds(0, 5, 10); !slices.Equal(r.probes, want) {
			t.Errorf("probed at %v, want %v", r.probes, want)
		}
		if s := r.Stats(); s != (Stats{Wanted: 2, Stale: 1, Probes: 3}) {
			t.Errorf("stats %+v", s)
		}
		if n := strings.Count(r.log.String(), "stays stale"); n != 1 {
			t.Errorf("logged %d times, want once:\n%s", n, r.log)
		}
		r.setNeighbour(gw1, neighbour{mac1, netlink.NUD_REACHABLE})
		r.pass(settleTime)
		if s := r.Stats(); s.Stale != 0 || len(r.changes) != 3 || r.last(dst1).Stale {
			t.Errorf("after it was confirmed: stats %+v, %d changes, the last %+v", s, len(r.changes), r.last(dst1))
		}
	})
}

func TestBurstIsOneChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runFake(t, []netip.Addr{dst1}, byGateway(neighbour{mac1, netlink.NUD_REACHABLE}))
		lookUps := len(r.lookUps)
		began := time.Since(r.start)
		for i := range 1001 {
			mac := mac1
			if i%2 == 0 {
				mac = mac2
			}
			r.setNeighbour(gw1, neighbour{mac, netlink.NUD_REACHABLE})
		}
		r.pass(time.Second)
		if len(r.changes) != 2 || r.last(dst1).MAC != mac2 {
			t.Errorf("%d changes, the last %+v; want 2 and %v", len(r.changes), r.last(dst1), mac2)
		}
		if took := r.times[1] - began; took != settleTime {
			t.Errorf("handed over after %v, want %v", took, settleTime)
		}
		if len(r.lookUps) != lookUps {
			t.Errorf("%d routes looked up for changes of neighbours", len(r.lookUps)-lookUps)
		}
	})
}

func TestRouteLookUpsOnlyWhenNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runFake(t, []netip.Addr{dst1}, byGateway(neighbour{mac1, netlink.NUD_REACHABLE}))
		steps := []struct {
			name string
			do   func()
			want []netip.Addr
		}{
			{"start", func() {}, []netip.Addr{dst1}},
			{"one more is wanted", func() { r.Want([]netip.Addr{dst2, dst1, dst2}) }, []netip.Addr{dst2}},
			{"a route changed", func() { r.notify(nil, event{kind: routeEvent}) }, []netip.Addr{dst1, dst2}},
			{"a link changed", func() { r.notify(nil, event{kind: linkEvent}) }, []netip.Addr{dst1, dst2}},
			{"one less is wanted", func() { r.Want([]netip.Addr{dst2}) }, nil},
			{"another is wanted again", func() { r.Want([]netip.Addr{dst1}) }, []netip.Addr{dst1}},
		}
		for _, s := range steps {
			s.do()
			r.pass(time.Second)
			if !slices.Equal(r.lookUps, s.want) {
				t.Errorf("%s: looked up %v, want %v", s.name, r.lookUps, s.want)
			}
			r.set(func(k *fakeKernel) { k.lookUps = nil })
		}
		if got := r.changes[len(r.changes)-1]; len(got) != 1 || !got[dst1].Resolved() {
			t.Errorf("at the end %v, want %s alone", got, dst1)
		}
	})
}

func TestRouteFailureKeepsTheOldAndIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runFake(t, []netip.Addr{dst1}, byGateway(neighbour{mac1, netlink.NUD_REACHABLE}))
		r.set(func(k *fakeKernel) {
			k.failRoute[dst1] = 2
			k.routes[dst1] = route{gateways: []netip.Addr{gw1}, mtu: 1400}
		})
		r.notify(nil, event{kind: routeEvent})
		r.pass(time.Second)
		if len(r.changes) != 2 || r.last(dst1) != (lb.NextHop{MAC: mac1, MTU: 1400}) {
			t.Errorf("changes %v, want one more, to MTU 1400", r.changes)
		}
		if s := r.Stats(); s.Resyncs != 2 {
			t.Errorf("%d resyncs, want 2", s.Resyncs)
		}
	})
}

func TestOverrunResyncs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runFake(t, []netip.Addr{dst1}, byGateway(neighbour{mac1, netlink.NUD_REACHABLE}))
		r.set(func(k *fakeKernel) {
			k.entries[gw1] = neighbour{mac2, netlink.NUD_REACHABLE}
			k.resyncedAt, k.subscribedAt = nil, nil
			k.start = time.Now()
		})
		r.notify(unix.ENOBUFS)
		r.pass(settleTime + repairMin)
		if got := r.last(dst1).MAC; got != mac2 {
			t.Errorf("MAC %x after the overrun, want %x", got, mac2)
		}
		for range 5 { // overruns go on
			r.notify(unix.ENOBUFS)
			r.pass(repairMin * 4)
		}
		r.pass(time.Second)
		if n := len(r.resyncedAt); n < 3 || n > 5 {
			t.Errorf("resyncs at %v, want less and less of them", r.resyncedAt)
		}
		if got, want := r.Stats().Resyncs, uint64(len(r.resyncedAt)); got != want {
			t.Errorf("%d resyncs counted, want %d", got, want)
		}
		if !slices.Equal(r.subscribedAt, r.resyncedAt) {
			t.Errorf("subscribed at %v, want at each resync, %v", r.subscribedAt, r.resyncedAt)
		}
	})
}

// TestOverrunOutdatesNews: what was notified before the resync does not undo it.
func TestOverrunOutdatesNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runFake(t, []netip.Addr{dst1}, byGateway(neighbour{mac1, netlink.NUD_REACHABLE}))
		r.notify(unix.ENOBUFS)
		r.pass(settleTime + repairMin - settleTime/2) // the resync comes before the next look
		r.setNeighbour(gw1, neighbour{mac1, netlink.NUD_STALE})
		r.set(func(k *fakeKernel) { k.entries[gw1] = neighbour{mac2, netlink.NUD_REACHABLE} }) // lost
		r.pass(time.Second)
		if len(r.changes) != 2 || r.last(dst1).MAC != mac2 {
			t.Errorf("changes %v, want one from %x to %x", r.changes, mac1, mac2)
		}
	})
}

func TestEndedSubscriptionIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runFake(t, []netip.Addr{dst1}, byGateway(neighbour{mac1, netlink.NUD_REACHABLE}))
		r.set(func(k *fakeKernel) {
			k.entries[gw1] = neighbour{mac2, netlink.NUD_REACHABLE}
			k.failSubscribe = 2
			k.start = time.Now()
			k.subscribedAt = nil
		})
		r.notify(unix.EBADF)
		r.pass(time.Second)
		if want := []time.Duration{30 * time.Millisecond, 70 * time.Millisecond, 150 * time.Millisecond}; !slices.Equal(r.subscribedAt, want) {
			t.Errorf("subscribed at %v, want %v", r.subscribedAt, want)
		}
		if got := r.last(dst1).MAC; got != mac2 {
			t.Errorf("MAC %x, want %x, which changed meanwhile", got, mac2)
		}
		r.setNeighbour(gw1, neighbour{mac1, netlink.NUD_REACHABLE})
		r.pass(settleTime)
		if got := r.last(dst1).MAC; got != mac1 {
			t.Errorf("MAC %x, want %x, from the new subscription", got, mac1)
		}
	})
}

func TestResyncAtIntervalsFindsWhatWasNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runFake(t, []netip.Addr{dst1}, byGateway(neighbour{mac1, netlink.NUD_REACHABLE}))
		r.set(func(k *fakeKernel) {
			k.routes[dst1] = route{gateways: []netip.Addr{gw2}}
			k.entries[gw2] = neighbour{mac2, netlink.NUD_PERMANENT}
		})
		r.pass(DefaultResyncInterval - time.Second)
		if got := r.last(dst1).MAC; got != mac1 {
			t.Fatalf("MAC %x before the interval is over, want %x", got, mac1)
		}
		r.pass(time.Second)
		if got := r.last(dst1).MAC; got != mac2 {
			t.Errorf("MAC %x, want %x", got, mac2)
		}
		if n := r.Stats().Resyncs; n != 0 {
			t.Errorf("%d resyncs counted, want none", n)
		}
	})
}

func TestFailedFirstReadIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runFake(t, []netip.Addr{dst1}, func(k *fakeKernel) {
			byGateway(neighbour{mac1, netlink.NUD_REACHABLE})(k)
			k.failRead = 3
		})
		if len(r.changes) != 0 {
			t.Errorf("handed over %v before anything was read", r.changes)
		}
		r.pass(time.Second)
		if len(r.changes) != 1 || !r.last(dst1).Resolved() {
			t.Errorf("changes %v, want one, resolved", r.changes)
		}
	})
}

func TestInterfaceMadeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runFake(t, []netip.Addr{dst1}, byGateway(neighbour{mac1, netlink.NUD_REACHABLE}))
		old := r.links
		r.set(func(k *fakeKernel) { k.links = link{name: "eth0"} })
		r.notify(nil, event{kind: linkEvent})
		r.pass(settleTime)
		if got, want := r.last(dst1).Problem, "interface eth0 does not exist"; got != want {
			t.Errorf("problem %q, want %q", got, want)
		}
		r.pass(time.Second)
		if len(r.probes) != 0 {
			t.Errorf("probed at %v without an interface", r.probes)
		}
		r.set(func(k *fakeKernel) {
			k.links = goodLink()
			k.links.index = 7
			k.entries = map[netip.Addr]neighbour{gw1: {mac2, netlink.NUD_REACHABLE}}
		})
		r.notify(nil, event{kind: linkEvent},
			event{kind: neighbourEvent, key: neighbourKey{old.index, gw1}, entry: neighbour{mac1, netlink.NUD_REACHABLE}})
		r.pass(settleTime)
		if got := r.last(dst1).MAC; got != mac2 {
			t.Errorf("MAC %x, want %x", got, mac2)
		}
	})
}

func TestWantNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runFake(t, nil, byGateway(neighbour{mac1, netlink.NUD_REACHABLE}))
		r.pass(time.Second)
		if len(r.changes) != 0 {
			t.Errorf("told about %v, though nothing is wanted", r.changes)
		}
		r.Want([]netip.Addr{dst1})
		r.pass(time.Second)
		r.Want(nil)
		r.pass(time.Second)
		if len(r.changes) != 2 || len(r.changes[1]) != 0 {
			t.Errorf("changes %v, want one hop, then none", r.changes)
		}
	})
}

func TestSubscribeFailsAtStart(t *testing.T) {
	k := newFakeKernel()
	k.failSubscribe = 2
	w := &Watcher{kernel: k, cfg: Config{Interface: "eth0"}.withDefaults(), changed: make(chan struct{}, 1)}
	if err := w.Run(t.Context()); err == nil || err.Error() != "no socket" {
		t.Errorf("Run: %v, want the error of the subscription", err)
	}
	got := w.Resolve(t.Context(), []netip.Addr{dst1})
	if want := map[netip.Addr]lb.NextHop{dst1: {Problem: "no socket"}}; !maps.Equal(got, want) {
		t.Errorf("Resolve: %v, want %v", got, want)
	}
}

func TestResolve(t *testing.T) {
	found := lb.NextHop{MAC: mac1, MTU: 1500}
	tests := []struct {
		name     string
		found    time.Duration // when the neighbour appears; 0 is never
		wantTook time.Duration
		want     map[netip.Addr]lb.NextHop
	}{
		{"waits for the neighbour", time.Second, time.Second + settleTime, map[netip.Addr]lb.NextHop{dst1: found, dst2: found}},
		{"gives up", 0, 5 * time.Second, map[netip.Addr]lb.NextHop{
			dst1: {Problem: "no neighbour entry for 10.0.0.1 on eth0 (none)"},
			dst2: {Problem: "no neighbour entry for 10.0.0.1 on eth0 (none)"},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newFakeKernel()
				byGateway(neighbour{})(k)
				w := &Watcher{kernel: k, cfg: Config{Interface: "eth0"}.withDefaults(), changed: make(chan struct{}, 1)}
				if tt.found > 0 {
					time.AfterFunc(tt.found, func() { k.setNeighbour(gw1, neighbour{mac1, netlink.NUD_REACHABLE}) })
				}
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				got := w.Resolve(ctx, []netip.Addr{dst1, dst2, dst1})
				if !maps.Equal(got, tt.want) {
					t.Errorf("got %v, want %v", got, tt.want)
				}
				if took := time.Since(k.start); took != tt.wantTook {
					t.Errorf("took %v, want %v", took, tt.wantTook)
				}
				if s := w.Stats(); s != (Stats{}) {
					t.Errorf("stats %+v, want none", s)
				}
			})
		})
	}
}

// TestFixedAsksNobody: with a whole fixed next hop nothing needs privileges or an interface.
func TestFixedAsksNobody(t *testing.T) {
	fixed := lb.NextHop{MAC: mac2, MTU: 9000}
	synctest.Test(t, func(t *testing.T) {
		changes := make(chan map[netip.Addr]lb.NextHop, 1)
		w, err := New(Config{Interface: "none", Fixed: &fixed, OnChange: func(h map[netip.Addr]lb.NextHop) { changes <- h }})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		want := map[netip.Addr]lb.NextHop{dst1: fixed}
		if got := w.Resolve(t.Context(), []netip.Addr{dst1}); !maps.Equal(got, want) {
			t.Errorf("Resolve: %v, want %v", got, want)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- w.Run(ctx) }()
		w.Want([]netip.Addr{dst1})
		if got := <-changes; !maps.Equal(got, want) {
			t.Errorf("OnChange: %v, want %v", got, want)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}
