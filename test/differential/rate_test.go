// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"errors"
	"net/netip"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/dataplane"
	"github.com/remora-lb/remora/lb/model"
	"github.com/remora-lb/remora/test/frames"
	"github.com/remora-lb/remora/test/require"
)

// rate is how many flows are remembered anew in a sequence.
type rate struct {
	limit, begun int
}

func (r *rate) start(flows *model.Flows) {
	r.begun = 0
	flows.Refuse = func(model.Flow) (lb.FlowEvent, bool) { return lb.FlowRefusedRate, r.begun >= r.limit }
}

func (r *rate) makeRoom(*model.Flows, *model.FlowStep) { r.begun++ }

// freshTick is a program whose sequences begin soon after a tick of the flow table does: the first
// flow of the tick is a probe, all others are of the sequence.
type freshTick struct {
	*program
	events *ebpf.Map
	probes uint16
}

// probeVIP is one whose flows are all remembered, at probeReal.
var probeVIP = lb.VIP{Addr: netip.AddrFrom4([4]byte{203, 0, 113, 255}), Port: 443, Protocol: lb.TCP}

const probeReal lb.RealID = 1000

// withProbes adds both to tables.
func withProbes(tables *model.Tables) *model.Tables {
	with := copyOf(tables)
	with.VIPs[probeVIP] = model.VIP{Ring: model.Ring{lb.SettlingSlot(probeReal)}}
	with.Reals[probeReal] = lb.Real{
		ID: probeReal, VIP: probeVIP, NextHop: lb.NextHop{MAC: [6]byte{2}, MTU: 1500},
		Tunnel: lb.Tunnel{Destination: netip.AddrFrom4([4]byte{10, 1}), Source: lb.DefaultTunnelSources().IPIP4},
	}
	return with
}

// rewind implements subject. It waits for the first flow that is remembered after some were refused.
func (f *freshTick) rewind(tables *model.Tables) error {
	if err := f.program.rewind(tables); err != nil {
		return err
	}
	deadline := time.Now().Add(20 * time.Second)
	for refusedBefore := false; time.Now().Before(deadline); {
		refused, err := f.probe()
		if err != nil {
			return err
		}
		if refusedBefore && !refused {
			return nil
		}
		refusedBefore = refused
	}
	return errors.New("no tick of the flow table ended within 20 s")
}

// flows implements subject; those of probes do not count.
func (f *freshTick) flows() ([]remembered, error) {
	all, err := f.program.flows()
	return slices.DeleteFunc(all, func(r remembered) bool { return r.real == probeReal }), err
}

// probe tells whether a new flow was refused.
func (f *freshTick) probe() (refused bool, err error) {
	before, err := f.refusals()
	if err != nil {
		return false, err
	}
	f.probes++
	_, _, err = f.run(frames.Frame{Packet: frames.IPv4{
		Src: netip.AddrFrom4([4]byte{198, 51, 100, 255}), Dst: probeVIP.Addr,
		Payload: frames.TCP{SrcPort: f.probes, DstPort: probeVIP.Port, Flags: frames.SYN},
	}}.Bytes())
	if err != nil {
		return false, err
	}
	after, err := f.refusals()
	return after > before, err
}

func (f *freshTick) refusals() (n uint64, err error) {
	var perCPU []uint64
	err = f.events.Lookup(uint32(lb.FlowRefusedRate), &perCPU)
	for _, of := range perCPU {
		n += of
	}
	return n, err
}

// collectSeldom keeps the collector, which has what the tests before left, out of sequences that must fit
// into a tick.
func collectSeldom(t *testing.T) {
	t.Helper()
	runtime.GC()
	before := debug.SetGCPercent(1000)
	t.Cleanup(func() { debug.SetGCPercent(before) })
}

// TestRateLimit compares sequences in which some flows are remembered, and then no more.
func TestRateLimit(t *testing.T) {
	require.Root(t)
	const seed, sequences, limit = 40, 5, 10
	const repeats = 100 // if a tick ends within a sequence: often, on a busy machine
	t.Logf("seed %d", seed)
	runOnOneCPU(t)
	collectSeldom(t)
	tables := withProbes(tablesOf(seed))
	p := loadWith(t, dataplane.Config{Flows: flowPlaces, FlowInserts: limit}, tables)
	f := &freshTick{program: p, events: borrowMap(t, p.dataplane.Program(), "flow_counters")}
	generator := newGenerator(tablesOf(seed), seed)
	events := compareLimited(t, f, tables, &rate{limit: limit - 1}, sequences, repeats, func() []step {
		return frameSteps(next(generator, 300)...)
	})
	if events[lb.FlowRefusedRate] < 50 {
		t.Errorf("too few events to tell: %v", events)
	}
}

// runOnOneCPU keeps the test on the CPU that it is on, for each counts its own flows.
func runOnOneCPU(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	for cpu := range 1024 {
		if all.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
}
