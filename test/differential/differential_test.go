// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package differential compares the compiled packet program with its model in Go: the same frames
// and tables into both, and the same changes of the tables between frames. Verdict, frame and counters
// out of both must be equal for every frame, and what both remember of flows.
package differential

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/remora-lb/remora/lb/model"
	"github.com/remora-lb/remora/test/frames"
	"github.com/remora-lb/remora/test/require"
)

const (
	defaultFrames      = 1_000_000 // of all seeds together, half of them in worlds
	framesPerSequence  = 5_000
	changesPerSequence = 80

	// Of a million frames, far less than there should be.
	leastPerReason      = 1_000
	leastPerCombination = 100
	leastErrors         = 50 // for each combination and each kind of ICMP errors
	leastPerFlowCase    = 8
)

// seeds are four that are always the same, and one that is new for each run, or comes from the
// environment to repeat an earlier one.
func seeds(tb testing.TB) []uint64 {
	tb.Helper()
	const variable = "REMORA_SEED"
	extra := uint64(time.Now().UnixNano())
	if text := os.Getenv(variable); text != "" {
		var err error
		if extra, err = strconv.ParseUint(text, 10, 64); err != nil {
			tb.Fatalf("read %s: %v", variable, err)
		}
	}
	tb.Logf("%s=%d repeats the last seed", variable, extra)
	return []uint64{1, 2, 3, 4, extra}
}

// framesWanted is how many frames are compared: REMORA_FRAMES, or what takes about 40 seconds.
func framesWanted(t *testing.T) int {
	t.Helper()
	const variable = "REMORA_FRAMES"
	text := os.Getenv(variable)
	if text == "" {
		return defaultFrames
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < defaultFrames {
		t.Fatalf("%s is %q, not a number from %d on", variable, text, defaultFrames)
	}
	return n
}

func TestProgramEqualsModel(t *testing.T) {
	require.Root(t)
	met := newCoverage()
	all := seeds(t)
	for _, seed := range all {
		each := framesWanted(t) / len(all) / 2
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			tables := tablesOf(seed)
			compareTables(t, &oracle{amend: met.add}, newMaker(tables, seed), each)
		})
		t.Run(fmt.Sprintf("world %d", seed), func(t *testing.T) {
			world := worldOf(seed)
			options := &optionCoverage{coverage: met}
			compareTables(t, &oracle{amend: options.add, note: options.note}, newWorldMaker(world, seed), each)
		})
	}
	if t.Failed() {
		return // fewer frames than planned
	}
	t.Log(met)
	for _, lack := range met.lacks(leastPerReason, leastPerCombination, leastErrors, leastPerFlowCase) {
		t.Errorf("too few frames to tell: %s", lack)
	}
}

// compareTables compares so many frames, and changes of the tables, that a maker makes.
func compareTables(t *testing.T, o *oracle, maker *sequenceMaker, frames int) {
	t.Helper()
	tables := copyOf(maker.tables)
	c, err := newComparison(o, load(t, tables), tables)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for n := 0; n < frames; n += framesPerSequence {
		found, err := c.sequence(maker.next(framesPerSequence, changesPerSequence))
		if err != nil {
			t.Fatal(err)
		}
		if found != nil {
			report(t, o, found)
			return
		}
	}
	t.Logf("%d frames are equal; %.0f frames/s", frames, float64(frames)/time.Since(start).Seconds())
}

func newGenerator(tables *model.Tables, seed uint64) *frames.Generator {
	return frames.NewGenerator(rand.New(rand.NewPCG(seed, 0)), frames.Targets(tables)...)
}

func newMaker(tables *model.Tables, seed uint64) *sequenceMaker {
	return &sequenceMaker{generator: newGenerator(tables, seed), tables: copyOf(tables)}
}

func next(g *frames.Generator, n int) [][]byte {
	group := make([][]byte, n)
	for i := range group {
		group[i] = g.Next().Bytes
	}
	return group
}
