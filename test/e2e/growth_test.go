// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/dataplane"
	"github.com/remora-lb/remora/test/rig"
)

// growthStep is a size of the configuration: services beside those that the traffic goes to.
type growthStep struct {
	services int
	// large adds a service whose VIPs have rings of the default size.
	large bool
	// grows tells that what is configured does not fit the maps of the step before.
	grows bool
}

// vips are the VIPs of the i-th service beside.
func (growthStep) vips(i int) []string {
	var vips []string
	for k := range 5 {
		protocol := []string{"tcp", "udp"}[k%2]
		vips = append(vips, fmt.Sprintf("198.18.%d.%d:443/%s", i+1, k+1, protocol),
			fmt.Sprintf("[2001:db8:f0:%x::%x]:443/%s", i+1, k+1, protocol))
	}
	return vips
}

// config is the configuration's text, and the size of the ring of each of its VIPs.
func (s growthStep) config(servers []*rig.Node) (text string, rings map[string]uint32) {
	var b strings.Builder
	rings = make(map[string]uint32)
	service := func(name string, size uint32, vips, backends []string) {
		fmt.Fprintf(&b, "  - name: %s\n    ring: {size: %d}\n    vips: [\"%s\"]\n    backends: [\"%s\"]\n",
			name, size, strings.Join(vips, `", "`), strings.Join(backends, `", "`))
		for _, v := range vips {
			rings[v] = size
		}
	}
	fmt.Fprintf(&b, "interface: %s\nservices:\n", rig.BalancerInterface)
	// Services before and after the anchor, so that not only the end of the file changes.
	for i := range s.services {
		if i == s.services/2 {
			s.anchor(service, servers)
		}
		service(fmt.Sprintf("beside-%d", i), 4093, s.vips(i), []string{
			fmt.Sprintf("10.20.7.%d", i+1), fmt.Sprintf("10.20.8.%d", i+1), fmt.Sprintf("2001:db8:20::7:%x", i+1),
		})
	}
	if s.services == 0 {
		s.anchor(service, servers)
	}
	if s.large {
		service("large", lb.DefaultRingSize, []string{"198.19.0.1:80/tcp", "198.19.0.2:80/tcp", "[2001:db8:f1::1]:80/tcp"},
			[]string{"10.20.9.1", "10.20.9.2"})
	}
	return b.String(), rings
}

// anchor is the service that the traffic goes to; it is the same in all steps.
func (growthStep) anchor(service func(string, uint32, []string, []string), servers []*rig.Node) {
	var vips, backends []string
	for _, vip := range []netip.Addr{vip4(), vip6()} {
		vips = append(vips, netip.AddrPortFrom(vip, 80).String()+"/tcp")
	}
	for _, s := range servers {
		backends = append(backends, s.IPv4.String())
	}
	service("anchor", 4093, vips, backends)
}

// TestGrowthUnderTraffic changes the size of the configuration, and restarts the daemon at each,
// while files go both ways through VIPs that stay.
func TestGrowthUnderTraffic(t *testing.T) {
	b := newBed(t, rig.Config{})
	b.keepNeighbours(t)
	b.startServers(t, ipv4)
	g := &growth{bed: b}
	g.first(t, growthStep{})
	traffic := b.startTraffic(t)
	watch := b.watchCounters(t)
	before := g.attachment(t)
	for _, step := range []growthStep{
		{},
		{services: 10, grows: true},
		{services: 60, grows: true},
		{services: 60, large: true},
		{services: 20},
		{},
	} {
		g.step(t, step)
		g.restart(t, "SIGTERM", func() error { return b.daemon.Stop(waitTimeout) })
		g.restart(t, "SIGKILL", b.daemon.Kill)
		if now := g.attachment(t); now.link != before.link || now.carrier != before.carrier {
			t.Errorf("link %d with %d changes of the carrier, was link %d with %d", now.link, now.carrier, before.link, before.carrier)
		}
		if err := context.Cause(traffic.failed); err != nil {
			break // finish says what
		}
	}
	watch.finish(t)
	traffic.finish(t)
}

// keepNeighbours has the balancer's kernel trust the link addresses that it learns for longer than
// the test, since a next hop that becomes stale is a change of the maps too.
func (b *bed) keepNeighbours(t *testing.T) {
	t.Helper()
	for _, family := range []string{"ipv4", "ipv6"} {
		key := "net." + family + ".neigh." + rig.BalancerInterface + ".base_reachable_time_ms"
		if err := b.balancer.SetSysctl(key, "3600000"); err != nil {
			t.Fatal(err)
		}
	}
}

