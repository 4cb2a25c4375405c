// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package nexthop

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/remora-lb/remora/lb"
)

const (
	// settleTime is how long the first notification of a burst waits for the others.
	settleTime = 10 * time.Millisecond
	// lookUpRest is how long route look-ups rest, as a multiple of the time that the last round
	// took, so that a router's flapping routes keep no core busy.
	lookUpRest = 4
	// repairMin and repairMax bound the growing delay before another attempt after a failure.
	repairMin = 20 * time.Millisecond
	repairMax = 5 * time.Second
)

// session is one run of a watcher. All of it belongs to the goroutine that calls run, except the
// inbox, which another goroutine fills.
type session struct {
	cfg      Config
	log      *slog.Logger
	kernel   kernel // nil if it is not needed
	counters *counters
	// publish hands over the next hops after a change; the session ends if it says done.
	publish func(map[netip.Addr]lb.NextHop) (done bool)

	wanted    []netip.Addr // each once
	table     table
	prober    prober
	published map[netip.Addr]lb.NextHop

	inbox      *inbox
	sub        subscription // nil while there is none
	readerDone chan struct{}

	// When the work of each kind is due; zero if there is none.
	newsAt, routesAt, resyncAt, subscribeAt time.Time

	synced       bool      // the kernel's state was read once
	changed      bool      // something in table or wanted is not yet published
	newlyWanted  bool      // some wanted addresses may have no route yet
	resyncForced bool      // the resync that is due is made because something went wrong
	routesRest   time.Time // no round of route look-ups before
	rereads      backoff
	resubscribe  backoff

	probeFailure       string // the last one logged, and when
	probeFailureLogged time.Time
}

// newSession makes a session; its publish must be set before run.
func newSession(cfg Config, k kernel, c *counters) *session {
	return &session{
		cfg:      cfg,
		log:      cfg.Log.With("interface", cfg.Interface),
		kernel:   k,
		counters: c,
		table: table{
			link:       link{name: cfg.Interface},
			fixed:      cfg.Fixed,
			routes:     make(map[netip.Addr]route),
			neighbours: make(map[netip.Addr]neighbour),
		},
		prober:      prober{retryMin: cfg.RetryMin, retryMax: cfg.RetryMax, staleInterval: cfg.StaleInterval},
		inbox:       newInbox(),
		synced:      k == nil,
		rereads:     backoff{min: repairMin, max: repairMax},
		resubscribe: backoff{min: repairMin, max: repairMax},
	}
}

// run works until ctx ends or publish says done. Each signal on changed replaces the wanted set by
// that of the function wanted.
func (s *session) run(ctx context.Context, changed <-chan struct{}, wanted func() []netip.Addr) error {
	if s.kernel != nil {
		if err := s.subscribe(); err != nil {
			return err
		}
		defer s.unsubscribe()
		s.resyncAt = time.Now()
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			s.setWanted(wanted())
		case <-s.inbox.ready:
			s.newsAt = earlier(s.newsAt, time.Now().Add(settleTime))
		case <-timer.C:
		}
		if done := s.step(time.Now()); done {
			return nil
		}
		if next := s.nextWork(); next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(next))
		}
	}
}

// setWanted replaces the wanted set.
func (s *session) setWanted(addrs []netip.Addr) {
	s.wanted = slices.Clone(addrs)
	slices.SortFunc(s.wanted, netip.Addr.Compare)
	s.wanted = slices.Compact(s.wanted)
	s.newlyWanted, s.changed = true, true
}

// step does the work that is due.
func (s *session) step(now time.Time) (done bool) {
	if take(&s.newsAt, now) {
		s.readNews(now)
	}
	if take(&s.subscribeAt, now) {
		s.subscribeAgain(now)
	}
	if take(&s.resyncAt, now) {
		s.resync(now)
	}
	if take(&s.routesAt, now) {
		s.lookUpAll(now)
	}
	if s.newlyWanted && s.synced {
		s.lookUpNew(now)
	}
	if s.changed && s.synced {
		done = s.evaluate(now)
	}
	s.sendProbes(now)
	return done
}

// take tells whether work is due, and if so, takes it off the calendar.
func take(at *time.Time, now time.Time) bool {
	if at.IsZero() || at.After(now) {
		return false
	}
	*at = time.Time{}
	return true
}

func (s *session) nextWork() time.Time {
	var next time.Time
	if s.changed && s.synced {
		next = time.Now()
	}
	for _, at := range []time.Time{s.newsAt, s.subscribeAt, s.resyncAt, s.routesAt, s.prober.next()} {
		next = earlier(next, at)
	}
	return next
}

// evaluate decides the next hop of every wanted address, and publishes what differs.
func (s *session) evaluate(now time.Time) (done bool) {
	s.changed = false
	hops := make(map[netip.Addr]lb.NextHop, len(s.wanted))
	staleInUse := make(map[netip.Addr]bool)
	failed := 0
	for _, dst := range s.wanted {
		hop, via := s.table.nextHop(dst)
		if !hop.Resolved() {
			failed++
		} else if via.IsValid() && s.table.neighbours[via].condition() == stale {
			staleInUse[via] = true
			hop.Stale = s.prober.unconfirmed(via)
		}
		hops[dst] = hop
	}
	s.counters.wanted.Store(int64(len(hops)))
	s.counters.unresolved.Store(int64(failed))
	s.counters.stale.Store(int64(len(staleInUse)))
	s.prober.observe(now, s.table.gateways())
	if maps.Equal(hops, s.published) {
		return false
	}
	s.emit(s.published, hops)
	s.published = hops
	return s.publish(maps.Clone(hops))
}

// sendProbes asks the kernel for the neighbours whose turn it is.
func (s *session) sendProbes(now time.Time) {
	for _, p := range s.prober.due(now) {
		if p.condition == stale && p.count == confirmAttempts+1 {
			s.changed = true
			s.log.Warn("neighbour stays stale, its last known MAC address is used", "gateway", p.addr)
		}
		s.counters.probes.Add(1)
		if err := s.kernel.probe(s.table.link.index, p.addr, p.condition); err != nil {
			s.logProbeFailure(now, p.addr, err)
		}
	}
}

// probeFailureEvery is how often the same failure is logged, rather than for every neighbour and
// attempt.
const probeFailureEvery = time.Minute

func (s *session) logProbeFailure(now time.Time, gateway netip.Addr, err error) {
	if text := err.Error(); text != s.probeFailure || now.Sub(s.probeFailureLogged) >= probeFailureEvery {
		s.probeFailure, s.probeFailureLogged = text, now
		s.log.Warn("cannot ask the kernel to resolve a neighbour", "gateway", gateway, "err", err)
	}
}
