// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/remora-lb/remora/test/require"
	"github.com/remora-lb/remora/test/rig"
	"github.com/remora-lb/remora/test/routers"
)

// TestBGP has two balancers announce their VIPs to a router that keeps routes over a restart, and takes
// them through what operators do, under traffic.
func TestBGP(t *testing.T) {
	eachBGPRouter(t, func(t *testing.T, kind string) {
		b := newBGPBed(t, kind, routers.Config{GracefulRestart: true}, "")
		b.more = [2]string{"  graceful_restart: {time: 60s, deferral: 5s}\n", "  graceful_restart: {time: 60s, deferral: 5s}\n"}
		b.startBoth(t)
		for _, one := range b.pair {
			one.stands(t, "announced", "served")
		}
		for _, step := range []struct {
			name string
			do   func(*testing.T)
		}{
			{"a VIP comes and goes", b.checkVIPs},
			{"a thousand VIPs", b.checkThousand},
			{"no backends", b.checkBackends},
			{"two of three backends", b.checkDegraded},
			{"drain", b.checkDrain},
			{"restart", b.checkRestart},
			{"the router restarts", b.checkRouterRestart},
			{"stop for good", b.checkGoodbye},
		} {
			if !t.Run(step.name, step.do) {
				return
			}
		}
	})
}

// checkVIPs adds a VIP and removes it: no session is touched, and it is served until it is withdrawn.
func (b *bgpBed) checkVIPs(t *testing.T) {
	before := b.uptimes(t, 0)
	extra := netip.MustParsePrefix("192.0.2.11/32")
	b.configure(t, 0, b.servers(), "  - {name: extra, vips: [\"192.0.2.11:80/tcp\"], backends: [10.20.0.11]}\n")
	b.hup(t)
	b.via(t, extra, 0)
	b.checkLatency(t, extra)
	b.configure(t, 0, b.servers(), "")
	b.hup(t)
	eventually(t, "the extra VIP to be drained", func(ctx context.Context) error {
		s, err := b.bgpStatus(ctx)
		if err == nil && !slices.ContainsFunc(s.VIPs, func(v announcement) bool { return v.Code == "removed" }) {
			err = fmt.Errorf("VIPs %+v", s.VIPs)
		}
		return err
	})
	waitFor(t, "the extra VIP to leave the data plane", func() error {
		if left := b.vips(t); slices.Contains(left, "192.0.2.11:80/tcp") {
			return fmt.Errorf("it has %v", left)
		}
		return nil
	})
	// It left after the router's route did.
	hops, err := b.router.NextHops(within(t), extra)
	if err != nil || len(hops) > 0 {
		t.Errorf("it left, and the router still sends to %v, error %v", hops, err)
	}
	if after := b.uptimes(t, 0); !slices.Equal(before, after) {
		t.Errorf("sessions were %q, and are now %q", before, after)
	}
}

// checkLatency takes the only backend of a VIP away and measures when the router's kernel knows. The
// time is from the start of the command, so it is an upper bound.
func (b *bgpBed) checkLatency(t *testing.T, p netip.Prefix) {
	t.Helper()
	monitor, err := b.router.Monitor(within(t))
	require.NoError(t, err)
	vip := netip.AddrPortFrom(p.Addr(), 80).String() + "/tcp"
	var took []time.Duration
	for range 10 {
		start := time.Now()
		b.control(t, "drain", vip, "10.20.0.11")
		b.via(t, p)
		eventually(t, "news of the route", func(context.Context) error {
			changes := monitor.Changes(p)
			if len(changes) == 0 || !changes[len(changes)-1].Deleted || changes[len(changes)-1].Time.Before(start) {
				return errors.New("none yet")
			}
			took = append(took, changes[len(changes)-1].Time.Sub(start))
			return nil
		})
		b.control(t, "undrain", vip, "10.20.0.11")
		b.via(t, p, 0)
	}
	slices.Sort(took)
	t.Logf("from the drain of the last backend until the route has left the kernel: median %v, longest %v", took[len(took)/2], took[len(took)-1])
}