// growth goes through steps.
type growth struct {
	*bed
	rings     map[string]uint32 // of the VIPs of the present step
	forwarded uint64            // packets, as told last
}

// first starts the daemon with a step.
func (g *growth) first(t *testing.T, s growthStep) {
	t.Helper()
	text, rings := s.config(g.Servers)
	g.writeText(t, text)
	g.rings = rings
	g.startDaemon(t)
	g.await(t, "the first step")
}

// step reloads, looks at what became of it, and reloads the same once more.
func (g *growth) step(t *testing.T, s growthStep) {
	t.Helper()
	before := g.attachment(t)
	text, rings := s.config(g.Servers)
	g.writeText(t, text)
	same, skip := maps.Equal(rings, g.rings), len(g.daemon.Output())
	g.rings = rings
	began := time.Now()
	if err := g.daemon.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	g.await(t, "reload")
	t.Logf("%d VIPs: %v from the signal until the status shows them", len(rings), time.Since(began).Round(time.Millisecond))
	if !same {
		g.logged(t, skip, "data plane changed") // the end of it, which the status does not show
	}
	now := g.attachment(t)
	if grew := now.program != before.program; grew != s.grows || grew != (now.generation != before.generation) {
		t.Errorf("%d VIPs: program %d of generation %s, was %d of %s, growth %v", len(rings),
			now.program, now.generation, before.program, before.generation, s.grows)
	}
	g.reloadSame(t)
}

// observation is how long nothing may change after a reload of an unchanged file.
const observation = 200 * time.Millisecond

// reloadSame reloads an unchanged file, which writes nothing.
func (g *growth) reloadSame(t *testing.T) {
	t.Helper()
	skip := len(g.daemon.Output())
	before, dump := g.attachment(t), g.dump(t)
	if err := g.daemon.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	g.logged(t, skip, "configuration is reloaded")
	for end := time.Now().Add(observation); ; {
		if now := g.attachment(t); now != before {
			t.Fatalf("a reload of the same file: %+v, was %+v", now, before)
		}
		after := g.dump(t)
		for name, sum := range dump {
			if after[name] != sum {
				t.Errorf("a reload of the same file changed the map %s", name)
			}
		}
		if time.Now().After(end) {
			break
		}
	}
	if text := g.daemon.Output()[skip:]; strings.Contains(text, "data plane changed") {
		t.Errorf("a reload of the same file:\n%s", text)
	}
}

// restart ends the daemon and starts it again.
func (g *growth) restart(t *testing.T, how string, end func() error) {
	t.Helper()
	if err := end(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	g.startDaemon(t)
	g.logged(t, 0, "msg=running")
	g.await(t, "restart after "+how)
	t.Logf("%d VIPs: %v for a start after %s", len(g.rings), time.Since(began).Round(time.Millisecond), how)
}

// await waits until the status has all VIPs and no others, with rings of their sizes, and a
// resolved next hop for every real.
func (g *growth) await(t *testing.T, what string) {
	t.Helper()
	waitFor(t, what, func() error {
		s, err := dataplane.ReadSnapshot(dataplane.DefaultBPFFS, g.remora.Instance)
		if err != nil {
			return err
		}
		have := make(map[string]uint32)
		for _, v := range s.VIPs {
			have[v.VIP.String()] = v.Ring.Size
		}
		if !maps.Equal(have, g.rings) {
			return fmt.Errorf("%d VIPs are there that are not the %d of the file", len(have), len(g.rings))
		}
		return g.daemon.Running()
	})
	g.awaitReals(t, what, func(realUses) bool { return true })
	s, err := g.status(within(t))
	if err != nil {
		t.Fatal(err)
	}
	var shown []string
	for _, v := range s.VIPs {
		shown = append(shown, v.VIP)
	}
	slices.Sort(shown)
	if want := slices.Sorted(maps.Keys(g.rings)); !slices.Equal(shown, want) {
		t.Errorf("%s: the status has the %d VIPs %v, want the %d %v", what, len(shown), shown, len(want), want)
	}
	if s.Reasons["forwarded"] < g.forwarded {
		t.Errorf("%s: %d packets forwarded, were %d already", what, s.Reasons["forwarded"], g.forwarded)
	}
	g.forwarded = s.Reasons["forwarded"]
	for reason, n := range s.Reasons {
		if n != 0 && slices.Contains([]string{"ring_empty", "real_unknown", "nexthop_unknown", "malformed"}, reason) {
			t.Errorf("%s: %d packets dropped as %s", what, n, reason)
		}
	}
}

// attachment is what the balancer's interface runs.
type attachment struct {
	link       link.ID
	program    ebpf.ProgramID
	generation string
	carrier    uint32 // how often the carrier came or went
}

func (b *bed) attachment(t *testing.T) attachment {
	t.Helper()
	l, err := link.LoadPinnedLink(filepath.Join(b.remora.PinDir(), "links", rig.BalancerInterface), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := filepath.EvalSymlinks(filepath.Join(b.remora.PinDir(), "maps"))
	if err != nil {
		t.Fatal(err)
	}
	return attachment{info.ID, info.Program, filepath.Base(filepath.Dir(dir)), b.carrierChanges(t)}
}

func (b *bed) carrierChanges(t *testing.T) uint32 {
	t.Helper()
	var n uint32
	err := b.balancer.Do(func() error {
		req := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
		req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
		req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(rig.BalancerInterface)))
		answers, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
		if err != nil {
			return err
		}
		attrs, err := nl.ParseRouteAttr(answers[0][unix.SizeofIfInfomsg:])
		if err != nil {
			return err
		}
		for _, a := range attrs {
			if a.Attr.Type == unix.IFLA_CARRIER_CHANGES {
				n = binary.NativeEndian.Uint32(a.Value)
				return nil
			}
		}
		return errors.New("the kernel does not tell")
	})
	if err != nil {
		t.Fatalf("read changes of the carrier: %v", err)
	}
	return n
}

