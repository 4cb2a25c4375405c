// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/require"
)

const (
	client    = "198.51.100.7:50000"
	webReal   = "10.0.0.3" // of the client's flow to web
	webTarget = "203.0.113.10:443"
)

// contents is everything that the maps hold but counters, for comparison.
func contents(t *testing.T, d *Dataplane) (s *Snapshot, rings []uint64) {
	t.Helper()
	s, err := d.Snapshot()
	require.NoError(t, err)
	s.Reasons, s.Removed, s.Maps = [lb.ReasonLen]uint64{}, Counter{}, nil
	for i := range s.Reals {
		s.Reals[i].Counter = Counter{}
	}
	for _, v := range s.VIPs {
		at := d.space.spans[v.RingID]
		rings = append(rings, d.gen.rings.elems[at.first:at.end()]...)
	}
	return s, rings
}

func TestSettingTwiceIsSettingOnce(t *testing.T) {
	d := testOpen(t)
	services := workedServices(lb.GUE)
	fill(t, d, services...)
	before, rings := contents(t, d)
	seeds, number := d.gen.seeds.elems[0], d.gen.number
	for _, s := range services {
		require.NoError(t, d.SetReals(s.reals(t)))
		written, err := d.SetRing(s.ring, s.slots(t))
		require.NoError(t, err)
		if written != 0 {
			t.Errorf("ring %d: %d slots written, want none", s.ring, written)
		}
	}
	slices.Reverse(services)
	fill(t, d, services...)
	after, ringsAfter := contents(t, d)
	wantEqual(t, "contents", after, before)
	if !slices.Equal(ringsAfter, rings) || d.gen.seeds.elems[0] != seeds || d.gen.number != number {
		t.Error("rings, the tables' halves or the generation changed")
	}
}

func TestSetRingWritesWhatDiffers(t *testing.T) {
	d := testOpen(t)
	slots := make([]lb.Slot, 101)
	for i := range slots {
		slots[i] = lb.StableSlot(1)
	}
	for _, tt := range []struct {
		name   string
		change func()
		want   int
	}{
		{"all at first", func() {}, 101},
		{"one", func() { slots[7] = 2 }, 1},
		{"the ends", func() { slots[0], slots[100] = 3, 3 }, 2},
		{"none", func() {}, 0},
		{"emptied", func() { clear(slots) }, 101},
	} {
		tt.change()
		written, err := d.SetRing(0, slots)
		require.NoError(t, err)
		if written != tt.want {
			t.Errorf("%s: %d written, want %d", tt.name, written, tt.want)
		}
	}
}

func TestSetRefuses(t *testing.T) {
	d := testOpen(t)
	r := testReal(t, 1, "203.0.113.10:443/tcp", lb.IPIP, "10.0.0.3")
	for name, set := range map[string]func() error{
		"real 0":                  func() error { r.ID = 0; return d.SetReals([]lb.Real{r}) },
		"real 16777216":           func() error { r.ID = lb.MaxRealID + 1; return d.SetReals([]lb.Real{r}) },
		"ring 5 is not there":     func() error { return d.SetVIPs([]lb.VIPEntry{{VIP: r.VIP, RingID: 5}}) },
		"set ring 6: 0 slots":     func() error { _, err := d.SetRing(6, nil); return err },
		"set ring 7: 1048574 slo": func() error { _, err := d.SetRing(7, make([]lb.Slot, lb.MaxRingSize+1)); return err },
	} {
		require.ErrorSays(t, set(), name)
	}
	s, err := d.Snapshot()
	require.NoError(t, err)
	if len(s.Reals)+len(s.VIPs)+d.space.words() != 0 {
		t.Errorf("something was set all the same: %+v, %d slots", s, d.space.words())
	}
}

func TestDeleteReals(t *testing.T) {
	d := testOpen(t)
	fill(t, d, web())
	frame := tcpFrame(client, webTarget)
	for range 3 {
		wantReal(t, d.Program(), frame, webReal)
	}
	// The ring no longer names the real, then it goes.
	rest := web()
	rest.backends = rest.backends[:2]
	fill(t, d, rest)
	for range 2 { // deleting what is absent succeeds and changes nothing
		require.NoError(t, d.DeleteReals([]lb.RealID{3, 0, 60, 1 << 29}))
		wantCounts(t, d, counts{Reasons: map[lb.Reason]uint64{lb.ReasonForwarded: 3}, Removed: Counter{3, 135}})
	}
	if d.gen.reals.elems[3] != (nativeReal{}) {
		t.Errorf("record of the real is still there: %+v", d.gen.reals.elems[3])
	}
	reals, _ := d.Adopted()
	s, err := d.Snapshot()
	require.NoError(t, err)
	if len(reals) != 2 || len(s.Reals) != 2 {
		t.Errorf("%d reals known and %d described, want 2", len(reals), len(s.Reals))
	}
	send(t, d.Program(), frame)
	require.NoError(t, d.DeleteReals([]lb.RealID{1, 2}))
	wantCounts(t, d, counts{Reasons: map[lb.Reason]uint64{lb.ReasonForwarded: 4}, Removed: Counter{4, 180}})
	require.NoError(t, d.DeleteReals(nil))
}