// checkThousand adds a thousand VIPs and removes them, without a session flap.
func (b *bgpBed) checkThousand(t *testing.T) {
	before := b.uptimes(t, 0)
	const count = 1000
	var vips []string
	for i := range count {
		vips = append(vips, fmt.Sprintf("\"198.18.%d.%d:80/tcp\"", 1+i/250, 1+i%250))
	}
	many := fmt.Sprintf("  - {name: many, ring: {size: 251}, backends: [10.20.0.11], vips: [%s]}\n", strings.Join(vips, ", "))
	had := b.count(t)
	for _, step := range []struct {
		what, services string
		want           int
	}{{"announced", many, had + count}, {"withdrawn", "", had}} {
		start := time.Now()
		b.configure(t, 0, b.servers(), step.services)
		b.hup(t)
		eventually(t, "routes", func(ctx context.Context) error {
			n, err := b.router.Count(ctx)
			if err == nil && n != step.want {
				err = fmt.Errorf("there are %d, want %d", n, step.want)
			}
			return err
		})
		t.Logf("%d VIPs %s %v after the reload began (a withdrawal begins with a drain of 2 s)", count, step.what, time.Since(start))
	}
	if after := b.uptimes(t, 0); !slices.Equal(before, after) {
		t.Errorf("sessions were %q, and are now %q", before, after)
	}
}

// count is how many routes the router has.
func (b *bgpBed) count(t *testing.T) int {
	t.Helper()
	n, err := b.router.Count(within(t))
	require.NoError(t, err)
	return n
}

// vips are those in the data plane.
func (b *bed) vips(t *testing.T) (vips []string) {
	t.Helper()
	s, err := b.status(within(t))
	require.NoError(t, err)
	for _, v := range s.VIPs {
		vips = append(vips, v.VIP)
	}
	return vips
}

// checkBackends takes all backends of a service away on one balancer, and gives them back.
func (b *bgpBed) checkBackends(t *testing.T) {
	b.configure(t, 0, nil, "")
	b.hup(t)
	b.stands(t, "waiting", "too_few_healthy")
	b.routed(t, 1)
	b.configure(t, 0, b.servers(), "")
	b.hup(t)
	b.stands(t, "announced", "served")
	b.routed(t, 0, 1)
}

// checkDegraded takes two of three backends away on one balancer: the router prefers the other one.
func (b *bgpBed) checkDegraded(t *testing.T) {
	two := b.servers()[:2]
	for _, backend := range two {
		b.control(t, "drain", backend)
	}
	b.stands(t, "degraded", "low_weight")
	b.routed(t, 1)
	for _, backend := range two {
		b.control(t, "undrain", backend)
	}
	b.stands(t, "announced", "served")
	b.routed(t, 0, 1)
}

// checkDrain takes a balancer out under traffic, restarts it meanwhile, and takes it in again. Nothing
// is lost.
func (b *bgpBed) checkDrain(t *testing.T) {
	tr := b.begin(t)
	start := time.Now()
	command := b.remora.Control("drain", "--node", "--wait")
	drain, err := b.balancer.Start(command[0], command[1:]...)
	require.NoError(t, err)
	b.seesShutdown(t)
	select {
	case <-drain.Done():
		t.Logf("drained after %v: %s", time.Since(start), strings.TrimSpace(drain.Output()))
	case <-time.After(bgpWait):
		t.Fatalf("the drain does not end: %s", drain.Output())
	}
	b.stands(t, "withdrawn", "drain_node")
	b.routed(t, 1)
	require.NoError(t, b.daemon.Stop(waitTimeout))
	tr.flows(t)
	b.launchDaemon(t)
	b.stands(t, "withdrawn", "drain_node")
	b.control(t, "undrain", "--node")
	b.stands(t, "announced", "served")
	b.routed(t, 0, 1)
	tr.flows(t)
	made, lost, why := tr.end(t)
	t.Logf("%d requests, %d lost", made, lost)
	if lost > 0 {
		t.Errorf("%d of %d requests and two downloads were lost: %s", lost, made, why)
	}
}

