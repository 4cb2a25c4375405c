// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"net/netip"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/frames"
	"github.com/remora-lb/remora/test/require"
)

// fragmentTo is the first fragment of a client's packet to an address, or a later one.
func fragmentTo(dst netip.Addr, first bool, protocol uint8) []byte {
	payload := frames.Raw{Protocol: protocol, Data: make([]byte, 24)}
	if dst.Is6() {
		field := uint16(frames.MoreFragments6)
		if !first {
			field = 3 << 3
		}
		return frameOf(frames.IPv6{HopLimit: 64, Src: clientOf(true), Dst: dst, Payload: payload,
			Extensions: []frames.Extension{frames.FragmentHeader(field, 7)}})
	}
	field := uint16(frames.MoreFragments)
	if !first {
		field = 3
	}
	return frameOf(frames.IPv4{TTL: 64, Fragment: field, Src: clientOf(false), Dst: dst, Payload: payload})
}

// What becomes of fragments is for the VIPs of their address and protocol to say.
func TestFragments(t *testing.T) {
	const tcp, udp = uint8(lb.TCP), uint8(lb.UDP)
	pass, client := lb.Options{Fragments: lb.FragmentsPass}, lb.Options{Fragments: lb.FragmentsByClient}
	for _, tt := range []struct {
		name     string
		vips     []string
		options  []lb.Options
		protocol uint8
		want     lb.Reason
	}{
		{"dropped", []string{"203.0.113.10:443/tcp"}, []lb.Options{{}}, tcp, lb.ReasonFragment},
		{"passed", []string{"203.0.113.10:443/tcp"}, []lb.Options{pass}, tcp, lb.ReasonFragmentPassed},
		{"passed by all", []string{"203.0.113.10:443/tcp", "203.0.113.10:80/tcp"}, []lb.Options{pass, pass}, tcp, lb.ReasonFragmentPassed},
		{"not passed by all", []string{"203.0.113.10:443/tcp", "203.0.113.10:80/tcp"}, []lb.Options{pass, {}}, tcp, lb.ReasonFragment},
		{"not passed by the first", []string{"203.0.113.10:443/tcp", "203.0.113.10:80/tcp"}, []lb.Options{{}, pass}, tcp, lb.ReasonFragment},
		{"by client, but not alone", []string{"203.0.113.10:443/tcp", "203.0.113.10:80/tcp"}, []lb.Options{client, client}, tcp, lb.ReasonFragment},
		{"of another protocol", []string{"203.0.113.10:443/tcp"}, []lb.Options{pass}, udp, lb.ReasonFragment},
		{"of a protocol that looks marked", []string{"203.0.113.10:443/tcp"}, []lb.Options{pass}, tcp | fragmentProtocol, lb.ReasonFragment},
		{"by client", []string{"203.0.113.10:443/tcp"}, []lb.Options{client}, tcp, lb.ReasonForwarded},
		{"IPv6, passed", []string{"[2001:db8::10]:0/udp"}, []lb.Options{pass}, udp, lb.ReasonFragmentPassed},
		{"IPv6, by client", []string{"[2001:db8::10]:0/udp"}, []lb.Options{client}, udp, lb.ReasonForwarded},
		{"of a prefix", []string{"203.0.113.0/24:443/tcp"}, []lb.Options{{}}, tcp, lb.ReasonFragment},
		{"elsewhere", []string{"203.0.113.11:443/tcp"}, []lb.Options{pass}, tcp, lb.ReasonNotVIP},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newOptionBed(t, lb.FlowTransitions, lb.Options{}, tt.vips...)
			for i, o := range tt.options {
				b.vips[i].Options = o
			}
			require.NoError(t, b.d.SetVIPs(b.vips))
			dst := vipOf(b.vips[0].VIP.Addr.Is6())
			wantEnd(t, b.d, "first", fragmentTo(dst, true, tt.protocol), tt.want)
			wantEnd(t, b.d, "later", fragmentTo(dst, false, tt.protocol), tt.want)
		})
	}
}

// All packets of a client go to one real, and are one flow.
func TestByClient(t *testing.T) {
	for _, vip := range []string{"203.0.113.10:443/udp", "203.0.113.10:0/udp", "[2001:db8::10]:443/udp", "[2001:db8::10]:0/udp"} {
		t.Run(vip, func(t *testing.T) {
			b := newOptionBed(t, lb.FlowAlways, lb.Options{Fragments: lb.FragmentsByClient}, vip)
			v6 := b.vips[0].VIP.Addr.Is6()
			want := own(clientOf(v6), 0, 0)
			for _, port := range []uint16{bedClient, bedClient + 1, 1} {
				b.wantSent("whole", frameOf(toVIP(v6, frames.UDP{SrcPort: port, DstPort: bedPort, Data: []byte("hello")})), want)
			}
			b.wantSent("first", fragmentTo(vipOf(v6), true, uint8(lb.UDP)), want)
			b.wantSent("later", fragmentTo(vipOf(v6), false, uint8(lb.UDP)), want)
			b.wantSent("error", errorOfUDP(v6), want)
			if flows := b.flows(); len(flows) != 1 || flows[0].Real != want || !flows[0].Seen {
				t.Errorf("flows %+v, want one that was seen", flows)
			}
		})
	}
}

// TCP flags say nothing of a client's other connections.
func TestByClientTCPFlags(t *testing.T) {
	b := newOptionBed(t, lb.FlowTransitions, lb.Options{Fragments: lb.FragmentsByClient}, "203.0.113.10:443/tcp")
	b.setRing(0, func(id lb.RealID) lb.Slot { return lb.MovingSlot(id, beside) })
	for name, flags := range map[string]uint8{"SYN": frames.SYN, "RST": frames.RST, "ACK": frames.ACK} {
		b.sweep(false)
		b.wantSent(name, tcp4(flags), beside)
		if flows := b.flows(); len(flows) != 1 || flows[0].Real != beside {
			t.Errorf("%s: flows %+v, want one at real %d", name, flows, beside)
		}
	}
}

// errorOfUDP is errorOf about a datagram.
func errorOfUDP(v6 bool) []byte {
	answer := frames.UDP{SrcPort: bedPort, DstPort: bedClient}
	quote, unreachable := packetFrom(vipOf(v6), clientOf(v6), answer).Bytes(), uint8(frames.Unreachable)
	if v6 {
		unreachable = frames.Unreachable6
	}
	router := netip.MustParseAddr("192.0.2.99")
	if v6 {
		router = netip.MustParseAddr("2001:db8:2::1")
	}
	return frameOf(packetFrom(router, vipOf(v6), frames.ICMP{Type: unreachable, Data: quote}))
}