func TestNextHopChanges(t *testing.T) {
	d := testOpen(t)
	fill(t, d, web())
	frame := tcpFrame(client, webTarget)
	r := web().reals(t)[2]
	for _, tt := range []struct {
		name string
		hop  lb.NextHop
		want lb.Verdict
	}{
		{"another MAC", lb.NextHop{MAC: [6]byte{2, 0, 0, 0, 0, 0xaa}, MTU: 1500}, lb.TX},
		{"gone", lb.NextHop{Problem: "no answer"}, lb.Drop},
		{"back", lb.NextHop{MAC: [6]byte{2, 0, 0, 0, 0, 0xbb}, MTU: 9000}, lb.TX},
		{"too narrow", lb.NextHop{MAC: [6]byte{2, 0, 0, 0, 0, 0xbb}, MTU: 64}, lb.Drop},
	} {
		r.NextHop = tt.hop
		require.NoError(t, d.SetReals([]lb.Real{r}))
		verdict, out := send(t, d.Program(), frame)
		if verdict != tt.want || tt.want == lb.TX && [6]byte(out[:6]) != tt.hop.MAC {
			t.Errorf("%s: verdict %v, frame %x", tt.name, verdict, out)
		}
	}
}

func TestRingOfAnotherLength(t *testing.T) {
	d := testOpen(t)
	require.NoError(t, d.Reserve(capacityOf(1, 0, 10, 40))) // room for old and new
	s := web()
	for _, size := range []uint32{7, 11, 13, 5, 7} {
		s.size = size
		old := d.space.spans[0]
		_, err := d.SetRing(0, s.slots(t))
		require.NoError(t, err)
		if at := d.space.spans[0]; old.size != 0 && at.first < old.end() && old.first < at.end() {
			t.Fatalf("ring of %d at %v is written over the one in use, %v", size, at, old)
		}
		fill(t, d, s)
		if _, entries := d.Adopted(); len(d.retired) != 0 || entries[0].Ring.Size != size {
			t.Errorf("retired %v, entry %+v", d.retired, entries)
		}
		wantChoice(t, d, s)
	}
	if d.gen.number != 2 {
		t.Errorf("generation %d, want 2: the room that was reserved sufficed", d.gen.number)
	}
}

// wantChoice compares the program's choice with the ring's for some flows to the service.
func wantChoice(t *testing.T, d *Dataplane, s service) {
	t.Helper()
	vip := testVIP(t, s.vip)
	slots := s.slots(t)
	for port := range uint16(20) {
		src := netip.AddrPortFrom(netip.MustParseAddr("198.51.100.7"), 40000+port)
		cur := slots[slotOf(src, vip.Port, s.size)].Cur()
		want := s.backends[cur-s.firstID]
		wantReal(t, d.Program(), tcpFrame(src.String(), netip.AddrPortFrom(vip.Addr, vip.Port).String()), want)
	}
}

func TestDeletedRingMakesRoom(t *testing.T) {
	d := testOpen(t)
	require.NoError(t, d.Reserve(capacityOf(2, 0, 10, 14)))
	number, room := d.gen.number, d.gen.sizes().words
	for i := range 20 {
		s := web()
		s.size, s.ring = 7, lb.RingID(i%3)
		fill(t, d, s)
		require.NoError(t, d.DeleteRing(lb.RingID((i+1)%3)))
		require.NoError(t, d.DeleteRing(lb.RingID((i+2)%3)))
		wantChoice(t, d, s)
	}
	if d.gen.number != number {
		t.Errorf("generation %d of %d words, want %d of %d: the maps grew", d.gen.number, d.gen.sizes().words, number, room)
	}
}

func TestSetVIPsReplacesTheWholeSet(t *testing.T) {
	d := testOpen(t)
	s := web()
	s.size = 7
	at := func(from, n int) (entries []lb.VIPEntry) {
		for i := range n {
			v := vipAt(addr4(from+i), 443, 0)
			if i%2 == 1 {
				v.Addr = addr6(0, from+i)
			}
			entries = append(entries, lb.VIPEntry{VIP: v, Service: "web", Ring: lb.Ring{Size: 7}})
		}
		return entries
	}
	fill(t, d, s)
	for _, from := range []int{1, 100, 200, 205} { // the last two overlap
		entries := at(from, 16)
		require.NoError(t, d.SetVIPs(entries))
		for i := range 400 {
			for _, a := range []netip.Addr{addr4(i), addr6(0, i)} {
				want := slices.ContainsFunc(entries, func(e lb.VIPEntry) bool { return e.VIP.Addr == a })
				wantVIP(t, d, a, want)
			}
		}
	}
	require.NoError(t, d.SetVIPs(nil))
	wantVIP(t, d, addr4(205), false)
	shot, err := d.Snapshot()
	require.NoError(t, err)
	if len(shot.VIPs) != 0 {
		t.Errorf("VIPs %v, want none", shot.VIPs)
	}
}

