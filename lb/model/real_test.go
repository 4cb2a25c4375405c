// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"fmt"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/model"
)

func TestRealsWanting(t *testing.T) {
	cases := []struct {
		name   string
		change func(tables *model.Tables, vip lb.VIP)
		want   lb.Reason
		real   lb.RealID
	}{
		{"nothing wanting", func(*model.Tables, lb.VIP) {}, lb.ReasonForwarded, 1},
		{"empty slot", func(tables *model.Tables, vip lb.VIP) { clear(tables.VIPs[vip].Ring) }, lb.ReasonRingEmpty, 0},
		{"no slots", func(tables *model.Tables, vip lb.VIP) { tables.VIPs[vip] = model.VIP{} }, lb.ReasonRingEmpty, 0},
		{"no real any more", func(tables *model.Tables, vip lb.VIP) {
			tables.VIPs[vip] = model.VIP{Ring: model.Ring{lb.MovingSlot(0, 1)}}
		}, lb.ReasonForwarded, 1},
		{"no real any more, nor a record of the previous one", func(tables *model.Tables, vip lb.VIP) {
			tables.VIPs[vip] = model.VIP{Ring: model.Ring{lb.MovingSlot(0, 2)}}
		}, lb.ReasonRingEmpty, 0},
		{"no record", func(tables *model.Tables, _ lb.VIP) { delete(tables.Reals, 1) }, lb.ReasonRealUnknown, 1},
		{"no MAC address", func(tables *model.Tables, _ lb.VIP) {
			real := tables.Reals[1]
			real.NextHop = lb.NextHop{MTU: 1500, Problem: "no route"}
			tables.Reals[1] = real
		}, lb.ReasonNextHopUnknown, 1},
		{"no MAC address, and too big", func(tables *model.Tables, _ lb.VIP) {
			real := tables.Reals[1]
			real.NextHop = lb.NextHop{Problem: "no route"}
			tables.Reals[1] = real
		}, lb.ReasonNextHopUnknown, 1},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			vip := lb.VIP{Addr: addr(vip4), Port: 443, Protocol: lb.TCP}
			tables := oneReal(t, vip.String(), tunnelTo(t, lb.IPIP, false, "10.0.0.1"))
			c.change(tables, vip)
			if res := process(t, tables, frame(to(false, tcp)).Bytes()); res.Reason != c.want || res.Real != c.real {
				t.Errorf("%s, real %d, want %s, real %d", res.Reason, res.Real, c.want, c.real)
			}
		})
	}
}

// TestTooBig finds the boundary for every tunnel: it counts the IP packet, not frame and trailer.
func TestTooBig(t *testing.T) {
	for _, encap := range []lb.Encap{lb.IPIP, lb.GUE} {
		for _, real := range []string{"10.0.0.1", "fc00::1"} {
			for _, vip := range []string{vip4, vip6} {
				t.Run(fmt.Sprintf("%s from %s to %s", encap, vip, real), func(t *testing.T) {
					v := lb.VIP{Addr: addr(vip), Port: 443, Protocol: lb.TCP}
					tunnel := tunnelTo(t, encap, false, real)
					tables := oneReal(t, v.String(), tunnel)
					f := frame(to(v.Addr.Is6(), tcp))
					f.Trailer = make([]byte, 30)
					length := len(f.Packet.Bytes())
					outer := map[string]int{"ipip 4": 20, "ipip 6": 40, "gue 4": 28, "gue 6": 48}
					fits := length + outer[fmt.Sprintf("%s %d", encap, map[bool]int{false: 4, true: 6}[tunnel.Destination.Is6()])]
					for mtu, want := range map[int]lb.Reason{
						fits: lb.ReasonForwarded, fits + 1: lb.ReasonForwarded, fits - 1: lb.ReasonTooBig, 0: lb.ReasonTooBig,
					} {
						r := tables.Reals[1]
						r.NextHop.MTU = mtu
						tables.Reals[1] = r
						if res := process(t, tables, f.Bytes()); res.Reason != want || res.Real != 1 {
							t.Errorf("%d bytes, MTU %d: %s, want %s", length, mtu, res.Reason, want)
						}
					}
				})
			}
		}
	}
}
