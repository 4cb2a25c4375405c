// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/require"
	"github.com/remora-lb/remora/test/rig"
)

// faultChecks finds faults soon, and gives a server on a busy machine enough time to answer.
const faultChecks = "interval: 200ms, timeout: 1s, rise: 2, fall: 2"

// faultBed is a bed with many services, each at a port of its own of the IPv4 VIP.
type faultBed struct {
	*bed
	ca *authority
	// services is YAML.
	services strings.Builder
}

// brokenService is a service that one of two servers does not give, from the beginning on.
type brokenService struct {
	name string
	port uint16
	// protocol is that of the VIP, kind the check and its sections.
	protocol, kind string
	serve          func(t *testing.T, n *rig.Node, port uint16, broken bool)
	// reason, detail and fault are what the daemon reports.
	reason, detail, fault string
}

func (b *faultBed) brokenServices() []brokenService {
	trust := fmt.Sprintf("kind: https, tls: {server_name: www.example.com, ca_file: %q}", b.ca.file)
	hour := time.Now().Add(time.Hour)
	secure := func(name string, end time.Time) func(*testing.T, *rig.Node, uint16, bool) {
		return func(t *testing.T, n *rig.Node, port uint16, broken bool) {
			cert := b.ca.issue(t, "www.example.com", hour)
			if broken {
				cert = b.ca.issue(t, name, end)
			}
			serveHTTP(t, n, port, &cert, http.NotFoundHandler())
		}
	}
	return []brokenService{
		{"certificate for another name", 8001, "tcp", trust + `, http: {status: ["404"]}`, secure("other.example.com", hour), "tls_name", "other.example.com", "tls"},
		{"expired certificate", 8002, "tcp", trust + `, http: {status: ["404"]}`, secure("www.example.com", time.Now().Add(-time.Hour)), "tls_expired", "expired", "tls"},
		{"gRPC not serving", 8003, "tcp", "kind: grpc, grpc: {service: shop}", serveShop, "not_serving", "NOT_SERVING", "service_failing"},
		{"DNS SERVFAIL", 8004, "udp", "kind: dns, dns: {name: www.example.com}", serveNames, "servfail", "", "service_failing"},
		{"late answer", 8005, "tcp", "kind: http", serveLate, "no_answer", "no whole answer in time", "service_down"},
	}
}

// serveShop serves gRPC's health for the service shop.
func serveShop(t *testing.T, n *rig.Node, port uint16, broken bool) {
	t.Helper()
	status := healthpb.HealthCheckResponse_SERVING
	if broken {
		status = healthpb.HealthCheckResponse_NOT_SERVING
	}
	serveGRPCHealth(t, n, port, "shop", status)
}

// serveNames answers DNS queries.
func serveNames(t *testing.T, n *rig.Node, port uint16, broken bool) {
	t.Helper()
	rcode := dns.RcodeSuccess
	if broken {
		rcode = dns.RcodeServerFailure
	}
	serveDNS(t, n, port, rcode)
}

// serveLate answers after the timeout of the checks if it is broken.
func serveLate(t *testing.T, n *rig.Node, port uint16, broken bool) {
	t.Helper()
	serveHTTP(t, n, port, nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !broken {
			return
		}
		late := time.NewTimer(1500 * time.Millisecond)
		defer late.Stop()
		select {
		case <-late.C:
		case <-r.Context().Done():
		}
	}))
}

// switched is a web server that fails while it is ill.
type switched struct{ ill atomic.Bool }

func (s *switched) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	if s.ill.Load() {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

// switchedAt starts a switched server at a port of a node.
func switchedAt(t *testing.T, n *rig.Node, port uint16) *switched {
	t.Helper()
	s := new(switched)
	serveHTTP(t, n, port, nil, s)
	return s
}

// add adds a service at a port.
func (b *faultBed) add(port uint16, protocol, health string, servers ...*rig.Node) {
	var backends []string
	for _, s := range servers {
		backends = append(backends, s.IPv4.String())
	}
	fmt.Fprintf(&b.services, "  - {name: at%d, vips: [%q], backends: [%s], health: {%s}}\n",
		port, faultVIP(port, protocol), strings.Join(backends, ", "), health)
}

func faultVIP(port uint16, protocol string) string {
	return netip.AddrPortFrom(vip4(), port).String() + "/" + protocol
}

// checkedVIP is what remora status says of a VIP and its checks.
type checkedVIP struct {
	VIP    string
	Health struct {
		Healthy  int
		FailOpen bool `json:"fail_open"`
	}
	Reals []checkedReal
}

type checkedReal struct {
	ID           lb.RealID
	Address, Use string
	Health       struct {
		Local, Reason, Detail, Fault string
		Percent                      int
		Suppressed                   bool
	}
}

// checked reads what is known of a VIP; the reals are by server.
func (b *faultBed) checked(t *testing.T, vip string) (checkedVIP, map[*rig.Node]checkedReal, error) {
	t.Helper()
	command := b.remora.Status("-o", "json", "--interval", "0s", "--socket", b.remora.Socket())
	out, err := b.balancer.Run(t.Context(), command[0], command[1:]...)
	if err != nil {
		return checkedVIP{}, nil, err
	}
	var s struct{ VIPs []checkedVIP }
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return checkedVIP{}, nil, fmt.Errorf("read status: %v", err)
	}
	i := slices.IndexFunc(s.VIPs, func(v checkedVIP) bool { return v.VIP == vip })
	if i < 0 {
		return checkedVIP{}, nil, fmt.Errorf("the status has no VIP %s", vip)
	}
	reals := make(map[*rig.Node]checkedReal)
	for _, r := range s.VIPs[i].Reals {
		for _, n := range b.Servers {
			if n.IPv4.String() == r.Address {
				reals[n] = r
			}
		}
	}
	return s.VIPs[i], reals, nil
}

