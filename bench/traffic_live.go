// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netns"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// sentLoad is what a generator has sent.
type sentLoad struct {
	packets uint64
	// seconds is how long that took, without pauses that are the generator's own.
	seconds float64
	// cpuSeconds is the CPU time of the generators' threads, in which the whole path may be.
	cpuSeconds float64
}

// generator sends a load for some time. One goroutine uses it; close it.
type generator interface {
	// name is "live frames" or "pktgen".
	name() string
	// send sends until the time is over or ctx is done, which is no error.
	send(ctx context.Context, rate float64, d time.Duration) (sentLoad, error)
	close() error
}

// liveGenerator makes live frames by BPF_PROG_TEST_RUN, on a thread for each lane.
type liveGenerator struct {
	load  load
	lanes []liveLane
	fifo  bool
}

type liveLane struct {
	out  *side
	cpu  int
	coll *ebpf.Collection
	// longest is the length of the frames that the kernel makes; the program shortens them.
	longest int
}

// newLiveGenerator loads a program for each lane.
func newLiveGenerator(l load, lanes []lane, fifo bool) (*liveGenerator, error) {
	g := &liveGenerator{load: l, fifo: fifo}
	for i := range lanes {
		coll, err := loadLane(l, i, lanes[i].generator.index)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("load generator: %w", err), g.close())
		}
		g.lanes = append(g.lanes, liveLane{out: &lanes[i].generator, cpu: lanes[i].cpu, coll: coll, longest: slices.Max(l.size.Pattern)})
	}
	return g, nil
}

func loadLane(l load, number, outIndex int) (*ebpf.Collection, error) {
	spec, err := loadGenerator()
	if err != nil {
		return nil, err
	}
	var frames [patternLen]generatorFrame
	for i, n := range l.size.Pattern {
		frames[i] = l.template(n)
	}
	values := map[string]any{
		"out_ifindex": uint32(outIndex), "source_mask": uint32(l.sources - 1), "source_bits": uint32(bits.Len(uint(l.sources)) - 1),
		"flow_mask": uint32(l.flows() - 1), "first_source": uint32(number * l.sources), "sizes_len": uint32(len(l.size.Pattern)),
		"frames": frames,
	}
	if l.ipv6() {
		values["is_v6"] = uint32(1)
	}
	for name, v := range values {
		if err := spec.Variables[name].Set(v); err != nil {
			return nil, fmt.Errorf("set %s: %w", name, err)
		}
	}
	return ebpf.NewCollection(spec)
}

func (g *liveGenerator) name() string { return "live frames" }

func (g *liveGenerator) close() error {
	for _, l := range g.lanes {
		l.coll.Close()
	}
	return nil
}

func (g *liveGenerator) send(ctx context.Context, rate float64, d time.Duration) (sentLoad, error) {
	all := make([]sentLoad, len(g.lanes))
	var group errgroup.Group
	for i := range g.lanes {
		group.Go(func() error {
			return onThread(func() (err error) {
				all[i], err = g.lanes[i].send(ctx, rate/float64(len(g.lanes)), d, g)
				return err
			})
		})
	}
	err := group.Wait()
	var sum sentLoad
	for _, s := range all {
		sum.packets += s.packets
		sum.seconds = max(sum.seconds, s.seconds)
		sum.cpuSeconds += s.cpuSeconds
	}
	return sum, err
}

const (
	// liveCall is for how long one system call sends: the longest time that a run is late to end.
	liveCall = time.Second
	// unpacedRate is more than a lane reaches; it sizes the calls of unlimited runs.
	unpacedRate = 2e6
	// burstTime is the most that frames of a batch are apart from when they are due.
	burstTime = 10 * time.Microsecond
)

// send sends on the calling thread, which the caller gives up.
func (l liveLane) send(ctx context.Context, rate float64, d time.Duration, g *liveGenerator) (s sentLoad, err error) {
	if err := netns.Set(l.out.ns); err != nil { // the device is looked up here
		return s, fmt.Errorf("enter namespace: %v", err)
	}
	settle(l.cpu, g.fifo)
	burst := burstOf(rate)
	gap := uint64(0)
	if rate > 0 {
		gap = uint64(1024e9 / rate)
	}
	err = errors.Join(l.set("burst", uint32(burst)), l.set("gap_1024ths", gap), l.set("stop", uint32(0)))
	if err != nil {
		return s, err
	}
	defer context.AfterFunc(ctx, func() { _ = l.set("stop", uint32(1)) })()
	before := threadSeconds()
	for s.seconds < d.Seconds() && ctx.Err() == nil {
		if err := l.call(&s, rate, d.Seconds()-s.seconds, burst); err != nil {
			return s, err
		}
	}
	s.cpuSeconds = threadSeconds() - before
	return s, nil
}

// burstOf is how many frames the kernel makes at once: few enough not to come much too early.
func burstOf(rate float64) int {
	if rate == 0 {
		return vethBatch
	}
	n := min(max(int(rate*burstTime.Seconds()), 1), vethBatch)
	return 1 << (bits.Len(uint(n)) - 1)
}

// call sends for so many seconds at most, and adds to s what was sent.
func (l liveLane) call(s *sentLoad, rate, seconds float64, burst int) error {
	if err := l.set("call_sent", uint64(0)); err != nil {
		return err
	}
	if rate == 0 {
		rate = unpacedRate
	}
	packets := uint32(max(rate*min(seconds, liveCall.Seconds()), 1))
	start := time.Now()
	_, err := l.coll.Programs["generate"].Run(&ebpf.RunOptions{
		Data: make([]byte, l.longest), Repeat: packets, Flags: unix.BPF_F_TEST_XDP_LIVE_FRAMES, BatchSize: uint32(burst),
	})
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}
	var sent, begun, ended uint64
	for name, to := range map[string]*uint64{"call_sent": &sent, "call_ns": &begun, "last_ns": &ended} {
		if err := l.coll.Variables[name].Get(to); err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
	}
	if sent == 0 {
		return errors.New("send: the generator's program made no packet")
	}
	s.packets += sent
	if took := float64(ended-begun) / 1e9; took > 0 {
		s.seconds += took
	} else {
		s.seconds += time.Since(start).Seconds()
	}
	return nil
}

func (l liveLane) set(name string, v any) error {
	if err := l.coll.Variables[name].Set(v); err != nil {
		return fmt.Errorf("set %s of generator: %w", name, err)
	}
	return nil
}

// threadSeconds is the calling thread's CPU time.
func threadSeconds() float64 {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_THREAD, &u) != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
