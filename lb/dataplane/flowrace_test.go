// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sync/errgroup"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/frames"
	"github.com/remora-lb/remora/test/require"
)

// Flows in great number fight for a table of few places, while it is swept and added to. Each may
// only get the reals of its slot, and the one that is its own: none gets another's.
const (
	raceFlows  = 64
	raceFrames = 40_000 // by each reader
	ownReal    = lb.RealID(1000)
)

// raceFrame is a frame of flow i: TCP to the VIP, or UDP, for which all flows are remembered.
func raceFrame(i int, flags uint8) []byte {
	port := uint16(10000 + i)
	if i%2 == 0 {
		return frameOf(toVIP(false, frames.TCP{SrcPort: port, DstPort: bedPort, Flags: flags}))
	}
	return frameOf(toVIP(false, frames.UDP{SrcPort: port, DstPort: bedPort}))
}

// raceBed is a flow bed with a table of 16 places, and a real for each flow.
func raceBed(t *testing.T) (b *flowBed, tags []uint64) {
	t.Helper()
	require.Root(t)
	d, err := Open(Config{Flows: 16})
	require.NoError(t, err)
	t.Cleanup(func() { d.Close() })
	b = &flowBed{t, d}
	b.fill(lb.FlowTransitions, lb.MovingSlot(cur, prev))
	_, vips := d.Adopted()
	for i := range vips {
		if vips[i].VIP.Protocol == lb.UDP {
			vips[i].Flows = lb.FlowAlways
		}
	}
	require.NoError(t, d.SetVIPs(vips))
	for i := range raceFlows {
		id := ownReal + lb.RealID(i)
		require.NoError(t, d.SetReals([]lb.Real{testReal(t, id, vips[0].VIP.String(), lb.IPIP, bedAddr(id).String())}))
		tags = append(tags, b.tagOf(raceFrame(i, frames.ACK)))
	}
	return b, tags
}

// readRace sends frames of flows by chance, and returns how many went to the flow's own real.
func readRace(prog *ebpf.Program, random *rand.Rand) (own int, err error) {
	for range raceFrames {
		i := random.IntN(raceFlows)
		flags := uint8(frames.ACK)
		if random.IntN(4) == 0 {
			flags = frames.SYN
		}
		_, out, err := prog.Test(raceFrame(i, flags))
		if err != nil {
			return own, err
		}
		switch to := sentTo(out); to {
		case ownReal + lb.RealID(i):
			own++
		case cur, prev:
		default:
			return own, fmt.Errorf("flow %d: sent to %v: %x", i, netip.Addr(bedAddr(to)), out)
		}
	}
	return own, nil
}

