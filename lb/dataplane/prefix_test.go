// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/frames"
	"github.com/remora-lb/remora/test/require"
)

// The steps of docs/packet-path.md section 3, in their order: each time the VIP that is found is deleted.
func TestPrefixVIPs(t *testing.T) {
	for name, vips := range map[string][]string{
		"IPv4": {
			"203.0.113.10:443/tcp", "203.0.113.0/28:443/tcp", "203.0.113.0/24:443/tcp",
			"203.0.113.10:0/tcp", "203.0.113.0/28:0/tcp", "203.0.0.0/16:0/tcp",
		},
		"IPv6": {
			"[2001:db8::10]:443/tcp", "[2001:db8::/64]:443/tcp", "[2001:db8::/32]:443/tcp",
			"[2001:db8::10]:0/tcp", "[2001:db8::/64]:0/tcp", "[2001::/16]:0/tcp",
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newOptionBed(t, lb.FlowAlways, lb.Options{}, vips...)
			v6 := b.vips[0].VIP.Addr.Is6()
			tags := make(map[uint64]string)
			for i, v := range vips {
				// All slots of a VIP's ring go to one real.
				b.setRing(lb.RingID(i), func(lb.RealID) lb.Slot { return lb.StableSlot(lb.RealID(i + 1)) })
				require.NoError(t, b.d.SetVIPs(b.vips[i:]))
				frame := frameOf(toVIP(v6, tcpOf(frames.ACK)))
				b.wantSent(v, frame, lb.RealID(i+1))
				tag := b.tagOf(frame)
				if other, ok := tags[tag]; ok {
					t.Errorf("flows of %s have the names of those of %s", v, other)
				}
				tags[tag] = v
				wantEnd(t, b.d, "fragment", fragmentTo(vipOf(v6), true, uint8(lb.TCP)), lb.ReasonFragment)
			}
			require.NoError(t, b.d.SetVIPs(nil))
			wantEnd(t, b.d, "no VIP", frameOf(toVIP(v6, tcpOf(frames.ACK))), lb.ReasonNotVIP)
			wantEnd(t, b.d, "fragment", fragmentTo(vipOf(v6), true, uint8(lb.TCP)), lb.ReasonNotVIP)
		})
	}
}

// The destination port counts only where the VIP was found by address and port.
func TestPrefixIsHashedWithoutPort(t *testing.T) {
	b := newOptionBed(t, lb.FlowTransitions, lb.Options{}, "203.0.113.0/24:443/tcp")
	b.wantSent("by prefix and port", tcp4(frames.ACK), own(clientOf(false), bedClient, 0))
}

// A prefix alone gives its addresses to echo requests.
func TestEchoToPrefix(t *testing.T) {
	b := newOptionBed(t, lb.FlowTransitions, lb.Options{}, "203.0.113.0/24:443/tcp")
	echo := frames.ICMP{Type: frames.EchoRequest}
	wantEnd(t, b.d, "within", frameOf(packetFrom(clientOf(false), vipOf(false), echo)), lb.ReasonEchoAnswered)
	wantEnd(t, b.d, "outside", frameOf(packetFrom(clientOf(false), bedAddr(1), echo)), lb.ReasonICMP)
}
