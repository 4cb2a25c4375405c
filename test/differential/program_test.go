// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/dataplane"
	"github.com/remora-lb/remora/lb/engine"
	"github.com/remora-lb/remora/lb/model"
	"github.com/remora-lb/remora/test/frames"
	"github.com/remora-lb/remora/test/require"
)

// maxOuterLen is more than a frame grows by.
const maxOuterLen = 64

// program is the compiled packet program with a table set in its maps, attached to nothing.
type program struct {
	dataplane *dataplane.Dataplane
	// reals and reasons are the program's own counters, so that one can be read without all.
	reals, reasons *ebpf.Map
	// out is where frames come out of every run.
	out []byte
	// metadata is how many bytes of metadata lie in front of every frame, a multiple of 4. They take
	// up room that outer headers may need.
	metadata int
}

// xdpContext is struct xdp_md (linux/bpf.h).
type xdpContext struct {
	Data, DataEnd, DataMeta       uint32
	Ingress, ReceiveQueue, Egress uint32
}

// load fills the program's maps with the tables; rings get their ids in the order of their VIPs.
func load(tb testing.TB, tables *model.Tables) *program {
	tb.Helper()
	require.Root(tb)
	dp, err := dataplane.Open(dataplane.Config{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { dp.Close() })
	if err := fill(dp, tables); err != nil {
		tb.Fatal(err)
	}
	return &program{
		dataplane: dp,
		reals:     borrowMap(tb, dp.Program(), "real_counters"),
		reasons:   borrowMap(tb, dp.Program(), "reason_counters"),
		out:       make([]byte, frames.MaxLen+maxOuterLen),
	}
}

func fill(dp *dataplane.Dataplane, tables *model.Tables) error {
	if err := dp.Reserve(capacity(tables)); err != nil {
		return err
	}
	if err := dp.SetReals(slices.Collect(maps.Values(tables.Reals))); err != nil {
		return err
	}
	var vips []lb.VIPEntry
	for i, vip := range frames.Targets(tables) {
		id, ring := lb.RingID(i), tables.VIPs[vip]
		if _, err := dp.SetRing(id, ring); err != nil {
			return err
		}
		vips = append(vips, lb.VIPEntry{VIP: vip, Service: "differential", RingID: id, Ring: lb.Ring{Size: uint32(len(ring))}})
	}
	return dp.SetVIPs(vips)
}

// capacity is room for everything, so that the program is not replaced while it is filled.
func capacity(tables *model.Tables) engine.Capacity {
	var c engine.Capacity
	for vip, ring := range tables.VIPs {
		c.RingSlots += len(ring)
		if vip.Addr.Is6() {
			c.VIPs6++
		} else {
			c.VIPs4++
		}
	}
	for id := range tables.Reals {
		c.Reals = max(c.Reals, int(id))
	}
	return c
}

// borrowMap opens the map of this name that the program uses.
func borrowMap(tb testing.TB, prog *ebpf.Program, name string) *ebpf.Map {
	tb.Helper()
	info, err := prog.Info()
	if err != nil {
		tb.Fatal(err)
	}
	ids, _ := info.MapIDs()
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			tb.Fatal(err)
		}
		if info, err := m.Info(); err == nil && info.Name == name {
			tb.Cleanup(func() { m.Close() })
			return m
		}
		m.Close()
	}
	tb.Fatalf("the program uses no map %q", name)
	return nil
}

// run implements subject by the kernel's test run. Of a frame longer than frames.MaxLen the kernel
// would show the program the beginning only, as the first buffer of several.
func (p *program) run(frame []byte) (lb.Verdict, []byte, error) {
	if len(frame) < frames.HeaderLen || len(frame) > frames.MaxLen {
		return 0, nil, fmt.Errorf("test-run a frame of %d bytes: the kernel takes %d to %d", len(frame), frames.HeaderLen, frames.MaxLen)
	}
	options := ebpf.RunOptions{Data: frame, DataOut: p.out}
	if p.metadata > 0 {
		options.Data = append(make([]byte, p.metadata), frame...)
		options.Context = xdpContext{Data: uint32(p.metadata), DataEnd: uint32(len(options.Data))}
	}
	verdict, err := p.dataplane.Program().Run(&options)
	if err != nil {
		return 0, nil, fmt.Errorf("test-run a frame of %d bytes behind %d bytes of metadata: %w", len(frame), p.metadata, err)
	}
	return lb.Verdict(verdict), options.DataOut[p.metadata:], nil
}

// count implements subject.
func (p *program) count(name counter) (dataplane.Counter, error) {
	var sum dataplane.Counter
	if name.reason != lb.ReasonForwarded {
		var perCPU []uint64
		err := p.reasons.Lookup(uint32(name.reason), &perCPU)
		for _, n := range perCPU {
			sum.Packets += n
		}
		return sum, err
	}
	var perCPU []dataplane.Counter
	err := p.reals.Lookup(uint32(name.real), &perCPU)
	for _, n := range perCPU {
		sum.Packets += n.Packets
		sum.Bytes += n.Bytes
	}
	return sum, err
}

// counts implements subject. What is counted for ids that no record has is counted for id 0.
func (p *program) counts() (counts, error) {
	s, err := p.dataplane.Snapshot()
	if err != nil {
		return nil, err
	}
	all := counts{}
	add := func(name counter, n dataplane.Counter) {
		if n != (dataplane.Counter{}) {
			all[name] = n
		}
	}
	elsewhere := dataplane.Counter{Packets: s.Reasons[lb.ReasonForwarded], Bytes: s.Removed.Bytes}
	for _, real := range s.Reals {
		add(counter{lb.ReasonForwarded, real.ID}, real.Counter)
		elsewhere.Packets -= real.Packets
	}
	add(counter{lb.ReasonForwarded, 0}, elsewhere)
	for reason, n := range s.Reasons {
		if lb.Reason(reason) != lb.ReasonForwarded {
			add(counter{reason: lb.Reason(reason)}, dataplane.Counter{Packets: n})
		}
	}
	return all, nil
}
