// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"fmt"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/maglev"
	"github.com/remora-lb/remora/lb/model"
	"github.com/remora-lb/remora/test/frames"
)

// TestSlots gives each slot a real of its own, and compares with the slot that the hash names.
func TestSlots(t *testing.T) {
	for _, size := range []int{lb.DefaultRingSize, 4093, 1} {
		for _, src := range []string{client4, client6} {
			t.Run(fmt.Sprintf("%d slots, from %s", size, src), func(t *testing.T) {
				dst := addr(vip4)
				if src == client6 {
					dst = addr(vip6)
				}
				ring := make(model.Ring, size)
				for i := range ring {
					id := lb.RealID(i + 1)
					ring[i] = []lb.Slot{lb.StableSlot(id), lb.SettlingSlot(id), lb.LingeringSlot(id), lb.MovingSlot(id, id)}[i%4]
				}
				tables := &model.Tables{VIPs: map[lb.VIP]model.VIP{{Addr: dst, Port: 443, Protocol: lb.TCP}: {Ring: ring}}}
				for sport := range uint16(500) {
					want := maglev.SlotIndex(maglev.FlowHash(addr(src), sport, 443), uint32(size)) + 1
					b := frame(packet(src, dst.String(), frames.TCP{SrcPort: sport, DstPort: 443})).Bytes()
					if res := process(t, tables, b); res.Reason != lb.ReasonRealUnknown || res.Real != lb.RealID(want) {
						t.Fatalf("source port %d: %s, real %d, want %d", sport, res.Reason, res.Real, want)
					}
				}
			})
		}
	}
}