// awaitReal waits until what is known of a server, for a VIP, is as wanted.
func (b *faultBed) awaitReal(t *testing.T, vip string, n *rig.Node, what string, wanted func(checkedReal) bool) {
	t.Helper()
	waitFor(t, n.Name+" for "+vip+": "+what, func() error {
		if err := b.daemon.Running(); err != nil {
			return err
		}
		_, reals, err := b.checked(t, vip)
		if err == nil && !wanted(reals[n]) {
			err = fmt.Errorf("it is %+v", reals[n])
		}
		return err
	})
}

// up and down are for awaitReal. One that is up gets new flows, and one that is down does not.
func up(r checkedReal) bool {
	return r.Health.Local == "up" && r.Health.Reason == "ok" && r.Use == "active"
}

func down(r checkedReal) bool { return r.Health.Local == "down" && r.Use != "active" }

// TestHealthReasons has one daemon check servers with all kinds of faults at the same time, and report
// of each what is wrong.
func TestHealthReasons(t *testing.T) {
	require.Tools(t, "ip", "nft")
	b := &faultBed{bed: newBed(t, rig.Config{Servers: 5}), ca: newAuthority(t)}
	for _, n := range b.Servers {
		b.startDecap(t, n, n.IPv4)
	}
	broken := b.brokenServices()
	for _, c := range broken {
		c.serve(t, b.Servers[0], c.port, true)
		c.serve(t, b.Servers[1], c.port, false)
		b.add(c.port, c.protocol, faultChecks+", "+c.kind, b.Servers[:2]...)
	}
	// Each adds its service before the daemon starts, and returns its test.
	type test func(*testing.T)
	tests := map[string]test{
		"half of the packets lost": b.lossy(t, 8010),
		"strict rp_filter":         b.filtered(t, 8011),
		"flapping":                 b.flapping(t, 8012),
		"slow start":               b.slowStart(t, 8013),
		"fail-open threshold":      b.failOpen(t, 8014),
	}
	for _, c := range broken {
		tests[c.name] = func(t *testing.T) { b.reports(t, c) }
	}
	b.writeText(t, fmt.Sprintf("interface: %s\nservices:\n%s", rig.BalancerInterface, b.services.String()))
	b.startDaemon(t)
	t.Run("all", func(t *testing.T) { // ends with the last of the parallel ones, before the bed does
		for name, f := range tests {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				f(t)
			})
		}
	})
}

// reports demands that the broken server is down, for the reason and with the fault, and that the other
// one is up.
func (b *faultBed) reports(t *testing.T, c brokenService) {
	vip, sick, well := faultVIP(c.port, c.protocol), b.Servers[0], b.Servers[1]
	b.awaitReal(t, vip, sick, fmt.Sprintf("down, reason %s with %q, fault %s", c.reason, c.detail, c.fault), func(r checkedReal) bool {
		return down(r) && r.Health.Reason == c.reason && strings.Contains(r.Health.Detail, c.detail) && r.Health.Fault == c.fault
	})
	b.awaitReal(t, vip, well, "up", up)
	b.printed(t, vip, sick, "down, "+c.fault)
	b.printed(t, vip, well, "up")
}

// printed demands that the table of remora status has words in the line of a server, below its VIP.
func (b *faultBed) printed(t *testing.T, vip string, n *rig.Node, words string) {
	t.Helper()
	command := b.remora.Status("--interval", "0s", "--socket", b.remora.Socket())
	out, err := b.balancer.Run(t.Context(), command[0], command[1:]...)
	require.NoError(t, err)
	_, below, _ := strings.Cut(out, "\n"+vip)
	_, line, _ := strings.Cut(below, "\n  "+n.IPv4.String()+" ")
	line, _, _ = strings.Cut(line, "\n")
	if !strings.HasPrefix(strings.TrimSpace(line), words) {
		t.Errorf("%s for %s is %q, want %q", n.Name, vip, line, words)
	}
}

