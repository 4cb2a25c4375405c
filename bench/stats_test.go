// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"math"
	"testing"
)

func TestQuantile(t *testing.T) {
	for _, tc := range []struct {
		name string
		x    []float64
		q    float64
		want float64
	}{
		{"empty", nil, 0.5, 0},
		{"one", []float64{3}, 0.1, 3},
		{"odd median", []float64{9, 1, 5}, 0.5, 5},
		{"even median lies between", []float64{4, 1, 2, 3}, 0.5, 2.5},
		{"least", []float64{4, 1, 2}, 0, 1},
		{"greatest", []float64{4, 1, 2}, 1, 4},
		{"tenth of eleven", []float64{10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0}, 0.1, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := quantile(tc.x, tc.q); math.Abs(got-tc.want) > 1e-9 {
				t.Errorf("quantile(%v, %v) = %v, want %v", tc.x, tc.q, got, tc.want)
			}
		})
	}
}

func TestQuantileKeepsOrder(t *testing.T) {
	x := []float64{3, 1, 2}
	median(x)
	if x[0] != 3 || x[1] != 1 || x[2] != 2 {
		t.Errorf("median sorted its argument: %v", x)
	}
}

func TestHalfRange(t *testing.T) {
	if got := halfRange([]float64{0.5, 0.75, 0.25}); got != 0.25 {
		t.Errorf("halfRange = %v, want 0.25", got)
	}
	if got := halfRange(nil); got != 0 {
		t.Errorf("halfRange of nothing = %v, want 0", got)
	}
}

// tickedChunks is bpf/tick.h in Go, with a clock that each packet moves on by what cost says, and
// the choice of rewind.bpf.c: whether the packet's chunk is the target's.
func tickedChunks(packets int, cost func(chunk int, target bool) uint64) []uint32 {
	times := make([]uint32, chunksLen)
	now, last := uint64(1e9), uint64(0)
	for i := range chunksLen * packets {
		if i%packets == 0 {
			times[i/packets%chunksLen] = uint32(now - last)
			last = now
		}
		now += cost(i/packets, i&packets != 0)
	}
	return times
}

func TestPairChunksWithFakeClock(t *testing.T) {
	for _, packets := range []int{rewindPackets, vethPackets} {
		times := tickedChunks(packets, func(chunk int, target bool) uint64 {
			switch {
			case chunk < rewindWarm-1: // caches are cold
				return 900
			case target:
				return 70
			}
			return 30
		})
		pairs := pairChunks(times, rewindWarm, packets)
		if want := (chunksLen - rewindWarm) / 2; len(pairs) < want-1 || len(pairs) > want {
			t.Errorf("%d packets a chunk: %d pairs, want about %d", packets, len(pairs), want)
		}
		for i, p := range pairs {
			if p != (pair{baseline: 30, target: 70}) {
				t.Fatalf("%d packets a chunk: pair %d is %v, want {30 70}", packets, i, p)
			}
		}
	}
}

func TestSampleLeavesOutInterruptedChunks(t *testing.T) {
	times := tickedChunks(rewindPackets, func(chunk int, target bool) uint64 {
		switch {
		case chunk%20 == 7 || chunk%20 == 12: // interrupts, on both sides
			return 5000
		case target:
			return 50
		}
		return 40
	})
	s := newSample(pairChunks(times, rewindWarm, rewindPackets))
	if s != (sample{path: 50, net: 10, rel: 0.25}) {
		t.Errorf("sample is %+v, want path 50, net 10, rel 0.25", s)
	}
}
