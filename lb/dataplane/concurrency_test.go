// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sync/errgroup"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/require"
)

// The writer goes through rounds. In each, one real takes the place of another in the ring of the
// steady VIP, whose length changes at times, and the other is deleted; a second VIP comes in even
// rounds and goes in odd ones. Whatever a packet meets must be of a round between the one that was
// complete before it and the one that had begun after it.
const (
	rounds      = 60
	steadyVIP   = "203.0.113.10"
	sometimeVIP = "203.0.113.20"
)

type writer struct {
	*testing.T
	d             *Dataplane
	begun, ending atomic.Int64 // the round that has begun, and the last that is complete
}

func realOfRound(round int64) lb.RealID { return lb.RealID(1 + round%4) }

func addrOfRound(round int64) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 0, 0, byte(realOfRound(round))})
}

// change makes the data plane what it must be in a round, in the engine's order.
func (w *writer) change(round int64) error {
	w.begun.Store(round)
	id := realOfRound(round)
	r := testReal(w.T, id, steadyVIP+":443/tcp", lb.IPIP, addrOfRound(round).String())
	r.NextHop.MAC[4] = byte(round)
	if err := w.d.SetReals([]lb.Real{r}); err != nil {
		return err
	}
	slots := make([]lb.Slot, []int{7, 7, 11}[round%3])
	for i := range slots {
		slots[i] = lb.StableSlot(id)
	}
	if _, err := w.d.SetRing(0, slots); err != nil {
		return err
	}
	entries := []lb.VIPEntry{{VIP: testVIP(w.T, steadyVIP+":443/tcp"), Ring: lb.Ring{Size: uint32(len(slots))}}}
	if round%2 == 0 {
		second := entries[0]
		second.VIP = testVIP(w.T, sometimeVIP+":443/tcp")
		entries = append(entries, second)
	}
	if err := w.d.SetVIPs(entries); err != nil {
		return err
	}
	if round > 0 {
		if err := w.d.DeleteReals([]lb.RealID{realOfRound(round - 1)}); err != nil {
			return err
		}
	}
	w.ending.Store(round)
	return nil
}

// read sends frames until the last round is complete, and returns how many.
func (w *writer) read(prog *ebpf.Program) (frames int, err error) {
	steady, sometime := tcpFrame(client, steadyVIP+":443"), tcpFrame(client, sometimeVIP+":443")
	for {
		from := w.ending.Load()
		for _, frame := range [][]byte{steady, sometime} {
			verdict, out, err := prog.Test(frame)
			if err != nil {
				return frames, err
			}
			to := w.begun.Load()
			if !allowed(lb.Verdict(verdict), out, from, to, frame[33] == sometime[33]) {
				return frames, fmt.Errorf("rounds %d to %d: verdict %v, frame to %v: %x", from, to, lb.Verdict(verdict), frame[30:34], out)
			}
			frames++
		}
		if from == rounds-1 {
			return frames, nil
		}
	}
}

// allowed tells whether a packet may end so in one of the rounds. Both VIPs have the same ring, so
// the second one may still be there when its packets already go where those of the next round go.
func allowed(verdict lb.Verdict, out []byte, from, to int64, sometime bool) bool {
	there, gone, known := !sometime, false, false
	for round := from; round <= to; round++ {
		there = there || round%2 == 0
		gone = gone || sometime && round%2 == 1
		known = known || outerDestination(out) == addrOfRound(round) && out[4] == byte(round)
	}
	return gone && verdict == lb.Pass || there && known && verdict == lb.TX
}

func TestPacketsMeetWholeChanges(t *testing.T) {
	w := &writer{T: t, d: testOpen(t)}
	require.NoError(t, w.d.Reserve(capacityOf(2, 0, 10, 40)))
	require.NoError(t, w.change(0))
	prog, number := w.d.Program(), w.d.gen.number
	var group errgroup.Group
	var frames atomic.Int64
	for range 2 {
		group.Go(func() error {
			n, err := w.read(prog)
			frames.Add(int64(n))
			return err
		})
	}
	for round := int64(1); round < rounds; round++ {
		require.NoError(t, w.change(round))
	}
	require.NoError(t, group.Wait())
	t.Logf("%d frames in %d rounds", frames.Load(), rounds)
	if w.d.gen.number != number {
		t.Error("the program was replaced, so the frames met nothing")
	}
	s, err := w.d.Snapshot()
	require.NoError(t, err)
	for reason, n := range countsOf(s).Reasons {
		if reason != lb.ReasonForwarded && reason != lb.ReasonNotVIP {
			t.Errorf("%d packets ended as %v", n, reason)
		}
	}
}
