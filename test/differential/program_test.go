// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
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
	rings     map[lb.VIP]lb.RingID
	// vips are those that are set.
	vips map[lb.VIP]model.VIP
	// reals and reasons are the program's own counters, so that one can be read without all.
	reals, reasons *ebpf.Map
	// out is where frames come out of every run.
	out []byte
	// others are flows that are always in the flow table and meet no frame, to fill it.
	others []lb.Flow
	// metadata is how many bytes of metadata lie in front of every frame, a multiple of 4. They take
	// up room that outer headers may need.
	metadata int
}

// xdpContext is struct xdp_md (linux/bpf.h).
type xdpContext struct {
	Data, DataEnd, DataMeta       uint32
	Ingress, ReceiveQueue, Egress uint32
}

// flowPlaces is how many flows the program has room for: far more than a sequence has.
const flowPlaces = 1 << 14

// load fills the program's maps with the tables. It answers without a limit.
func load(tb testing.TB, tables *model.Tables) *program {
	tb.Helper()
	return loadWith(tb, dataplane.Config{Flows: flowPlaces, AnswerLimit: dataplane.AnswersUnlimited}, tables)
}

// loadWith does so with a flow table of this size, and this limit of answers.
func loadWith(tb testing.TB, cfg dataplane.Config, tables *model.Tables) *program {
	tb.Helper()
	require.Root(tb)
	cfg.UDPIdle, cfg.Decap, cfg.QUICLB = tables.UDPIdle, tables.Decap, tables.QUICLB
	dp, err := dataplane.Open(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { dp.Close() })
	// Room for everything, so that the program is not replaced later.
	if err := dp.Reserve(capacity(tables)); err != nil {
		tb.Fatal(err)
	}
	p := &program{dataplane: dp, rings: ringIDs(tables), out: make([]byte, frames.MaxLen+maxOuterLen)}
	if err := p.rewind(tables); err != nil {
		tb.Fatal(err)
	}
	p.reals = borrowMap(tb, dp.Program(), "real_counters")
	p.reasons = borrowMap(tb, dp.Program(), "reason_counters")
	return p
}

// ringIDs gives rings their ids in the order of their VIPs.
func ringIDs(tables *model.Tables) map[lb.VIP]lb.RingID {
	ids := make(map[lb.VIP]lb.RingID)
	for i, vip := range frames.Targets(tables) {
		ids[vip] = lb.RingID(i)
	}
	return ids
}

// rewind implements subject.
func (p *program) rewind(tables *model.Tables) error {
	if err := p.dataplane.SetReals(slices.Collect(maps.Values(tables.Reals))); err != nil {
		return err
	}
	if err := p.setVIPs(tables.VIPs); err != nil {
		return err
	}
	if err := p.setSourceRoutes(tables.SourceRoutes); err != nil {
		return err
	}
	if err := p.dataplane.SweepFlows(func(lb.Flow) bool { return false }); err != nil {
		return err
	}
	return p.addFlows(p.others)
}

// addFlows adds flows that all find a place.
func (p *program) addFlows(flows []lb.Flow) error {
	added, err := p.dataplane.AddFlows(flows)
	if err == nil && added != len(flows) {
		err = fmt.Errorf("%d of %d flows were added", added, len(flows))
	}
	return err
}

// change implements subject.
func (p *program) change(c frames.Change) error {
	if err := p.dataplane.SetReals(slices.Collect(maps.Values(c.Reals))); err != nil {
		return err
	}
	vips := maps.Clone(p.vips)
	maps.Copy(vips, c.VIPs)
	for _, name := range c.Gone {
		delete(vips, name)
	}
	if err := p.setVIPs(vips); err != nil {
		return err
	}
	if c.SourceRoutes != nil {
		if err := p.setSourceRoutes(c.SourceRoutes); err != nil {
			return err
		}
	}
	if c.Pause == 0 {
		return nil
	}
	var flows []lb.Flow
	err := p.dataplane.SweepFlows(func(f lb.Flow) bool {
		f.Idle += c.Pause
		flows = append(flows, f)
		return false
	})
	return errors.Join(err, p.addFlows(flows))
}

