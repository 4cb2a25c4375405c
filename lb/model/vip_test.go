// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/model"
	"github.com/remora-lb/remora/test/frames"
)

func TestVIPs(t *testing.T) {
	tables := oneReal(t, vip4+":443/tcp", tunnelTo(t, lb.IPIP, false, "10.0.0.1"))
	tables.VIPs[lb.VIP{Addr: addr(vip4), Protocol: lb.TCP}] = model.VIP{Ring: model.Ring{lb.StableSlot(2)}}
	tables.VIPs[lb.VIP{Addr: addr(vip4), Protocol: lb.UDP, Port: 53}] = model.VIP{Ring: model.Ring{lb.StableSlot(3)}}
	for id := range lb.RealID(3) {
		tables.Reals[id+1] = tables.Reals[1]
	}
	cases := []struct {
		name    string
		payload frames.Payload
		dst     string
		want    lb.Reason
		real    lb.RealID
	}{
		{"its port", frames.TCP{DstPort: 443}, vip4, lb.ReasonForwarded, 1},
		{"another port of a VIP of all ports", frames.TCP{DstPort: 444}, vip4, lb.ReasonForwarded, 2},
		{"port 0 of a VIP of all ports", frames.TCP{DstPort: 0}, vip4, lb.ReasonForwarded, 2},
		{"UDP", frames.UDP{DstPort: 53}, vip4, lb.ReasonForwarded, 3},
		{"another UDP port", frames.UDP{DstPort: 443}, vip4, lb.ReasonNotVIP, 0},
		{"port 0 without a VIP of all ports", frames.UDP{DstPort: 0}, vip4, lb.ReasonNotVIP, 0},
		{"the port as source", frames.UDP{SrcPort: 53, DstPort: 1}, vip4, lb.ReasonNotVIP, 0},
		{"another address", frames.TCP{DstPort: 443}, "203.0.113.11", lb.ReasonNotVIP, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			res := process(t, tables, frame(packet(client4, c.dst, c.payload)).Bytes())
			if res.Reason != c.want || res.Real != c.real {
				t.Errorf("%s, real %d, want %s, real %d", res.Reason, res.Real, c.want, c.real)
			}
		})
	}
}
