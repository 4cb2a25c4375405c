// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/attach"
	"github.com/remora-lb/remora/test/frames"
	"github.com/remora-lb/remora/test/require"
)

// What schemaBefore counted.
const (
	reasonsBefore = 15
	eventsBefore  = 9
)

// repin puts another map in the place of a pinned one.
func (l *lab) repin(name string, spec *ebpf.MapSpec) *ebpf.Map {
	l.Helper()
	m, err := ebpf.NewMap(spec)
	require.NoError(l.T, err)
	l.Cleanup(func() { m.Close() })
	require.NoError(l.T, os.Remove(l.pin("maps", name)))
	require.NoError(l.T, m.Pin(l.pin("maps", name)))
	return m
}

// toSchemaBefore makes the pinned maps those that the schema before this one had, as its program would have
// left them.
func (l *lab) toSchemaBefore() {
	l.Helper()
	g, err := pinsOf(l.bpffs, "test").openInUse()
	require.NoError(l.T, err)
	defer g.close()
	for _, name := range mapsSince {
		require.NoError(l.T, os.Remove(l.pin("maps", pinName(name))))
	}
	for name, n := range map[string]uint32{"reason_counters": reasonsBefore, "flow_counters": eventsBefore} {
		m := l.repin(name, &ebpf.MapSpec{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: n})
		for i := range n {
			var perCPU []uint64
			require.NoError(l.T, g.maps[name].Lookup(i, &perCPU))
			require.NoError(l.T, m.Put(i, perCPU))
		}
	}
	rings := l.repin("rings", &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8,
		MaxEntries: g.maps["rings"].MaxEntries(), Flags: unix.BPF_F_MMAPABLE})
	next := uint32(0)
	require.NoError(l.T, eachVIPInfo(g, func(info nativeVipInfo) {
		at := span{info.RingFirstSlot, info.RingSize}
		info.RingFirstSlot = next
		require.NoError(l.T, g.maps["vip_infos"].Put(info.RingId, info))
		for _, word := range g.slots(placeOf(at)) {
			require.NoError(l.T, rings.Put(next, word))
			next++
		}
	}))
	info, err := readInstance(g)
	require.NoError(l.T, err)
	info.Schema = schemaBefore
	require.NoError(l.T, writeInstance(g, info))
}

func TestSchemaBeforeIsAdopted(t *testing.T) {
	for _, tt := range []struct {
		name string
		with func(*Config)
	}{
		{"same configuration", func(*Config) {}},
		{"more flows", func(c *Config) { c.Flows *= 2 }},
		{"with decapsulation", func(c *Config) { c.Decap.Others = lb.DecapHost }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			b := &flowBed{t, l.open("lb0", attach.Auto)}
			b.fill(lb.FlowTransitions, lb.MovingSlot(cur, prev))
			require.NoError(t, b.d.Attach())
			id := linkID(t, b.d)
			b.wantSent("new flow", tcp4(frames.SYN), cur)
			wantEnd(t, b.d, "elsewhere", tcpFrame(client, "203.0.113.99:1"), lb.ReasonNotVIP)
			reals, vips := b.d.Adopted()
			slots, flows := b.d.AdoptedRing(1), b.flows()
			require.NoError(t, b.d.Close())
			l.toSchemaBefore()
			if s := l.snapshot(); len(s.VIPs) != len(vips) || s.VIPs[0].SlotStates[lb.SlotMoving] != bedRing || s.Reasons[lb.ReasonNotVIP] != 1 {
				t.Errorf("snapshot %+v", s)
			}

			cfg := l.config("lb0", attach.Auto)
			tt.with(&cfg)
			d, err := Open(cfg)
			require.NoError(t, err)
			t.Cleanup(func() { d.Close() })
			gotReals, gotVIPs := d.Adopted()
			wantEqual(t, "reals", gotReals, reals)
			wantEqual(t, "VIPs", gotVIPs, vips)
			wantEqual(t, "slots", d.AdoptedRing(1), slots)
			b.d = d
			got := b.flows()
			for _, list := range [][]lb.Flow{got, flows} {
				for i := range list {
					list[i].Idle = 0 // time goes on
				}
			}
			wantEqual(t, "flows", got, flows)
			if linkID(t, d) != id || programID(l.program("lb0")) != programID(d.gen.prog) {
				t.Error("the attachment was cycled, or has not the new program")
			}
			b.wantSent("known flow", tcp4(frames.ACK), cur)
			s := l.snapshot()
			if s.Reasons[lb.ReasonNotVIP] != 1 || s.Reasons[lb.ReasonForwarded] != 2 || s.FlowEvents[lb.FlowBegan] != 1 {
				t.Errorf("counters %v, %v", countsOf(s), s.FlowEvents)
			}
			if info, err := readInstance(d.gen); err != nil || info.Schema != schemaVersion || info.Mode == 0 {
				t.Errorf("instance %+v, %v", info, err)
			}
		})
	}
}
