// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"slices"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/frames"
	"github.com/remora-lb/remora/test/require"
)

// exactSlots are those of the VIPs of a port that are added beside such of all ports.
var exactSlots = []struct {
	slot lb.Slot
	to   lb.RealID // packets of unknown flows
}{
	{lb.StableSlot(elsewhere), elsewhere},
	{lb.MovingSlot(elsewhere, draining), draining},
	{lb.SettlingSlot(elsewhere), elsewhere},
	{lb.LingeringSlot(elsewhere), elsewhere},
}

// A flow that is known at a VIP of all ports is unknown at one of its port that is added, and known
// again once that is deleted: neither VIP's flows go to the other's reals.
func TestFlowsOfAllPorts(t *testing.T) {
	b := newFlowBed(t, lb.FlowTransitions, lb.MovingSlot(cur, prev))
	_, exact := b.d.Adopted()
	all := slices.Clone(exact)
	for i := range exact {
		all[i].VIP.Port = 0
		exact[i].RingID += lb.RingID(len(all))
	}
	own := testReal(t, ownReal, all[0].VIP.String(), lb.IPIP, bedAddr(ownReal).String())
	require.NoError(t, b.d.SetReals([]lb.Real{own}))
	for _, tt := range exactSlots {
		b.setRings(exact, tt.slot)
		for _, v6 := range []bool{false, true} {
			udp := frameOf(toVIP(v6, frames.UDP{SrcPort: bedClient, DstPort: bedPort}))
			for name, packets := range map[string]struct{ first, later []byte }{
				"TCP":   {dataPacket(v6), dataPacket(v6)},
				"UDP":   {udp, udp},
				"error": {dataPacket(v6), errorOf(v6)},
			} {
				t.Run(fmt.Sprintf("%s, %s, IPv6 %v", tt.slot.State(), name, v6), func(t *testing.T) {
					b := &flowBed{t, b.d}
					b.sweep(false)
					require.NoError(t, b.d.SetVIPs(all))
					b.add(lb.Flow{Tag: b.tagOf(packets.first), Real: ownReal, Seen: true})
					b.wantSent("at all ports", packets.later, ownReal)
					require.NoError(t, b.d.SetVIPs(slices.Concat(all, exact)))
					b.wantSent("at its port", packets.later, tt.to)
					b.wantSent("at its port, again", packets.later, tt.to)
					require.NoError(t, b.d.SetVIPs(all))
					b.wantSent("at all ports again", packets.later, ownReal)
				})
			}
		}
	}
}

// setRings makes all slots of the VIPs' rings look like this one.
func (b *flowBed) setRings(vips []lb.VIPEntry, slot lb.Slot) {
	b.Helper()
	for _, v := range vips {
		_, err := b.d.SetRing(v.RingID, slices.Repeat([]lb.Slot{slot}, bedRing))
		require.NoError(b.T, err)
	}
}
