// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package routers

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/remora-lb/remora/bgp"
	"github.com/remora-lb/remora/bgp/bfd"
	"github.com/remora-lb/remora/test/require"
)

// gracefulRestart keeps the routes long enough for a restart on a slow machine.
func gracefulRestart() bgp.GracefulRestart {
	return bgp.GracefulRestart{RestartTime: 60 * time.Second, DeferralTime: 5 * time.Second}
}

// TestFailures measures how long routers send packets to a balancer that cannot take any.
func TestFailures(t *testing.T) {
	t.Parallel()
	const interval = 100 * time.Millisecond
	for _, tc := range []struct {
		name   string
		bfd    bool
		signal syscall.Signal
		// within is the longest that the route may stay, with much to spare for a slow machine.
		within time.Duration
	}{
		{"killed", false, syscall.SIGKILL, 3 * time.Second},
		{"frozen without BFD", false, syscall.SIGSTOP, 10 * time.Second},
		{"frozen with BFD", true, syscall.SIGSTOP, 2500 * time.Millisecond},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			eachRouter(t, func(t *testing.T, kind string) {
				cfg := Config{}
				if tc.bfd {
					cfg.BFDInterval = interval
				}
				b := newBed(t, kind, cfg)
				speakers := make([]*speaker, 2)
				for i := range speakers {
					speakers[i] = b.start(t, i, b.withBFD(i, tc.bfd, interval), both()...)
				}
				b.routed(t, vip4(), 0, 1)
				b.routed(t, vip6(), 0, 1)
				if tc.bfd {
					for _, s := range speakers {
						s.waitBFD(t)
					}
				}
				monitor, err := b.router.Monitor(testContext(t))
				require.NoError(t, err)
				start := time.Now()
				require.NoError(t, speakers[0].Signal(tc.signal))
				b.routed(t, vip4(), 1)
				b.routed(t, vip6(), 1)
				took := monitor.last(t, vip4(), vip6()).Sub(start)
				t.Logf("%s, %s: routes gone after %v", kind, tc.name, took)
				if took > tc.within {
					t.Errorf("it took %v, more than %v", took, tc.within)
				}
			})
		})
	}
}

// withBFD is the configuration of a speaker with or without BFD.
func (b *bed) withBFD(i int, on bool, interval time.Duration) speakerConfig {
	cfg := b.config(i)
	for j := range cfg.Peers {
		cfg.Peers[j].BFD = bgp.BFD{Enabled: on, Interval: interval}
	}
	return cfg
}

func (s *speaker) waitBFD(t *testing.T) {
	t.Helper()
	s.waitSessions(t, "BFD sessions to be up", func(x bgp.Session) bool { return x.BFD == bfd.Up.String() })
}

// last is when the last change of the prefixes' routes was. There is one of each.
func (m *Monitor) last(t *testing.T, prefixes ...netip.Prefix) (last time.Time) {
	t.Helper()
	for _, p := range prefixes {
		m.waitChange(t, p)
		changes := m.Changes(p)
		if c := changes[len(changes)-1].Time; c.After(last) {
			last = c
		}
	}
	return last
}

// waitChange waits until the monitor has told of a change of the prefix's route: it is a process,
// and may be behind.
func (m *Monitor) waitChange(t *testing.T, p netip.Prefix) {
	t.Helper()
	eventually(t, fmt.Sprintf("news of %v", p), func(context.Context) error {
		if len(m.Changes(p)) == 0 {
			return errors.New("there are none")
		}
		return nil
	})
}