// seesShutdown waits until the router has the first balancer's routes with the community
// GRACEFUL_SHUTDOWN, as long as it has them.
func (b *bgpBed) seesShutdown(t *testing.T) {
	t.Helper()
	p := b.prefixes()[0]
	eventually(t, "GRACEFUL_SHUTDOWN", func(ctx context.Context) error {
		var text string
		var err error
		switch r := b.router.(type) {
		case *routers.FRR:
			paths, err := r.Paths(ctx, p)
			if err != nil {
				return err
			}
			text = paths[b.balancer.IPv4].Community.String
		case *routers.BIRD:
			text, err = r.Route(ctx, p)
		}
		if err == nil && !strings.Contains(text, "graceful-shutdown") && !strings.Contains(text, "(65535,0)") {
			err = fmt.Errorf("the routes are %s", text)
		}
		return err
	})
}

// checkRestart ends the daemon as an upgrade does, and starts it again: no route changes.
func (b *bgpBed) checkRestart(t *testing.T) {
	monitor, err := b.router.Monitor(within(t))
	require.NoError(t, err)
	tr := b.begin(t)
	require.NoError(t, b.daemon.Stop(waitTimeout))
	tr.flows(t)
	extra := netip.MustParsePrefix("192.0.2.12/32")
	// A route that comes after them shows that the router has finished with the restart.
	b.configure(t, 0, b.servers(), "  - {name: last, vips: [\"192.0.2.12:80/tcp\"], backends: [10.20.0.11]}\n")
	b.startDaemon(t)
	b.via(t, extra, 0)
	b.routed(t, 0, 1)
	made, lost, why := tr.end(t)
	t.Logf("%d requests, %d lost", made, lost)
	if lost > 0 {
		t.Errorf("%d of %d requests and two downloads were lost: %s", lost, made, why)
	}
	eventually(t, "news of the extra route", func(context.Context) error {
		if len(monitor.Changes(extra)) == 0 {
			return errors.New("none yet")
		}
		return nil
	})
	for _, p := range b.prefixes() {
		for _, c := range monitor.Changes(p) {
			if c.Deleted {
				t.Errorf("the route was taken out: %s", c.Text)
			}
		}
	}
}

// checkRouterRestart kills the router's daemon: sessions and routes come back by themselves.
func (b *bgpBed) checkRouterRestart(t *testing.T) {
	start := time.Now()
	b.restartRouter(t)
	for i := range b.pair {
		waitFor(t, "sessions", func() error {
			if up := b.uptimes(t, i); slices.Contains(up, "") {
				return fmt.Errorf("they are %q", up)
			}
			return nil
		})
	}
	b.routed(t, 0, 1)
	t.Logf("sessions and routes there again after %v", time.Since(start))
	b.stands(t, "announced", "served")
}

// checkGoodbye stops a balancer that takes its program with it: the routes go first, and nothing is
// lost.
func (b *bgpBed) checkGoodbye(t *testing.T) {
	skip := len(b.daemon.Output())
	b.configure(t, 0, b.servers(), "on_exit: detach\n")
	b.hup(t)
	b.logged(t, skip, "configuration is reloaded")
	tr := b.begin(t)
	require.NoError(t, b.daemon.Stop(waitTimeout))
	if _, err := b.status(within(t)); err == nil {
		t.Error("the data plane is still there")
	}
	b.routed(t, 1)
	tr.flows(t)
	made, lost, why := tr.end(t)
	t.Logf("%d requests, %d lost", made, lost)
	if lost > 0 {
		t.Errorf("%d of %d requests and two downloads were lost: %s", lost, made, why)
	}
}