// setVIPs makes the VIPs be these. It sets rings that are others than before, what servers and routes
// lead to if that is, and the VIPs if their entries are.
func (p *program) setVIPs(vips map[lb.VIP]model.VIP) error {
	entries := make([]lb.VIPEntry, 0, len(vips))
	same, sameTargets := len(vips) == len(p.vips), len(vips) == len(p.vips)
	for name, vip := range vips {
		id := p.rings[name]
		before, there := p.vips[name]
		entries = append(entries, lb.VIPEntry{
			VIP: name, Service: "differential", RingID: id, Flows: vip.Flows, Ring: lb.Ring{Size: uint32(len(vip.Ring))},
			Options: vip.Options,
		})
		same = same && there && len(before.Ring) == len(vip.Ring) && before.Flows == vip.Flows && before.Options == vip.Options
		sameTargets = sameTargets && there && maps.Equal(before.Servers, vip.Servers) && maps.Equal(before.Routes, vip.Routes)
		if len(before.Ring) == len(vip.Ring) && &before.Ring[0] == &vip.Ring[0] {
			continue
		}
		if _, err := p.dataplane.SetRing(id, vip.Ring); err != nil {
			return err
		}
	}
	p.vips = maps.Clone(vips)
	if !sameTargets {
		if err := p.setTargets(); err != nil {
			return err
		}
	}
	if same {
		return nil
	}
	return p.dataplane.SetVIPs(entries)
}

// setTargets makes numbers of servers, and backends of source routes, lead where the VIPs say.
func (p *program) setTargets() error {
	var servers []lb.ServerTarget
	var routes []lb.RouteTarget
	for name, vip := range p.vips {
		for number, real := range vip.Servers {
			servers = append(servers, lb.ServerTarget{Ring: p.rings[name], ServerID: number, Real: real})
		}
		for backend, real := range vip.Routes {
			routes = append(routes, lb.RouteTarget{Ring: p.rings[name], Backend: backend, Real: real})
		}
	}
	return p.dataplane.SetTargets(servers, routes)
}

func (p *program) setSourceRoutes(prefixes map[netip.Prefix]netip.Addr) error {
	var routes []lb.SourceRoute
	for prefix, backend := range prefixes {
		routes = append(routes, lb.SourceRoute{Prefix: prefix, Backend: backend})
	}
	return p.dataplane.SetSourceRoutes(routes)
}

// capacity is room for everything, so that the program is not replaced while it is filled.
func capacity(tables *model.Tables) engine.Capacity {
	var c engine.Capacity
	for name, vip := range tables.VIPs {
		c.RingSlots += len(vip.Ring)
		// Numbers of servers, of which a change may have one more or less, and routes.
		c.Targets += 2*len(vip.Servers) + 2*len(vip.Routes)
		c.Options = c.Options || vip.Options != (lb.Options{})
		if name.IsPrefix() {
			c.Prefixes++
		}
		if name.Addr.Is6() {
			c.VIPs6++
		} else {
			c.VIPs4++
		}
	}
	for id := range tables.Reals {
		c.Reals = max(c.Reals, int(id))
	}
	c.SourceRoutes = 4 * len(tables.SourceRoutes)
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

// count implements subject. Packets that the host keeps are counted by reason here.
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
	for event, n := range s.FlowEvents {
		add(eventCounter(lb.FlowEvent(event)), dataplane.Counter{Packets: n})
	}
	elsewhere := dataplane.Counter{Packets: s.Reasons[lb.ReasonForwarded] + s.Reasons[lb.ReasonLocal], Bytes: s.Removed.Bytes}
	for _, real := range s.Reals {
		add(counter{reason: lb.ReasonForwarded, real: real.ID}, real.Counter)
		elsewhere.Packets -= real.Packets
	}
	add(counter{reason: lb.ReasonForwarded}, elsewhere)
	add(decapCounter(4), dataplane.Counter{Packets: s.Decapsulated4})
	add(decapCounter(6), dataplane.Counter{Packets: s.Decapsulated6})
	for reason, n := range s.Reasons {
		if lb.Reason(reason) != lb.ReasonForwarded {
			add(counter{reason: lb.Reason(reason)}, dataplane.Counter{Packets: n})
		}
	}
	return all, nil
}

// flows implements subject.
func (p *program) flows() ([]remembered, error) {
	var all []remembered
	err := p.dataplane.SweepFlows(func(f lb.Flow) bool {
		if !p.isOther(f.Tag) {
			e := model.Entry{Real: f.Real, Generation: f.Generation, Slot: f.Slot, Seen: f.Seen, Idle: f.Idle}
			all = append(all, newRemembered(e))
		}
		return true
	})
	sortRemembered(all)
	return all, err
}

func (p *program) isOther(tag uint64) bool {
	return slices.ContainsFunc(p.others, func(f lb.Flow) bool { return f.Tag == tag })
}
