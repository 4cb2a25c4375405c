// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package differential compares the compiled packet program with its model in Go: the same frames
// and tables into both; verdict, frame and counters out of both must be equal, for every frame.
package differential

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/remora-lb/remora/lb/model"
	"github.com/remora-lb/remora/test/frames"
	"github.com/remora-lb/remora/test/require"
)

const (
	framesPerSeed  = 60_000
	framesPerGroup = 1_000

	// Of all frames together, far less than there should be.
	leastPerReason      = 1_000
	leastPerCombination = 100
	leastErrors         = 50 // for each combination and each kind of ICMP errors
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

func TestProgramEqualsModel(t *testing.T) {
	require.Root(t)
	met := newCoverage()
	for _, seed := range seeds(t) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) { compareSeed(t, seed, met) })
	}
	if t.Failed() {
		return // fewer frames than planned
	}
	t.Logf("reasons: %v; of each way at least %d frames and %d ICMP errors, of each kind of error at least %d", met.reasons,
		slices.Min(slices.Collect(maps.Values(met.forwarded))), slices.Min(slices.Collect(maps.Values(met.errorWays))),
		slices.Min(slices.Collect(maps.Values(met.errors))))
	for _, lack := range met.lacks(leastPerReason, leastPerCombination, leastErrors) {
		t.Errorf("too few frames to tell: %s", lack)
	}
}

// compareSeed compares frames and tables of one seed, and adds what they met.
func compareSeed(t *testing.T, seed uint64, met *coverage) {
	tables := frames.Tables(seed)
	process := func(frame []byte) model.Result {
		res := tables.Process(frame)
		met.add(tables, frame, res)
		return res
	}
	c, err := newComparison(process, load(t, tables))
	if err != nil {
		t.Fatal(err)
	}
	generator := newGenerator(tables, seed)
	start := time.Now()
	for n := 0; n < framesPerSeed && !t.Failed(); n += framesPerGroup {
		findings, err := c.group(next(generator, framesPerGroup))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range findings {
			report(t, tables, f.frame, f.differences)
		}
	}
	if !t.Failed() {
		t.Logf("%d frames are equal; %.0f frames/s", framesPerSeed, framesPerSeed/time.Since(start).Seconds())
	}
}

func newGenerator(tables *model.Tables, seed uint64) *frames.Generator {
	return frames.NewGenerator(rand.New(rand.NewPCG(seed, 0)), frames.Targets(tables)...)
}

func next(g *frames.Generator, n int) [][]byte {
	group := make([][]byte, n)
	for i := range group {
		group[i] = g.Next().Bytes
	}
	return group
}