// lossy: a server that loses half of what comes to it is down, for want of answers. It does not pass often
// enough in a row to come back.
func (b *faultBed) lossy(t *testing.T, port uint16) func(*testing.T) {
	t.Helper()
	sick, vip := b.Servers[2], faultVIP(port, "tcp")
	for _, n := range []*rig.Node{b.Servers[1], sick} {
		serveHTTP(t, n, port, nil, new(switched))
	}
	b.add(port, "tcp", "interval: 200ms, timeout: 500ms, rise: 1000, fall: 2, initial: up, kind: http", b.Servers[1], sick)
	return func(t *testing.T) {
		b.awaitReal(t, vip, sick, "up", up)
		rules := fmt.Sprintf("table inet loss { chain in { type filter hook prerouting priority 0; tcp dport %d numgen random mod 2 0 drop; }; }", port)
		_, err := sick.Run(within(t), "nft", rules)
		require.NoError(t, err)
		b.awaitReal(t, vip, sick, "down, nothing came back", func(r checkedReal) bool {
			return down(r) && (r.Health.Reason == "timeout" || r.Health.Reason == "no_answer")
		})
		// Probes between those still pass.
		b.awaitReal(t, vip, sick, "down, and passes at times", func(r checkedReal) bool { return down(r) && r.Health.Reason == "ok" })
	}
}

// filtered: a server whose packets come out of the tunnel by another interface than its answers
// leave by drops them in silence if that interface has a strict reverse path filter.
func (b *faultBed) filtered(t *testing.T, port uint16) func(*testing.T) {
	t.Helper()
	sick, vip := b.Servers[4], faultVIP(port, "tcp")
	for _, n := range []*rig.Node{b.Servers[1], sick} {
		serveHTTP(t, n, port, nil, new(switched))
	}
	b.add(port, "tcp", faultChecks+", kind: http", b.Servers[1], sick)
	b.unwrapElsewhere(t, sick)
	return func(t *testing.T) {
		filter := func(value string) { require.NoError(t, sick.SetSysctl("net.ipv4.conf.tunnel.rp_filter", value)) }
		b.awaitReal(t, vip, sick, "up", up)
		filter("1")
		b.awaitReal(t, vip, sick, "down, its reverse path filter suspected", func(r checkedReal) bool {
			return down(r) && r.Health.Reason == "timeout" && r.Health.Fault == "vip_missing"
		})
		b.printed(t, vip, sick, "down, vip_missing")
		b.logged(t, 0, "its reverse path filter drops what was in them")
		filter("0") // not 2: on an interface without an IPv4 address that drops them, too
		b.awaitReal(t, vip, sick, "up", up)
	}
}

// unwrapElsewhere has packets for the VIP come from an interface called tunnel, as if that had
// unwrapped them.
func (b *faultBed) unwrapElsewhere(t *testing.T, n *rig.Node) {
	t.Helper()
	link, err := n.Run(within(t), "ip", "-br", "link", "show", "dev", rig.ServerInterface)
	require.NoError(t, err)
	const macField = 2 // name, state, address
	mac := strings.Fields(link)[macField]
	for _, command := range []string{
		"ip link add unwraps type veth peer name tunnel",
		"ip link set tunnel address " + mac + " up",
		"ip link set unwraps up",
		fmt.Sprintf("nft table netdev tunnel { chain in { type filter hook ingress device %s priority 0; ip daddr %v fwd to unwraps; }; }", rig.ServerInterface, vip4()),
	} {
		words := strings.Fields(command)
		_, err := n.Run(within(t), words[0], words[1:]...)
		require.NoError(t, err)
	}
}

// flapping: a server that goes up and down is held down although it passes, and let go later.
func (b *faultBed) flapping(t *testing.T, port uint16) func(*testing.T) {
	t.Helper()
	serveHTTP(t, b.Servers[1], port, nil, new(switched))
	sick, vip, server := b.Servers[0], faultVIP(port, "tcp"), switchedAt(t, b.Servers[0], port)
	b.add(port, "tcp", faultChecks+", kind: http, damping: {penalty: 1000, suppress: 1500, reuse: 800, half_life: 3s, longest: 10s}", b.Servers[:2]...)
	return func(t *testing.T) {
		b.awaitReal(t, vip, sick, "up", up)
		held := func(r checkedReal) bool { return down(r) && r.Health.Suppressed && r.Health.Reason == "ok" }
		waitFor(t, "damping", func() error {
			server.ill.Store(true)
			b.awaitReal(t, vip, sick, "down", func(r checkedReal) bool { return down(r) && r.Health.Reason == "bad_status" })
			server.ill.Store(false)
			var last checkedReal
			b.awaitReal(t, vip, sick, "up, or held down", func(r checkedReal) bool { last = r; return up(r) || held(r) })
			if !held(last) {
				return fmt.Errorf("it is %+v", last)
			}
			return nil
		})
		b.printed(t, vip, sick, "down, flapping")
		b.awaitReal(t, vip, sick, "up", up)
	}
}

