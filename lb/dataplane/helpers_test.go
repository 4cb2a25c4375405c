// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/engine"
	"github.com/remora-lb/remora/lb/maglev"
	"github.com/remora-lb/remora/test/require"
)

func wantEqual[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	opts := cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty(), cmp.AllowUnexported(vipKey{}, span{}, remembered{})}
	if diff := cmp.Diff(want, got, opts); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// testFlows is as many flows as tests need at most; a larger table costs time at each start.
const testFlows = 4096

// testOpen opens a data plane that pins nothing.
func testOpen(t *testing.T) *Dataplane {
	t.Helper()
	require.Root(t)
	d, err := Open(Config{Flows: testFlows})
	require.NoError(t, err)
	t.Cleanup(func() { d.Close() })
	return d
}

// sources are those of all test tunnels.
func sources() lb.TunnelSources {
	s := lb.DefaultTunnelSources()
	s.GUE4, s.GUE6 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8:ffff::1")
	s.GUEPort, s.GUEChecksum = 9886, true
	return s
}

func testVIP(t *testing.T, s string) lb.VIP {
	t.Helper()
	v, err := lb.ParseVIP(s)
	require.NoError(t, err)
	return v
}

func testReal(t *testing.T, id lb.RealID, vip string, encap lb.Encap, backend string) lb.Real {
	t.Helper()
	addr := netip.MustParseAddr(backend)
	tunnel, err := sources().Tunnel(encap, addr)
	require.NoError(t, err)
	return lb.Real{
		ID:      id,
		VIP:     testVIP(t, vip),
		Backend: lb.Backend{Addr: addr, Weight: 1},
		Tunnel:  tunnel,
		NextHop: lb.NextHop{MAC: [6]byte{2, 0, 0, 0, 0, 0xfe}, MTU: 1500},
	}
}

// service is a VIP and its backends; their ids count from firstID.
type service struct {
	vip      string
	ring     lb.RingID
	size     uint32
	encap    lb.Encap
	firstID  lb.RealID
	backends []string
}

func (s service) reals(t *testing.T) []lb.Real {
	t.Helper()
	var reals []lb.Real
	for i, b := range s.backends {
		reals = append(reals, testReal(t, s.firstID+lb.RealID(i), s.vip, s.encap, b))
	}
	return reals
}

func (s service) slots(t *testing.T) []lb.Slot {
	t.Helper()
	var members []maglev.Member
	for _, r := range s.reals(t) {
		members = append(members, maglev.Member{ID: r.ID, Addr: r.Backend.Addr, Weight: r.Backend.Weight})
	}
	slots, err := maglev.Build(lb.Ring{Size: s.size}, members)
	require.NoError(t, err)
	return slots
}

func (s service) entry(t *testing.T) lb.VIPEntry {
	t.Helper()
	return lb.VIPEntry{VIP: testVIP(t, s.vip), Service: "service of " + s.vip, RingID: s.ring, Ring: lb.Ring{Size: s.size}}
}

// fill makes the data plane serve these services and no others, in the engine's order.
func fill(t *testing.T, d *Dataplane, services ...service) {
	t.Helper()
	var entries []lb.VIPEntry
	for _, s := range services {
		require.NoError(t, d.SetReals(s.reals(t)))
		_, err := d.SetRing(s.ring, s.slots(t))
		require.NoError(t, err)
		entries = append(entries, s.entry(t))
	}
	require.NoError(t, d.SetVIPs(entries))
}

