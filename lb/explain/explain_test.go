// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/model"
	"github.com/remora-lb/remora/test/require"
)

// fakeTables have one ring and at most one flow.
type fakeTables struct {
	slots []lb.Slot
	flow  *lb.Flow
	full  bool
}

func (f fakeTables) Slots(lb.RingID) []lb.Slot { return f.slots }
func (f fakeTables) Targets(lb.RingID) (map[uint32]lb.RealID, map[netip.Addr]lb.RealID, error) {
	return nil, nil, nil
}
func (f fakeTables) SourceRoute(netip.Addr) (lb.SourceRoute, bool, error) {
	return lb.SourceRoute{}, false, nil
}
func (f fakeTables) Flow(model.Flow) (lb.Flow, bool) {
	if f.flow == nil {
		return lb.Flow{}, false
	}
	return *f.flow, true
}
func (f fakeTables) FlowRoom(model.Flow) bool { return !f.full }
func (f fakeTables) Flows(visit func(lb.Flow)) {
	if f.flow != nil {
		visit(*f.flow)
	}
}

// smallWorld has a VIP with two reals, whose ring has one kind of slots.
func smallWorld(t *testing.T, slot lb.Slot, hop lb.NextHop) (*World, *fakeTables) {
	t.Helper()
	vip, err := lb.ParseVIP("192.0.2.10:80/tcp")
	require.NoError(t, err)
	f := &fakeTables{}
	for range 7 {
		f.slots = append(f.slots, slot)
	}
	w := &World{VIPs: []lb.VIPEntry{{VIP: vip, Service: "web", Ring: lb.Ring{Size: 7}}}, Tables: f}
	for id := lb.RealID(1); id <= 2; id++ {
		addr := netip.AddrFrom4([4]byte{10, 20, 0, byte(id)})
		tunnel, err := lb.DefaultTunnelSources().Tunnel(lb.IPIP, addr)
		require.NoError(t, err)
		w.Reals = append(w.Reals, lb.Real{ID: id, VIP: vip, Backend: lb.Backend{Addr: addr, Weight: 1}, Tunnel: tunnel, NextHop: hop})
	}
	return w, f
}

func goodHop() lb.NextHop { return lb.NextHop{MAC: [6]byte{2, 0, 0, 0, 0, 9}, MTU: 1500} }

func TestWhy(t *testing.T) {
	for _, c := range []struct {
		name, packet string
		slot         lb.Slot
		hop          lb.NextHop
		flow         *lb.Flow
		full         bool
		reason       lb.Reason
		says         string
	}{
		{"stable", "syn", lb.StableSlot(1), goodHop(), nil, false, lb.ReasonForwarded, "is stable at 10.20.0.1"},
		{"empty", "syn", lb.StableSlot(0), goodHop(), nil, false, lb.ReasonRingEmpty, "has no backend that gets new connections"},
		{"no record", "syn", lb.StableSlot(9), goodHop(), nil, false, lb.ReasonRealUnknown, "real 9, which has no record"},
		{"no next hop", "syn", lb.StableSlot(1), lb.NextHop{MTU: 1500, Problem: "10.1.1.1 does not answer"}, nil, false,
			lb.ReasonNextHopUnknown, "10.20.0.1: 10.1.1.1 does not answer"},
		{"too big", "bytes=1481", lb.StableSlot(1), goodHop(), nil, false, lb.ReasonTooBigTold, "has 1481 bytes, and 1480 fit"},
		{"new on moving", "syn", lb.MovingSlot(2, 1), goodHop(), nil, false, lb.ReasonForwarded, "new connections go to 10.20.0.2"},
		{"old on moving", "ack", lb.MovingSlot(2, 1), goodHop(), nil, false, lb.ReasonForwarded, "it stays at 10.20.0.1"},
		{"known", "ack", lb.SettlingSlot(2), goodHop(), &lb.Flow{Real: 1, Idle: 5 * time.Second}, false, lb.ReasonForwarded, "is remembered at 10.20.0.1"},
		{"forgotten", "ack", lb.SettlingSlot(2), goodHop(), &lb.Flow{Real: 1, Generation: 9}, false, lb.ReasonForwarded, "is settling, and gives this packet to 10.20.0.2"},
		{"no place", "syn", lb.MovingSlot(2, 1), goodHop(), nil, true, lb.ReasonForwarded, "it stays at 10.20.0.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, f := smallWorld(t, c.slot, c.hop)
			f.flow, f.full = c.flow, c.full
			frame, err := ParsePacket("tcp 198.51.100.7:50000 -> 192.0.2.10:80 " + c.packet)
			require.NoError(t, err)
			r, err := w.Packet(frame)
			require.NoError(t, err)
			var text bytes.Buffer
			require.NoError(t, r.Print(&text))
			if r.Reason != c.reason.String() || !strings.Contains(r.Why, c.says) {
				t.Errorf("want %s, and %q:\n%s", c.reason, c.says, text.String())
			}
		})
	}
}

func TestNearest(t *testing.T) {
	w := &World{}
	for _, text := range []string{"192.0.2.10:80/tcp", "192.0.2.10:443/udp", "192.0.2.20:0/udp", "198.51.0.0/16:80/tcp", "[2001:db8::1]:80/tcp"} {
		vip, err := lb.ParseVIP(text)
		require.NoError(t, err)
		w.VIPs = append(w.VIPs, lb.VIPEntry{VIP: vip})
	}
	for packet, want := range map[string]string{
		"tcp 203.0.113.1:5 -> 192.0.2.10:81":      "192.0.2.10:80/tcp: its port is 80, not 81",
		"udp 203.0.113.1:5 -> 192.0.2.10:80":      "192.0.2.10:80/tcp: its protocol is tcp, not udp",
		"tcp 203.0.113.1:5 -> 192.0.2.20:80":      "192.0.2.20:0/udp: its protocol is udp, not tcp",
		"tcp 203.0.113.1:5 -> 198.51.7.7:443":     "198.51.0.0/16:80/tcp: its port is 80, not 443",
		"tcp 203.0.113.1:5 -> 192.0.2.11:80":      "192.0.2.10:80/tcp: its address is 192.0.2.10/32, not 192.0.2.11",
		"tcp [2001:db8::9]:5 -> [2001:db8::2]:80": "[2001:db8::1]:80/tcp: its address is 2001:db8::1/128, not 2001:db8::2",
	} {
		frame, err := ParsePacket(packet)
		require.NoError(t, err)
		w.Tables = fakeTables{}
		r, err := w.Packet(frame)
		require.NoError(t, err)
		if r.Reason != "not_vip" || !strings.Contains(r.Why, want) {
			t.Errorf("%s: %s: %s, want %q", packet, r.Reason, r.Why, want)
		}
	}
}

func TestRealThatIsNotThere(t *testing.T) {
	w, _ := smallWorld(t, lb.StableSlot(1), goodHop())
	_, err := w.Real(netip.MustParseAddr("10.20.0.9"), lb.VIP{}, 1)
	require.ErrorSays(t, err, "10.20.0.9", "there are 10.20.0.1, 10.20.0.2")
	r, err := w.Real(netip.MustParseAddr("10.20.0.1"), lb.VIP{}, 2)
	require.NoError(t, err)
	if len(r.VIPs) != 1 || r.VIPs[0].Slots["stable"] != 7 || len(r.VIPs[0].Examples) != 2 {
		t.Errorf("report %+v", r)
	}
}
