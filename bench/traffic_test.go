// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/require"
)

func TestParsePacketSize(t *testing.T) {
	for _, tc := range []struct {
		in   string
		ipv6 bool
		mean float64
		err  string
	}{
		{"64", false, 64, ""},
		{"1514", true, 1514, ""},
		{"imix", false, (7*64 + 4*590 + 1514) / 12.0, ""},
		{"imix", true, (7*78 + 4*590 + 1514) / 12.0, ""},
		{"64", true, 0, `packet size "64" is not imix, nor a number from 78 to 1514`},
		{"63", false, 0, `packet size "63" is not`},
		{"1515", false, 0, `packet size "1515" is not`},
		{"big", false, 0, `packet size "big" is not`},
	} {
		t.Run(tc.in, func(t *testing.T) {
			got, err := ParsePacketSize(tc.in, tc.ipv6)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("it gives %v, want %q", err, tc.err)
				}
				return
			}
			if err != nil || math.Abs(got.mean()-tc.mean) > 1e-9 || len(got.Pattern) > patternLen {
				t.Errorf("it gives %v, %v, want a mean of %g", got, err, tc.mean)
			}
		})
	}
}

func testLoad(t *testing.T, vip lb.VIP, size string) load {
	t.Helper()
	s, err := ParsePacketSize(size, vip.Addr.Is6())
	if err != nil {
		t.Fatal(err)
	}
	return load{size: s, destination: vip, mac: [6]byte([]byte(balancerMAC)), sources: 256, ports: 4}
}

// Frames of the generator are right to the last checksum, whichever flow they are of.
func TestGeneratorFrames(t *testing.T) {
	require.Root(t)
	for _, tc := range []struct {
		name, size string
		vip        lb.VIP
	}{
		{"ipv4", "64", TrafficVIP4()}, {"ipv4 mixed", "imix", TrafficVIP4()}, {"ipv6", "78", TrafficVIP6()}, {"ipv6 mixed", "imix", TrafficVIP6()},
		{"ipv6, odd length", "101", TrafficVIP6()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := testLoad(t, tc.vip, tc.size)
			coll, err := loadLane(l, 3, 1)
			if err != nil {
				t.Fatal(err)
			}
			defer coll.Close()
			seen := map[string]bool{}
			for i := range 200 {
				const redirect = 4
				verdict, out, err := coll.Programs["generate"].Test(make([]byte, slices.Max(l.size.Pattern)))
				if err != nil {
					t.Fatal(err)
				}
				if want := l.size.Pattern[i%len(l.size.Pattern)]; verdict != redirect || len(out) != want {
					t.Fatalf("packet %d: verdict %d, %d bytes, want %d", i, verdict, len(out), want)
				}
				seen[checkGenerated(t, l, out, uint32(i+1))] = true
			}
			if len(seen) < 100 {
				t.Errorf("200 packets are of %d flows", len(seen))
			}
		})
	}
}

// checkGenerated checks a frame of lane 3, and returns its flow.
func checkGenerated(t *testing.T, l load, f []byte, number uint32) string {
	t.Helper()
	udpAt, source := udp4At, f[26:30]
	if l.ipv6() {
		udpAt, source = udp6At, f[34:38]
		pseudo := append(append([]byte{}, f[etherLen+8:udp6At]...), 0, 0, 0, 0, 0, 0, 0, byte(lb.UDP))
		binary.BigEndian.PutUint16(pseudo[34:], uint16(len(f)-udp6At))
		body := append(pseudo, f[udp6At:]...)
		if len(body)%2 == 1 {
			body = append(body, 0)
		}
		if got := internetChecksum(body); got != 0 {
			t.Fatalf("packet %d: checksum over UDP is %04x, want 0", number, got)
		}
	} else {
		if got := internetChecksum(f[etherLen : etherLen+20]); got != 0 {
			t.Fatalf("packet %d: checksum over the IPv4 header is %04x, want 0", number, got)
		}
		if f[26] != 10 {
			t.Fatalf("packet %d comes from %v", number, f[26:30])
		}
	}
	if at := binary.BigEndian.Uint32(source) & 0xffffff; at < 3*256 || at >= 4*256 {
		t.Fatalf("packet %d: source %d is not of the third lane", number, at)
	}
	if port := binary.BigEndian.Uint16(f[udpAt:]); port < firstPort || port >= firstPort+4 {
		t.Fatalf("packet %d: source port %d", number, port)
	}
	if got := binary.BigEndian.Uint32(f[udpAt+12:]); got != number {
		t.Fatalf("packet %d has number %d", number, got)
	}
	if timed := binary.BigEndian.Uint64(f[udpAt+16:]) != 0; timed != (number%64 == 1) {
		t.Fatalf("packet %d has a time: %v", number, timed)
	}
	return string(source) + string(f[udpAt:udpAt+2])
}

