// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/engine"
	"github.com/remora-lb/remora/lb/engine/enginetest"
)

const (
	vip1 = "192.0.2.10:80/tcp"
	vip2 = "[2001:db8::10]:443/tcp"
)

// fixture is an engine with the fakes around it.
type fixture struct {
	*engine.Engine
	dp   *enginetest.Dataplane
	hops *enginetest.NextHops
	log  *logBuffer
	// cancel ends Run's context, and stop waits for its end too.
	cancel, stop func()
}

// newFixture makes an engine on dp, or on an empty data plane if dp is nil. It does not run.
func newFixture(t *testing.T, dp *enginetest.Dataplane, change func(*engine.Config)) *fixture {
	t.Helper()
	b := &fixture{dp: dp, hops: &enginetest.NextHops{}, log: &logBuffer{}}
	if dp == nil {
		b.dp = enginetest.NewDataplane(t, 1)
	}
	cfg := engine.DefaultConfig()
	cfg.Log = slog.New(slog.NewTextHandler(b.log, nil))
	if change != nil {
		change(&cfg)
	}
	e, err := engine.New(cfg, b.dp, b.hops)
	if err != nil {
		t.Fatal(err)
	}
	b.Engine = e
	return b
}

// run starts the engine. stop, which comes at the latest with the end of the test, ends it.
func (b *fixture) run(t *testing.T) *fixture {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	b.cancel = cancel
	ended := make(chan error)
	go func() { ended <- b.Run(ctx) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(b.stop)
	return b
}

// expectCalls compares the verbs called since the last time.
func (b *fixture) expectCalls(t *testing.T, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, b.dp.TakeCalls()); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

// expectDump compares what the data plane has, a line each.
func (b *fixture) expectDump(t *testing.T, want string) {
	t.Helper()
	want = strings.Trim(strings.ReplaceAll(want, "\t", ""), "\n")
	if diff := cmp.Diff(want, b.dp.Dump()); diff != "" {
		t.Errorf("data plane (-want +got):\n%s", diff)
	}
}

// ids are the real ids by backend address, in the status.
func (b *fixture) ids() map[string]lb.RealID {
	ids := make(map[string]lb.RealID)
	for _, s := range b.Status().Services {
		for _, v := range s.VIPs {
			for _, r := range v.Reals {
				ids[r.Backend.Addr.String()] = r.ID
			}
		}
	}
	return ids
}

// service has its VIPs in rings of 7 slots, with default tunnels.
func service(t *testing.T, name string, vips ...string) lb.Service {
	t.Helper()
	s := lb.Service{Name: name}
	for _, text := range vips {
		v, err := lb.ParseVIP(text)
		if err != nil {
			t.Fatal(err)
		}
		s.VIPs = append(s.VIPs, lb.ServiceVIP{VIP: v, Ring: lb.Ring{Size: 7}, Tunnel: lb.DefaultTunnelSources()})
	}
	return s
}

// backends are those of service web, each of weight 1.
func backends(addrs ...string) map[string][]lb.Backend {
	var list []lb.Backend
	for _, a := range addrs {
		list = append(list, lb.Backend{Addr: netip.MustParseAddr(a), Weight: 1})
	}
	return map[string][]lb.Backend{"web": list}
}

// resolved are next hops, all with one MAC address.
func resolved(addrs ...string) map[netip.Addr]lb.NextHop {
	hops := make(map[netip.Addr]lb.NextHop)
	for _, a := range addrs {
		hops[netip.MustParseAddr(a)] = lb.NextHop{MAC: [6]byte{2, 0, 0, 0, 0, 1}, MTU: 1500}
	}
	return hops
}

// logBuffer is a log that may be read while it is written.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// count is the number of lines that contain text.
func (l *logBuffer) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), text)
}
