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

// Growth replaces the maps and the program, and nothing that they hold.
func TestGrowth(t *testing.T) {
	for _, tt := range []struct {
		name string
		grow func(d *Dataplane) error
	}{
		{"reserve reals", func(d *Dataplane) error { return d.Reserve(capacityOf(0, 0, 1000, 0)) }},
		{"reserve slots", func(d *Dataplane) error { return d.Reserve(capacityOf(0, 0, 0, 10*lb.DefaultRingSize)) }},
		{"reserve IPv4 VIPs", func(d *Dataplane) error { return d.Reserve(capacityOf(1000, 0, 0, 0)) }},
		{"reserve IPv6 VIPs", func(d *Dataplane) error { return d.Reserve(capacityOf(0, 1000, 0, 0)) }},
		{"a ring of its own", func(d *Dataplane) error {
			_, err := d.SetRing(90, make([]lb.Slot, 2*lb.DefaultRingSize))
			return err
		}},
		{"another generation of the same sizes", func(d *Dataplane) error { return d.replace(d.gen.sizes()) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := testOpen(t)
			fill(t, d, workedServices(lb.GUE)...)
			frame := tcpFrame(client, webTarget)
			wantReal(t, d.Program(), frame, webReal)
			send(t, d.Program(), tcpFrame(client, "203.0.113.10:444"))
			require.NoError(t, d.DeleteReals([]lb.RealID{3}))
			require.NoError(t, d.SetReals(workedServices(lb.GUE)[0].reals(t)))
			wantReal(t, d.Program(), frame, webReal)
			before, rings := contents(t, d)
			old, number := programID(d.gen.prog), d.gen.number

			require.NoError(t, tt.grow(d))
			if d.gen.number != number+1 || programID(d.Program()) == old {
				t.Errorf("generation %d after %d", d.gen.number, number)
			}
			after, ringsAfter := contents(t, d)
			wantEqual(t, "contents", after, before)
			if !slices.Equal(ringsAfter, rings) {
				t.Error("rings changed")
			}
			want := counts{
				Reasons: map[lb.Reason]uint64{lb.ReasonForwarded: 2, lb.ReasonNotVIP: 1},
				Reals:   map[lb.RealID]Counter{3: {1, 45}},
				Removed: Counter{1, 45},
			}
			wantCounts(t, d, want)
			wantReal(t, d.Program(), frame, webReal)
			want.Reasons[lb.ReasonForwarded], want.Reals[3] = 3, Counter{2, 90}
			wantCounts(t, d, want)
		})
	}
}

func TestReserveNeverShrinks(t *testing.T) {
	d := testOpen(t)
	require.NoError(t, d.Reserve(capacityOf(100, 100, 1000, 70000)))
	sizes, number := d.gen.sizes(), d.gen.number
	for _, c := range [][4]int{{}, {1, 1, 1, 1}, {100, 100, 1000, 70000}} {
		require.NoError(t, d.Reserve(capacityOf(c[0], c[1], c[2], c[3])))
	}
	if d.gen.sizes() != sizes || d.gen.number != number {
		t.Errorf("sizes %+v in generation %d, want %+v in %d", d.gen.sizes(), d.gen.number, sizes, number)
	}
}

func TestVerbsMakeRoom(t *testing.T) {
	d := testOpen(t)
	s := service{vip: "203.0.113.10:443/tcp", size: 7, firstID: 1, backends: []string{"10.0.0.1"}}
	var all []service
	for i := range 40 { // more VIPs, reals and slots than a new data plane has room for
		s.vip, s.ring, s.firstID = fmt.Sprintf("203.0.113.%d:443/tcp", i), lb.RingID(3*i), lb.RealID(1+5*i)
		s.backends = []string{fmt.Sprintf("10.0.0.%d", i)}
		if i%2 == 1 {
			s.vip = fmt.Sprintf("[2001:db8::%x]:443/tcp", i)
		}
		all = append(all, s)
		fill(t, d, all...)
	}
	for _, s := range all {
		vip, src := testVIP(t, s.vip), client
		if vip.Addr.Is6() {
			src = "[2001:db8:1::7]:50000"
		}
		wantReal(t, d.Program(), tcpFrame(src, netip.AddrPortFrom(vip.Addr, vip.Port).String()), s.backends[0])
	}
}

// A table that has too few buckets for what it must take over is doubled. Five VIPs cannot be in
// two buckets of two.
func TestGrowthDoublesTables(t *testing.T) {
	d := testOpen(t)
	require.NoError(t, d.SetReals([]lb.Real{testReal(t, 1, "203.0.113.10:443/tcp", lb.IPIP, "10.0.0.1")}))
	_, err := d.SetRing(0, []lb.Slot{1})
	require.NoError(t, err)
	var entries []lb.VIPEntry
	for i := range 5 {
		entries = append(entries, lb.VIPEntry{VIP: vipAt(addr6(0, i+1), 443, 0), Ring: lb.Ring{Size: 1}})
	}
	require.NoError(t, d.SetVIPs(entries))
	s := d.gen.sizes()
	s.bits6 = 1
	require.NoError(t, d.replace(s))
	if got := d.gen.sizes().bits6; got != 2 {
		t.Errorf("a table of %d bits, want 2", got)
	}
	for i := range 5 {
		wantVIP(t, d, addr6(0, i+1), true)
	}
	wantVIP(t, d, addr6(0, 6), false)
}