// stamped is a frame of the bench with a number, without a time.
func stamped(t *testing.T, source byte, number, magic uint32, wrap func([]byte) []byte) []byte {
	t.Helper()
	l := testLoad(t, TrafficVIP4(), "100")
	f := l.frame(100)
	f[29] = source
	binary.BigEndian.PutUint32(f[udp4At+8:], magic)
	binary.BigEndian.PutUint32(f[udp4At+12:], number)
	if wrap == nil {
		return f
	}
	return wrap(f[etherLen:])
}

func TestSinkCounts(t *testing.T) {
	require.Root(t)
	s, err := openSink()
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	outer4, outer6 := backend4(7), backend6(8)
	ipip := func(b []byte) []byte { return etherFrame(etherIPv4, ipv4Packet(addresses().client4, outer4, 4, b)) }
	in6 := func(b []byte) []byte { return etherFrame(etherIPv6, ipv6Packet(addresses().client6, outer6, 4, b)) }
	gue := func(b []byte) []byte {
		return etherFrame(etherIPv4, ipv4Packet(addresses().client4, outer4, byte(lb.UDP), append(udpDatagram(9, 6080, 0), b...)))
	}
	for _, p := range []struct {
		name    string
		frame   []byte
		verdict lb.Verdict
	}{
		{"ipip", stamped(t, 1, 1, stampMagic, ipip), lb.Drop},
		{"ipip, next", stamped(t, 1, 2, stampMagic, ipip), lb.Drop},
		{"in IPv6", stamped(t, 1, 3, stampMagic, in6), lb.Drop},
		{"gue", stamped(t, 1, 4, stampMagic, gue), lb.Drop},
		{"another flow", stamped(t, 2, 3, stampMagic, ipip), lb.Drop},
		{"out of order", stamped(t, 1, 2, stampMagic, ipip), lb.Drop},
		{"again in order", stamped(t, 1, 5, stampMagic, ipip), lb.Drop},
		{"plain", stamped(t, 3, 6, stampMagic, nil), lb.Drop},
		{"pktgen's", stamped(t, 4, 64, 0xbe9be955, ipip), lb.Drop},
		{"a stranger", stamped(t, 1, 7, 0x12345678, ipip), lb.Pass},
		{"TCP", caseNamed(t, "tcp4-ack").Frame, lb.Pass},
		{"ARP", etherFrame(0x0806, make([]byte, 46)), lb.Pass},
	} {
		verdict, _, err := s.program().Test(p.frame)
		if err != nil || lb.Verdict(verdict) != p.verdict {
			t.Errorf("%s: verdict %s, %v, want %s", p.name, lb.Verdict(verdict), err, p.verdict)
		}
	}
	got, err := s.read()
	if err != nil {
		t.Fatal(err)
	}
	if want := [tallyLen]uint64{tallyReceived: 9, tallyPlain: 1, tallyDisordered: 1}; got.tallies != want {
		t.Errorf("counted are %v, want %v", got.tallies, want)
	}
	want := map[netip.Addr]uint64{outer4: 7, outer6: 1, TrafficVIP4().Addr: 1}
	if diff := cmp.Diff(want, got.servers, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	if l := got.latency(); l.Samples != 1 { // pktgen's, whose time is 1970
		t.Errorf("latency is %+v, want one sample", l)
	}
	if diff := got.since(got); diff.tallies != [tallyLen]uint64{} || len(diff.servers) != 0 {
		t.Errorf("the difference to itself is %+v", diff)
	}
	if err := s.forget(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.program().Test(stamped(t, 1, 1, stampMagic, ipip)); err != nil {
		t.Fatal(err)
	}
	if n, err := sumOfCPUs(s.coll.Maps["tallies"], tallyDisordered); err != nil || n != 1 {
		t.Errorf("after the order is forgotten, %d packets are out of order (%v), want still 1", n, err)
	}
}

func TestLatencyBuckets(t *testing.T) {
	var s sinkState
	if got := s.latency(); got != (Latency{}) {
		t.Errorf("without samples it is %+v", got)
	}
	for i := 1; i < latencyBuckets; i++ {
		if bucketEnd(i) <= bucketEnd(i-1) {
			t.Fatalf("bucket %d ends at %d, the one before at %d", i, bucketEnd(i), bucketEnd(i-1))
		}
	}
	for i, want := range map[int]uint64{0: 1, 7: 8, 8: 9, 15: 16, 16: 18, 23: 32, 24: 36} {
		if got := bucketEnd(i); got != want {
			t.Errorf("bucket %d ends at %d, want %d", i, got, want)
		}
	}
	s.latencies[16], s.latencies[64] = 99, 1
	want := Latency{Samples: 100, P50: 0.018, P90: 0.018, P99: 0.018, P999: float64(bucketEnd(64)) / 1e3, Max: float64(bucketEnd(64)) / 1e3}
	if diff := cmp.Diff(want, s.latency()); diff != "" {
		t.Error(diff)
	}
}

func TestBalance(t *testing.T) {
	a, b, c := backend4(1), backend4(2), backend4(3)
	for _, tc := range []struct {
		name    string
		packets map[netip.Addr]uint64
		weights map[netip.Addr]float64
		want    Balance
	}{
		{"nothing", nil, nil, Balance{}},
		{"even", map[netip.Addr]uint64{a: 50, b: 50}, nil, Balance{2, 1, 1, 0, 0.1}},
		{"by weight", map[netip.Addr]uint64{a: 25, b: 75}, map[netip.Addr]float64{a: 1, b: 3}, Balance{2, 1, 1, 0, math.Sqrt((3 + 1.0/3) / 2 / 100)}},
		{"one gets all", map[netip.Addr]uint64{a: 100}, map[netip.Addr]float64{a: 1, b: 1}, Balance{1, 0, 2, 1, 0.1}},
		{"one is not known", map[netip.Addr]uint64{a: 50, b: 50, c: 10}, map[netip.Addr]float64{a: 1, b: 1}, Balance{3, 1, 1, 0, 0.1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := balance(tc.packets, tc.weights, 100)
			near := cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) < 1e-9 })
			if diff := cmp.Diff(tc.want, got, near); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestBisect(t *testing.T) {
	for _, tc := range []struct {
		name            string
		least, most, at float64
		want            float64
	}{
		{"all fits", 100, 1e6, 2e6, 1e6},
		{"half", 100, 1e6, 5e5, 5e5},
		{"little", 100, 1e6, 150, 150},
		{"nothing", 100, 1e6, 50, 0},
		{"less than the least", 100, 10, 1e6, 100},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, asked := bisect(tc.least, tc.most, 0.01, func(rate float64) bool { return rate <= tc.at }, func() bool { return false })
			if math.Abs(got-tc.want) > 0.021*tc.want || got > tc.at {
				t.Errorf("it finds %g, want %g", got, tc.want)
			}
			if asked > 2+int(math.Ceil(math.Log2(max(tc.most/tc.least, 2)/0.01))) {
				t.Errorf("it asks %d times", asked)
			}
		})
	}
	if _, asked := bisect(1, 1e9, 1e-3, func(float64) bool { return false }, func() bool { return true }); asked != 1 {
		t.Errorf("it asks %d times after it was stopped", asked)
	}
}

func TestBurst(t *testing.T) {
	for rate, want := range map[float64]int{0: vethBatch, 100: 1, 150_000: 1, 250_000: 2, 1e6: 8, 1e8: 64} {
		if got := burstOf(rate); got != want {
			t.Errorf("at %g a second %d at once, want %d", rate, got, want)
		}
	}
}

// quickTraffic sends a little, on one CPU, where nothing can be lost.
func quickTraffic(t *testing.T, target string) TrafficOptions {
	t.Helper()
	require.Root(t)
	o := DefaultTrafficOptions()
	o.Target, o.Across, o.FIFO, o.Duration, o.Sources = floor(t, target), false, false, 100*time.Millisecond, 4096
	return o
}

func TestTrafficThroughLab(t *testing.T) {
	o := quickTraffic(t, Unit)
	o.Sizes, o.Threads = []string{"64", "imix"}, 2
	before := openFiles(t)
	r, err := Traffic(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.Err(), r.validate()); err != nil {
		t.Error(err)
	}
	if len(r.Trials) != 2 {
		t.Fatalf("%d trials, want 2", len(r.Trials))
	}
	for _, one := range r.Trials {
		if one.Sent < 1000 || one.Received != one.Sent || one.Lost != 0 || one.Plain != 0 || one.Balance.Servers != realsByVIP {
			t.Errorf("trial is %+v", one)
		}
		if one.Latency.Samples < one.Sent/100 || one.Latency.P50 <= 0 || one.CPUPerMpps <= 0 || one.SentMpps <= 0 {
			t.Errorf("no figures: %+v", one)
		}
		if one.Balance.Least < 0.5 || one.Balance.Most > 1.5 {
			t.Errorf("the balance of an even ring is %+v", one.Balance)
		}
	}
	if after := openFiles(t); after > before {
		t.Errorf("%d files left open", after-before)
	}
}

// Packets that the program does not send back are lost, and a paced generator keeps to its rate or below.
func TestTrafficLost(t *testing.T) {
	o := quickTraffic(t, "drop")
	o.Rate = 50_000
	r, err := Traffic(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	one := r.Trials[0]
	if one.Received != 0 || one.Lost != one.Sent || one.Sent == 0 || one.SentMpps > 0.06 {
		t.Errorf("trial is %+v", one)
	}
	if err := r.Err(); err == nil || !strings.Contains(err.Error(), "packets came back") {
		t.Errorf("it gives %v", err)
	}
}

func TestTrafficAcrossCPUs(t *testing.T) {
	cpus, err := allowedCPUs()
	if err != nil || len(cpus) < 2 {
		t.Skipf("there are not two CPUs: %v, %v", cpus, err)
	}
	o := quickTraffic(t, Unit)
	o.Across = true
	r, err := Traffic(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if one := r.Trials[0]; one.Received == 0 || one.Disordered != 0 || one.CPUPerMpps <= 0 || one.Placement != placementName(true) {
		t.Errorf("trial is %+v", one)
	}
}

func TestTrafficSearch(t *testing.T) {
	o := quickTraffic(t, Unit)
	o.Search = &SearchOptions{Trial: 100 * time.Millisecond, Resolution: 0.3, Tries: 2, Curve: 3}
	r, err := Traffic(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Searches) != 1 {
		t.Fatalf("%d searches, want 1", len(r.Searches))
	}
	// On one CPU nothing is lost, so the generator is the bound.
	if s := r.Searches[0]; !s.GeneratorBound || s.Mpps <= 0 || s.Latency.Samples == 0 || s.WireMbps <= 0 {
		t.Errorf("search is %+v", s)
	}
	roles := map[string]int{}
	for _, one := range r.Trials {
		roles[one.Role]++
	}
	if roles[roleFree] != 1 || roles[roleSearch] == 0 || roles[roleLatency] != 1 || roles[roleCurve] != 3 {
		t.Errorf("trials are %v", roles)
	}
	if err := r.validate(); err != nil {
		t.Error(err)
	}
}

func TestScale(t *testing.T) {
	o := quickTraffic(t, Unit)
	r, err := Scale(t.Context(), o, []Target{floor(t, Unit), floor(t, "encap_const")}, 2)
	if err != nil {
		t.Fatal(err)
	}
	cpus, _ := allowedCPUs()
	if want := 2 * len(scaleSetups(len(cpus))); len(r.Trials) != want {
		t.Errorf("%d trials, want %d", len(r.Trials), want)
	}
	if err := errors.Join(r.Err(), r.validate()); err != nil {
		t.Error(err)
	}
}

// What was measured before an interruption is kept, and everything else is gone.
func TestTrafficInterrupted(t *testing.T) {
	o := quickTraffic(t, Unit)
	o.Sizes = []string{"64", "128", "256"}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o.Log = func(Trial) { cancel() }
	before := openFiles(t)
	r, err := Traffic(ctx, o)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("it gives %v", err)
	}
	if len(r.Trials) != 1 || !r.Interrupted || !Measured(r) {
		t.Errorf("report is %+v", r)
	}
	if after := openFiles(t); after > before {
		t.Errorf("%d files left open", after-before)
	}
}

// A long run ends soon after it is told to.
func TestTrafficEndsWithinATrial(t *testing.T) {
	o := quickTraffic(t, Unit)
	o.Duration = 24 * time.Hour
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := Traffic(ctx, o); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it gives %v", err)
	}
	if took := time.Since(start); took > time.Minute {
		t.Errorf("it took %v", took)
	}
}

// inPair runs f in the client's namespace of a pair whose other end has the program.
func inPair(t *testing.T, program string, f func(client side, dev string) error) error {
	t.Helper()
	require.Root(t)
	var client, balancer side
	if err := errors.Join(client.openUnnamed(), balancer.openUnnamed()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(client.closeUnnamed(), balancer.closeUnnamed()); err != nil {
			t.Error(err)
		}
	}()
	if err := connectSides(&client, &balancer, "card0", "balancer0"); err != nil {
		t.Fatal(err)
	}
	loaded, _ := loadTarget(t, floor(t, program))
	attached, err := balancer.attach(loaded)
	if err != nil {
		t.Fatal(err)
	}
	defer attached.Close()
	return onThread(func() error {
		if err := netns.Set(client.ns); err != nil {
			return err
		}
		return f(client, "card0")
	})
}

func interfaceOptions(t *testing.T, dev string) TrafficOptions {
	t.Helper()
	o := quickTraffic(t, Unit)
	o.Target, o.TX, o.MAC, o.Generator = Target{}, dev, net.HardwareAddr(balancerMAC), GeneratorLive
	return o
}

func TestTrafficOnInterface(t *testing.T) {
	err := inPair(t, Unit, func(_ side, dev string) error {
		r, err := Traffic(t.Context(), interfaceOptions(t, dev))
		if err != nil {
			return err
		}
		one := r.Trials[0]
		if one.Received != one.Sent || one.Received == 0 || one.Placement != "interfaces" || one.Target != "" {
			t.Errorf("trial is %+v", one)
		}
		if len(one.Counters) == 0 {
			t.Error("the driver's counters were not read")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestTrafficSparesTheDefaultRoute(t *testing.T) {
	err := inPair(t, Unit, func(client side, dev string) error {
		dl, err := client.handle.LinkByName(dev)
		if err != nil {
			return err
		}
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 1), Mask: net.CIDRMask(24, 32)}}
		route := &netlink.Route{LinkIndex: dl.Attrs().Index, Gw: net.IPv4(192, 0, 2, 2)}
		if err := errors.Join(client.handle.AddrAdd(dl, addr), client.handle.RouteAdd(route)); err != nil {
			return err
		}
		o := interfaceOptions(t, dev)
		if _, err := Traffic(t.Context(), o); err == nil || !strings.Contains(err.Error(), `interface "card0" carries the default route`) {
			t.Errorf("it gives %v", err)
		}
		o.Force = true
		if _, err := Traffic(t.Context(), o); err != nil {
			t.Errorf("forced, it gives %v", err)
		}
		o.TX = "none0"
		if _, err := Traffic(t.Context(), o); err == nil || !strings.Contains(err.Error(), `find interface "none0"`) {
			t.Errorf("an interface that is not there gives %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestTrafficOptionsRefused(t *testing.T) {
	o := DefaultTrafficOptions()
	o.RX, o.Generator, o.Threads, o.Sources, o.Ports, o.Rate, o.Duration = "x", "iperf", 0, 3, 1<<16, 5, 0
	o.Sizes, o.Destinations = []string{"5"}, []lb.VIP{{Addr: addresses().vip4, Port: 80, Protocol: lb.TCP}}
	o.Search = &SearchOptions{MaxLoss: math.NaN()}
	_, err := Traffic(t.Context(), o)
	for _, want := range []string{
		"no program for the lab", "rx, mac and force need", `generator: "iperf"`, "threads: 0", "sources: 3", "ports: 65536", "rate: 5 is less", "duration: 0s",
		`packet size "5"`, "its protocol is not udp", "search: trial: 0s", "search: max loss: NaN", "search: resolution: 0", "search: tries: 0",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in %v", want, err)
		}
	}
}

// here stands for the namespace of the test.
func here(f func() error) error { return f() }

// fakePktgen is a folder like the kernel's, with files for the threads 0 and 1 and their devices.
func fakePktgen(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	for name, text := range map[string]string{
		"pgctrl": "", "kpktgend_0": "", "kpktgend_1": "",
		"eth9@0": "Params: count 0\nCurrent:\n     pkts-sofar: 1500  errors: 2\nResult: OK: 1000(c900+d100) usec, 1500 (60byte,0frags)\n",
		"eth9@1": "Params: count 0\nCurrent:\n     pkts-sofar: 2500  errors: 0\nResult: Idle\n",
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

func TestPktgenCommands(t *testing.T) {
	l := testLoad(t, TrafficVIP4(), "imix")
	devices := []pktgenDevice{{thread: 0, link: "eth9"}, {thread: 1, link: "eth9", queue: 1, firstSource: 256}}
	folder := fakePktgen(t)
	g, err := newPktgen(folder, here, l, devices)
	if err != nil {
		t.Fatal(err)
	}
	sent, err := g.send(t.Context(), 1000, 100*time.Millisecond)
	if err != nil || sent.packets != 4000 {
		t.Errorf("sent are %+v, %v, want 4000 packets", sent, err)
	}
	if err := g.close(); err != nil {
		t.Error(err)
	}
	for file, want := range map[string]string{
		"pgctrl":     "start\nstop\n",
		"kpktgend_1": "rem_device_all\nadd_device eth9@1\nrem_device_all\n",
		"eth9@1": "clone_skb 0\ndst_mac 02:00:00:00:00:01\nudp_dst_min 53\nudp_dst_max 53\nudp_src_min 1024\nudp_src_max 1027\n" +
			"queue_map_min 1\nqueue_map_max 1\nflag UDPSRC_RND\nimix_weights 64,7 590,4 1514,1\n" +
			"dst_min 198.51.100.1\ndst_max 198.51.100.1\nsrc_min 10.0.1.0\nsrc_max 10.0.1.255\nflag IPSRC_RND\nratep 500\ncount 0\n",
	} {
		b, err := os.ReadFile(filepath.Join(folder, file))
		if err != nil {
			t.Fatal(err)
		}
		text := string(b)
		if _, own, found := strings.Cut(text, "Idle\n"); found {
			text = own
		}
		if diff := cmp.Diff(want, text); diff != "" {
			t.Errorf("%s (-want +got):\n%s", file, diff)
		}
	}
}

func TestPktgenCommandsIPv6(t *testing.T) {
	l := testLoad(t, TrafficVIP6(), "128")
	l.ports = 1
	got := strings.Join(l.pktgenCommands(pktgenDevice{}), "\n")
	want := "clone_skb 0\ndst_mac 02:00:00:00:00:01\nudp_dst_min 53\nudp_dst_max 53\nudp_src_min 1024\nudp_src_max 1024\n" +
		"queue_map_min 0\nqueue_map_max 0\npkt_size 128\ndst6 2001:db8:5::1\nsrc6 2001:db8:c::1\nflag UDPCSUM"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestPktgenRefused(t *testing.T) {
	l := testLoad(t, TrafficVIP4(), "64")
	if _, err := newPktgen(fakePktgen(t), here, l, []pktgenDevice{{thread: 7, link: "eth9"}}); err == nil || !strings.Contains(err.Error(), "set up pktgen: open pktgen") {
		t.Errorf("a thread that is not there gives %v", err)
	}
	for text, want := range map[string]string{
		"":                        "it has no pkts-sofar",
		"pkts-sofar: many errors": `pkts-sofar "many" is not a number`,
		"pkts-sofar: 5  errors: 0\nResult: No such parameter": `result "No such parameter"`,
	} {
		if _, err := parsePktgen(text); err == nil || err.Error() != want {
			t.Errorf("%q gives %v, want %q", text, err, want)
		}
	}
	if hasPktgen() {
		return
	}
	o := quickTraffic(t, Unit)
	o.Generator = GeneratorPktgen
	if _, err := Traffic(t.Context(), o); err == nil || !strings.Contains(err.Error(), "this kernel has no pktgen") {
		t.Errorf("it gives %v", err)
	}
}

// The constants of both languages agree.
func TestTrafficConstants(t *testing.T) {
	spec, err := loadSink()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]uint32{"flows": sinkFlows, "latencies": latencyBuckets, "tallies": tallyLen} {
		if got := spec.Maps[name].MaxEntries; got != want {
			t.Errorf("%s has %d entries, want %d", name, got, want)
		}
	}
	generator, err := loadGenerator()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := generator.Variables["frames"].Size(), uint32(patternLen*binary.Size(generatorFrame{})); got != want {
		t.Errorf("frames have %d bytes, want %d", got, want)
	}
	if want := len(generatorFrame{}.Words) * 8; want != headLen {
		t.Errorf("%d bytes are put back, want %d", want, headLen)
	}
}