// TestBFDComesBack freezes the router: the speaker notices, and comes back when the router does.
func TestBFDComesBack(t *testing.T) {
	t.Parallel()
	const interval = 100 * time.Millisecond
	eachRouter(t, func(t *testing.T, kind string) {
		b := newBed(t, kind, Config{BFDInterval: interval})
		s := b.start(t, 0, b.withBFD(0, true, interval), both()...)
		s.waitBFD(t)
		// Nothing flapped on the way: each router keeps the session that it had first.
		for _, x := range s.sessions(t) {
			if x.LastError != "" && x.LastErrorAt.After(x.Since) {
				t.Errorf("session %+v: an error after it was established", x)
			}
		}
		processes := b.processes(t)
		start := time.Now()
		for _, p := range processes {
			require.NoError(t, p.Signal(syscall.SIGSTOP))
		}
		s.waitSessions(t, "sessions to be lost", func(x bgp.Session) bool { return x.State != bgp.Established })
		t.Logf("%s frozen: the speaker noticed within %v", kind, time.Since(start))
		for _, p := range processes {
			require.NoError(t, p.Signal(syscall.SIGCONT))
		}
		s.waitEstablished(t)
		s.waitBFD(t)
		b.routed(t, vip4(), 0)
		b.routed(t, vip6(), 0)
	})
}

// TestPeerRestart kills the router's daemon and starts it again.
func TestPeerRestart(t *testing.T) {
	t.Parallel()
	eachRouter(t, func(t *testing.T, kind string) {
		b := newBed(t, kind, Config{})
		s := b.start(t, 0, b.config(0), both()...)
		b.routed(t, vip4(), 0)
		switch r := b.router.(type) {
		case *FRR:
			require.NoError(t, r.Kill("bgpd"))
			require.NoError(t, r.Start(testContext(t), "bgpd"))
		case *BIRD:
			require.NoError(t, r.Kill())
			require.NoError(t, r.Start(testContext(t)))
		}
		start := time.Now()
		s.waitSessions(t, "sessions to be lost", func(x bgp.Session) bool { return x.LastError != "" })
		s.waitEstablished(t)
		b.routed(t, vip4(), 0)
		b.routed(t, vip6(), 0)
		t.Logf("%s back: routes there again after %v", kind, time.Since(start))
	})
}

// TestGracefulRestart ends a speaker in several ways and starts the next one.
func TestGracefulRestart(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		end  func(t *testing.T, s *speaker)
		// restarting is what the next speaker says.
		restarting bool
		// keeps tells whether no router may take the routes out.
		keeps bool
	}{
		{"left for an upgrade", leave, true, true},
		{"killed", kill, true, true},
		{"stopped for good", stop, false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			eachRouter(t, func(t *testing.T, kind string) {
				b := newBed(t, kind, Config{GracefulRestart: true})
				cfg := b.config(0)
				cfg.GracefulRestart = gracefulRestart()
				s := b.start(t, 0, cfg, both()...)
				b.routed(t, vip4(), 0)
				b.routed(t, vip6(), 0)
				monitor, err := b.router.Monitor(testContext(t))
				require.NoError(t, err)
				tc.end(t, s)
				if !tc.keeps {
					b.routed(t, vip4())
					b.routed(t, vip6())
				}
				cfg.Restarting = tc.restarting
				s = b.start(t, 0, cfg, both()...)
				// A new route shows that the routers have finished with the restart: they delete what
				// was not announced again before they take it.
				extra := netip.MustParsePrefix("192.0.2.11/32")
				s.announce(t, append(both(), route(extra))...)
				b.routed(t, extra, 0)
				b.routed(t, vip4(), 0)
				b.routed(t, vip6(), 0)
				monitor.waitChange(t, extra) // and with it what was before
				if gone := monitor.gone(vip4(), vip6()); (gone == "") != tc.keeps {
					t.Errorf("routes taken out: %q", gone)
				}
			})
		})
	}
}

// gone tells of the routes that were deleted.
func (m *Monitor) gone(prefixes ...netip.Prefix) (text string) {
	for _, p := range prefixes {
		for _, c := range m.Changes(p) {
			if c.Deleted {
				text += fmt.Sprintf("%v: %s; ", c.Time, c.Text)
			}
		}
	}
	return text
}

func leave(t *testing.T, s *speaker) {
	t.Helper()
	s.command(t, "POST", "/leave", nil, nil)
	<-s.Done()
}

func kill(t *testing.T, s *speaker) {
	t.Helper()
	require.NoError(t, s.Kill())
}

func stop(t *testing.T, s *speaker) {
	t.Helper()
	s.command(t, "POST", "/stop", nil, nil)
	<-s.Done()
}