// dump is a checksum of each pinned map's content, but those that packets write.
func (g *growth) dump(t *testing.T) map[string][sha256.Size]byte {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(g.remora.PinDir(), "maps") + "/")
	if err != nil {
		t.Fatal(err)
	}
	sums := make(map[string][sha256.Size]byte)
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), "_counters") || strings.HasSuffix(e.Name(), "_guards") || e.Name() == "flows" {
			continue // what packets write
		}
		if sums[e.Name()], err = sumMap(filepath.Join(g.remora.PinDir(), "maps", e.Name())); err != nil {
			t.Fatalf("dump map %s: %v", e.Name(), err)
		}
	}
	for _, name := range []string{"vips4", "vips6", "rings", "reals"} {
		if _, ok := sums[name]; !ok {
			t.Fatalf("no pinned map is called %s", name)
		}
	}
	return sums
}

func sumMap(path string) (sum [sha256.Size]byte, err error) {
	m, err := ebpf.LoadPinnedMap(path, nil)
	if err != nil {
		return sum, err
	}
	defer m.Close()
	h := sha256.New()
	if m.Flags()&unix.BPF_F_MMAPABLE != 0 {
		memory, err := m.Memory()
		if err != nil {
			return sum, err
		}
		_, err = io.Copy(h, io.NewSectionReader(memory, 0, int64(memory.Size())))
		return [sha256.Size]byte(h.Sum(nil)), err
	}
	var key, value []byte
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		h.Write(key)
		h.Write(value)
	}
	return [sha256.Size]byte(h.Sum(nil)), entries.Err()
}

// lostLimit is how many packets may go uncounted when a program takes the place of another: those
// between the copy of its counters and the change. It is a small part of those of one transfer.
const lostLimit = 500

// counterWatch reads the balancer's counters all the time.
type counterWatch struct {
	cancel context.CancelFunc
	result chan error
	reads  int
	lost   int64 // packets, by which the sum was less than the time before, at most
}

func (b *bed) watchCounters(t *testing.T) *counterWatch {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &counterWatch{cancel: cancel, result: make(chan error, 1)}
	t.Cleanup(cancel)
	go func() { w.result <- w.run(ctx, b.remora.Instance) }()
	return w
}

func (w *counterWatch) run(ctx context.Context, instance string) error {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	var last uint64
	var errs []error
	for {
		select {
		case <-ctx.Done():
			return errors.Join(errs...)
		case <-ticker.C:
		}
		s, err := dataplane.ReadSnapshot(dataplane.DefaultBPFFS, instance)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		w.reads++
		now := s.Reasons[lb.ReasonForwarded]
		w.lost = max(w.lost, int64(last)-int64(now))
		last = now
	}
}

func (w *counterWatch) finish(t *testing.T) {
	t.Helper()
	w.cancel()
	if err := <-w.result; err != nil {
		t.Errorf("read counters while they move: %v", err)
	}
	if w.lost > lostLimit {
		t.Errorf("the packets forwarded became fewer by %d", w.lost)
	}
	t.Logf("counters were read %d times; the packets forwarded became fewer by %d at most", w.reads, w.lost)
}