func TestNoFlowGetsAnothersReal(t *testing.T) {
	b, tags := raceBed(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	prog := b.d.Program()
	var readers errgroup.Group
	var own, running atomic.Int64
	for n := range uint64(3) {
		running.Add(1)
		readers.Go(func() error {
			defer running.Add(-1)
			got, err := readRace(prog, rand.New(rand.NewPCG(seed, n)))
			own.Add(int64(got))
			return err
		})
	}
	random := rand.New(rand.NewPCG(seed, 99))
	var sweeps, swept, added int
	ownOf := make(map[uint64]lb.RealID)
	for i, tag := range tags {
		ownOf[tag] = ownReal + lb.RealID(i)
	}
	for ; running.Load() > 0; sweeps++ {
		for _, f := range b.sweepSome(random) {
			swept++
			if f.Real != cur && f.Real != prev && f.Real != ownOf[f.Tag] {
				t.Errorf("flow %+v is at the real of another; its own is %d", f, ownOf[f.Tag])
			}
		}
		i := random.IntN(raceFlows)
		n, err := b.d.AddFlows([]lb.Flow{{Tag: tags[i], Real: ownReal + lb.RealID(i), Seen: random.IntN(2) == 0}})
		require.NoError(t, err)
		added += n
	}
	require.NoError(t, readers.Wait())
	events := b.events()
	t.Logf("%d sweeps of %d flows, %d flows added, %d packets went to their own real; %v", sweeps, swept, added, own.Load(), events)
	for _, e := range []lb.FlowEvent{lb.FlowHit, lb.FlowBegan, lb.FlowTakenOld, lb.FlowEvicted} {
		if events[e] == 0 {
			t.Errorf("no event %v: the flows did not fight", e)
		}
	}
	if own.Load() == 0 || added == 0 {
		t.Error("no packet met an added flow")
	}
	wantNoneClaimed(t, b.table())
}

// sweepSome forgets some flows, and returns all that there were.
func (b *flowBed) sweepSome(random *rand.Rand) (flows []lb.Flow) {
	b.Helper()
	require.NoError(b.T, b.d.SweepFlows(func(f lb.Flow) bool {
		flows = append(flows, f)
		return random.IntN(3) > 0
	}))
	return flows
}

// wantNoneClaimed fails if an entry was left as one that is being written.
func wantNoneClaimed(t *testing.T, table flowTable) {
	t.Helper()
	for i, bucket := range table {
		for place, tag := range bucket.Tag {
			if tag == flowClaimed {
				t.Errorf("bucket %d, place %d is claimed still", i, place)
			}
		}
	}
}

// whileSending runs f over and over while another CPU sends frames, by turns: raceFrames, and as many
// again, for some seconds, until so many times another CPU was met at an entry. It returns the reals
// that they were sent to.
func (b *flowBed) whileSending(f func(), met uint64, all ...[]byte) map[lb.RealID]int {
	b.Helper()
	prog, reals := b.d.Program(), make(map[lb.RealID]int)
	var sender errgroup.Group
	var done atomic.Bool
	deadline := time.Now().Add(10 * time.Second)
	sender.Go(func() error {
		defer done.Store(true)
		for {
			for i := range raceFrames {
				_, out, err := prog.Test(all[i%len(all)])
				if err != nil {
					return err
				}
				reals[sentTo(out)]++
			}
			s, err := b.d.Snapshot()
			if err != nil || s.FlowEvents[lb.FlowRefusedBusy] >= met || time.Now().After(deadline) {
				return err
			}
		}
	})
	for !done.Load() {
		f()
	}
	require.NoError(b.T, sender.Wait())
	return reals
}

// A known flow stays known while its packets on several CPUs mark it as seen.
func TestKnownFlowIsMarked(t *testing.T) {
	b := newFlowBed(t, lb.FlowTransitions, lb.MovingSlot(cur, prev))
	b.wantSent("SYN", tcp4(frames.SYN), cur)
	var entry flowEntry
	b.table().each(func(e flowEntry) { entry = e })
	reals := b.whileSending(func() {
		for range 100 {
			atomic.CompareAndSwapUint64(entry.tagAt, entry.tag|flowSeen, entry.tag)
			atomic.CompareAndSwapUint64(entry.tagAt, entry.tag, entry.tag|flowSeen)
		}
	}, 0, tcp4(frames.ACK))
	wantEqual(t, "reals", reals, map[lb.RealID]int{cur: raceFrames})
	wantEqual(t, "events", b.events(), eventCounts{lb.FlowBegan: 1, lb.FlowHit: raceFrames})
}

// Nobody touches an entry that another has claimed, however much it would like the place.
func TestClaimedEntriesAreLeftAlone(t *testing.T) {
	const held = 100 // looks at a claimed entry
	require.Root(t)
	d, err := Open(Config{Flows: 4})
	require.NoError(t, err)
	t.Cleanup(func() { d.Close() })
	b := &flowBed{t, d}
	b.fill(lb.FlowAlways, lb.StableSlot(cur))
	var all [][]byte
	for i := range raceFlows {
		all = append(all, raceFrame(i, frames.SYN))
	}
	claims, broken := 0, 0
	b.whileSending(func() {
		b.table().each(func(e flowEntry) {
			if !atomic.CompareAndSwapUint64(e.tagAt, e.tag, flowClaimed) {
				return
			}
			claims++
			value := atomic.LoadUint64(e.valueAt)
			for range held {
				if atomic.LoadUint64(e.tagAt) != flowClaimed || atomic.LoadUint64(e.valueAt) != value {
					broken++
					break
				}
			}
			atomic.StoreUint64(e.tagAt, e.tag)
		})
	}, 10, all...)
	t.Logf("%d claims, %d met", claims, b.events()[lb.FlowRefusedBusy]) // few, if there was but one CPU
	if claims == 0 || broken != 0 {
		t.Errorf("%d of %d claims were not respected", broken, claims)
	}
}