// TestBGPLoss kills a balancer under traffic, and then lets it fall silent as a host without power
// does, with and without BFD. The other one has a wrong key at first
// and gets no session with it.
func TestBGPLoss(t *testing.T) {
	for _, interval := range []time.Duration{0, 100 * time.Millisecond} {
		t.Run(fmt.Sprintf("BFD every %v", interval), func(t *testing.T) {
			t.Parallel()
			eachBGPRouter(t, func(t *testing.T, kind string) {
				const key = "a-good-key"
				b := newBGPBed(t, kind, routers.Config{BFDInterval: interval}, key)
				b.password[1] = "wrong"
				for i := range b.pair {
					b.configure(t, i, b.servers(), "")
					b.pair[i].startDaemon(t)
				}
				b.routed(t, 0)
				b.neverEstablished(t, 1)
				b.password[1] = b.password[0]
				b.configure(t, 1, b.servers(), "")
				require.NoError(t, b.pair[1].daemon.Stop(waitTimeout))
				b.pair[1].startDaemon(t)
				b.routed(t, 0, 1)
				if interval > 0 {
					b.awaitBFD(t)
				}
				b.checkLoss(t, "killed", func() { require.NoError(t, b.daemon.Kill()) })
				b.startDaemon(t)
				b.routed(t, 0, 1)
				if interval > 0 {
					b.awaitBFD(t)
				}
				b.checkLoss(t, "silent", func() { b.silence(t, 0) })
			})
		})
	}
}

// neverEstablished demands that a balancer gets no session while it tries several times.
func (b *bgpBed) neverEstablished(t *testing.T, i int) {
	t.Helper()
	deadline := time.Now().Add(4 * time.Second) // it tries every second
	waitFor(t, "attempts with a wrong key", func() error {
		for _, up := range b.uptimes(t, i) {
			if up != "" {
				t.Fatalf("a session with a wrong key is up: %s", up)
			}
		}
		if time.Now().Before(deadline) {
			return errors.New("it is not yet time")
		}
		return nil
	})
}

// awaitBFD waits until the first balancer's BFD sessions are up.
func (b *bgpBed) awaitBFD(t *testing.T) {
	t.Helper()
	eventually(t, "BFD sessions to be up", func(ctx context.Context) error {
		s, err := b.bgpStatus(ctx)
		for _, x := range s.Sessions {
			if x.BFD != "up" {
				err = errors.Join(err, fmt.Errorf("session %+v", x))
			}
		}
		return err
	})
}

// checkLoss has something happen to the first balancer under traffic, measures how long the router
// still sends to it, and counts what is lost, which is no failure.
func (b *bgpBed) checkLoss(t *testing.T, what string, happen func()) {
	t.Helper()
	monitor, err := b.router.Monitor(within(t))
	require.NoError(t, err)
	tr := b.begin(t)
	start := time.Now()
	happen()
	b.routed(t, 1)
	tr.flows(t)
	made, lost, _ := tr.end(t)
	var last time.Time
	eventually(t, "news of the routes", func(context.Context) error {
		for _, p := range b.prefixes() {
			changes := monitor.Changes(p)
			if len(changes) == 0 {
				return fmt.Errorf("none of %v", p)
			}
			if at := changes[len(changes)-1].Time; at.After(last) {
				last = at
			}
		}
		return nil
	})
	t.Logf("%s: routes gone after %v; %d of %d requests and downloads lost", what, last.Sub(start), lost, made+len(tr.downloads))
}

// silence has no packet come to a balancer, and none leave.
func (b *bgpBed) silence(t *testing.T, i int) {
	t.Helper()
	n := b.Balancers[i]
	for _, end := range []struct {
		node *rig.Node
		link string
	}{{b.Router, "to-" + n.Name}, {n, rig.BalancerInterface}} {
		_, err := end.node.Run(within(t), "tc", "qdisc", "add", "dev", end.link, "root", "blackhole")
		require.NoError(t, err)
	}
}