// slowStart: a server that recovers gets its share of the ring in steps.
func (b *faultBed) slowStart(t *testing.T, port uint16) func(*testing.T) {
	t.Helper()
	serveHTTP(t, b.Servers[1], port, nil, new(switched))
	sick, vip, server := b.Servers[0], faultVIP(port, "tcp"), switchedAt(t, b.Servers[0], port)
	b.add(port, "tcp", faultChecks+", kind: http, slow_start: {duration: 8s, steps: 4}", b.Servers[:2]...)
	return func(t *testing.T) {
		b.awaitReal(t, vip, sick, "up", up)
		server.ill.Store(true)
		b.awaitReal(t, vip, sick, "down", down)
		server.ill.Store(false)
		var steps []int
		waitFor(t, "the whole weight", func() error {
			_, reals, err := b.checked(t, vip)
			if err != nil {
				return err
			}
			r := reals[sick]
			share := b.share(t, port, r.ID)
			// Of two servers, of which the other has its whole weight.
			want := float64(r.Health.Percent) / float64(100+r.Health.Percent)
			if up(r) && math.Abs(share-want) < 0.01 && !slices.Contains(steps, r.Health.Percent) {
				steps = append(steps, r.Health.Percent)
			}
			if !slices.Contains(steps, 100) {
				return fmt.Errorf("it has %.3f of the ring, want %.3f, with %d%% of its weight", share, want, r.Health.Percent)
			}
			return nil
		})
		t.Logf("its weight was seen, in the status and in the ring, at %v percent", steps)
		// A busy machine may miss one.
		all := []int{25, 50, 75, 100}
		if len(steps) < 3 || !slices.IsSorted(steps) || slices.ContainsFunc(steps, func(n int) bool { return !slices.Contains(all, n) }) {
			t.Errorf("the steps were %v, want %v", steps, all)
		}
	}
}

// share is a real's share of the slots of the ring at a TCP port.
func (b *faultBed) share(t *testing.T, port uint16, id lb.RealID) float64 {
	t.Helper()
	rings, err := (&crashBed{bed: b.bed}).readSlots()
	require.NoError(t, err)
	ring := rings[lb.VIP{Addr: vip4(), Port: port, Protocol: lb.TCP}]
	var has int
	for _, slot := range ring {
		if slot.Cur() == id {
			has++
		}
	}
	return float64(has) / float64(max(len(ring), 1))
}

// failOpen: with less than half of the servers healthy, the checks are not believed.
func (b *faultBed) failOpen(t *testing.T, port uint16) func(*testing.T) {
	t.Helper()
	nodes, vip := []*rig.Node{b.Servers[0], b.Servers[1], b.Servers[3]}, faultVIP(port, "tcp")
	var servers []*switched
	for _, n := range nodes {
		servers = append(servers, switchedAt(t, n, port))
	}
	b.add(port, "tcp", faultChecks+", kind: http, fail_open: 50", nodes...)
	return func(t *testing.T) {
		b.awaitGroup(t, vip, nodes, "up up up", false)
		servers[0].ill.Store(true)
		b.awaitGroup(t, vip, nodes, "down up up", false) // 67 percent
		servers[1].ill.Store(true)
		b.awaitGroup(t, vip, nodes, "down down up", true) // 33 percent
		servers[0].ill.Store(false)
		b.awaitGroup(t, vip, nodes, "up down up", false)
	}
}

// awaitGroup waits until the verdicts of servers, for a VIP, are these. All of them get new flows if it
// fails open, and else those that are up.
func (b *faultBed) awaitGroup(t *testing.T, vip string, nodes []*rig.Node, verdicts string, open bool) {
	t.Helper()
	waitFor(t, fmt.Sprintf("%s: %s, fail open: %v", vip, verdicts, open), func() error {
		v, reals, err := b.checked(t, vip)
		if err != nil {
			return err
		}
		var errs []error
		if v.Health.FailOpen != open || v.Health.Healthy != strings.Count(verdicts, "up") {
			errs = append(errs, fmt.Errorf("together they are %+v", v.Health))
		}
		for i, want := range strings.Fields(verdicts) {
			r := reals[nodes[i]]
			if r.Health.Local != want || (r.Use == "active") != (open || want == "up") {
				errs = append(errs, fmt.Errorf("%s is %+v", nodes[i].Name, r))
			}
		}
		return errors.Join(errs...)
	})
}