// wantVIP fails unless the program has, or has not, a VIP at the address; fragments tell whether it
// knows the address itself.
func wantVIP(t *testing.T, d *Dataplane, a netip.Addr, want bool) {
	t.Helper()
	src := netip.MustParseAddr("198.51.100.7")
	if a.Is6() {
		src = netip.MustParseAddr("2001:db8:1::7")
	}
	frame := tcpFrame(netip.AddrPortFrom(src, 50000).String(), netip.AddrPortFrom(a, 443).String())
	if verdict, _ := send(t, d.Program(), frame); (verdict == lb.TX) != want {
		t.Fatalf("%v to %v, want it to be a VIP: %v", verdict, a, want)
	}
	fragment := frame
	if a.Is4() {
		fragment[14+6] = 0x20
	} else {
		fragment[14+6] = 44
		copy(fragment[54:], []byte{6, 0, 0, 1})
	}
	if verdict, _ := send(t, d.Program(), fragment); (verdict == lb.Drop) != want {
		t.Fatalf("%v for a fragment to %v, want its address to be that of a VIP: %v", verdict, a, want)
	}
}

// A set that cannot be written, here because one VIP is in it too often for any bucket, leaves no
// trace once another one is set.
func TestSetVIPsThatFails(t *testing.T) {
	d := testOpen(t)
	s := web()
	s.size = 7
	fill(t, d, s)
	v6 := lb.VIPEntry{VIP: vipAt(addr6(0, 1), 443, 0), Ring: lb.Ring{Size: 7}}
	v4 := lb.VIPEntry{VIP: vipAt(addr4(1), 443, 0), Ring: lb.Ring{Size: 7}}
	require.ErrorSays(t, d.SetVIPs([]lb.VIPEntry{v4, v6, v6, v6}), "set 3 IPv6 VIPs: VIP table is too small")
	if !d.settler.needed {
		t.Error("packets may still read the half that was in use, but nobody would wait for them")
	}
	fill(t, d, s)
	wantVIP(t, d, v4.VIP.Addr, false)
	wantVIP(t, d, v6.VIP.Addr, false)
	wantReal(t, d.Program(), tcpFrame(client, webTarget), s.backends[s.slots(t)[slotOf(netip.MustParseAddrPort(client), 443, 7)].Cur()-1])
}

func TestManyVIPs(t *testing.T) {
	d := testOpen(t)
	const n = 10000
	require.NoError(t, d.Reserve(capacityOf(n/2, n/2, n, 7*n)))
	number := d.gen.number
	entries, reals := make([]lb.VIPEntry, n), make([]lb.Real, n)
	slots := make([]lb.Slot, 7)
	for i := range n {
		v := vipAt(addr4(i), 443, 0)
		if i%2 == 1 {
			v.Addr = addr6(0, i)
		}
		id := lb.RealID(i + 1)
		reals[i] = testReal(t, id, "203.0.113.10:443/tcp", lb.IPIP, fmt.Sprintf("10.%d.%d.1", 1+i>>8, i&255))
		reals[i].VIP = v
		entries[i] = lb.VIPEntry{VIP: v, Service: "web", RingID: lb.RingID(i), Ring: lb.Ring{Size: 7}}
		for j := range slots {
			slots[j] = lb.StableSlot(id)
		}
		_, err := d.SetRing(lb.RingID(i), slots)
		require.NoError(t, err)
	}
	require.NoError(t, d.SetReals(reals))
	require.NoError(t, d.SetVIPs(entries))
	for i, e := range entries {
		src := client
		if e.VIP.Addr.Is6() {
			src = "[2001:db8:1::7]:50000"
		}
		wantReal(t, d.Program(), tcpFrame(src, netip.AddrPortFrom(e.VIP.Addr, 443).String()), reals[i].Backend.Addr.String())
	}
	wantVIP(t, d, addr4(1), false)
	wantVIP(t, d, addr6(0, 2), false)
	if d.gen.number > number+1 { // one more if a table's estimate was unlucky
		t.Errorf("generation %d, want %d: what was reserved did not suffice", d.gen.number, number)
	}
	s, err := d.Snapshot()
	require.NoError(t, err)
	if len(s.VIPs) != n || len(s.Reals) != n || s.Reasons[lb.ReasonForwarded] != n {
		t.Errorf("%d VIPs, %d reals, %d packets; want %d each", len(s.VIPs), len(s.Reals), s.Reasons[lb.ReasonForwarded], n)
	}
}