// web is the service that most tests use.
func web() service {
	return service{vip: "203.0.113.10:443/tcp", size: lb.DefaultRingSize, firstID: 1, backends: []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"}}
}

// tcpFrame is a frame with a TCP segment of 5 bytes of payload: 45 bytes of IPv4, 65 of IPv6.
func tcpFrame(src, dst string) []byte {
	s, d := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	tcp := make([]byte, 0, 25)
	tcp = binary.BigEndian.AppendUint16(tcp, s.Port())
	tcp = binary.BigEndian.AppendUint16(tcp, d.Port())
	tcp = append(tcp, 1, 2, 3, 4, 10, 11, 12, 13, 0x50, 0x18, 2, 0, 0, 0, 0, 0)
	tcp = append(tcp, "hello"...)
	pseudo := append(append(s.Addr().AsSlice(), d.Addr().AsSlice()...), 0, 6, 0, byte(len(tcp)))
	binary.BigEndian.PutUint16(tcp[16:], ^sumBytes(append(pseudo, tcp...)))
	link := []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9}
	if s.Addr().Is6() {
		ip := append(append(unhex("6b954321 0019 06 3d"), s.Addr().AsSlice()...), d.Addr().AsSlice()...)
		return append(append(append(link, 0x86, 0xdd), ip...), tcp...)
	}
	ip := append(append(unhex("45b9002d 12344000 3d06 0000"), s.Addr().AsSlice()...), d.Addr().AsSlice()...)
	binary.BigEndian.PutUint16(ip[10:], ^sumBytes(ip))
	return append(append(append(link, 8, 0), ip...), tcp...)
}

// sumBytes is the one's-complement sum of big-endian words, RFC 1071.
func sumBytes(b []byte) uint16 {
	var sum uint32
	for i, c := range b {
		sum += uint32(c) << (8 * (1 - i%2))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err) // a constant of a test
	}
	return b
}

// send runs the program once on a frame.
func send(t *testing.T, prog *ebpf.Program, frame []byte) (lb.Verdict, []byte) {
	t.Helper()
	verdict, out, err := prog.Test(frame)
	require.NoError(t, err)
	return lb.Verdict(verdict), out
}

// outerDestination is where an encapsulated frame goes; the zero address if it is no IP packet.
func outerDestination(frame []byte) netip.Addr {
	var a netip.Addr
	switch {
	case len(frame) > 34 && frame[12] == 8:
		a, _ = netip.AddrFromSlice(frame[30:34])
	case len(frame) > 54 && frame[12] == 0x86:
		a, _ = netip.AddrFromSlice(frame[38:54])
	}
	return a
}

// wantReal fails unless the program sends the frame to the real.
func wantReal(t *testing.T, prog *ebpf.Program, frame []byte, real string) {
	t.Helper()
	verdict, out := send(t, prog, frame)
	if got := outerDestination(out); verdict != lb.TX || got != netip.MustParseAddr(real) {
		t.Errorf("verdict %v, sent to %v; want tx to %s", verdict, got, real)
	}
}

// counts are all counters that are not zero.
type counts struct {
	Reasons map[lb.Reason]uint64
	Reals   map[lb.RealID]Counter
	Removed Counter
}

func countsOf(s *Snapshot) counts {
	c := counts{Reasons: map[lb.Reason]uint64{}, Reals: map[lb.RealID]Counter{}, Removed: s.Removed}
	for r, n := range s.Reasons {
		if n != 0 {
			c.Reasons[lb.Reason(r)] = n
		}
	}
	for _, r := range s.Reals {
		if r.Counter != (Counter{}) {
			c.Reals[r.ID] = r.Counter
		}
	}
	return c
}

// wantCounts compares all counters, so that an unexpected one fails.
func wantCounts(t *testing.T, d *Dataplane, want counts) {
	t.Helper()
	s, err := d.Snapshot()
	require.NoError(t, err)
	wantEqual(t, "counters", countsOf(s), want)
}

func slotOf(src netip.AddrPort, port uint16, size uint32) uint32 {
	return maglev.SlotIndex(maglev.FlowHash(src.Addr(), src.Port(), port), size)
}

func capacityOf(vips4, vips6, reals, slots int) engine.Capacity {
	return engine.Capacity{VIPs4: vips4, VIPs6: vips6, Reals: reals, RingSlots: slots}
}

func wantIs(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}
