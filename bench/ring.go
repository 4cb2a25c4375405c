// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/dataplane"
	"github.com/remora-lb/remora/lb/maglev"
)

// RingOptions say which rings are built and published.
type RingOptions struct {
	// Sizes are numbers of slots, primes. Default 4093, 65537, 1048573.
	Sizes []uint32
	// Members are numbers of reals, each from 2 to 65536. Default 10, 100, 1000, 4000.
	Members []int
	// Rounds is how often each is measured, at least 1. Default 11.
	Rounds int
	// CPU and FIFO are as in Options.
	CPU  int
	FIFO bool
}

// DefaultRingOptions are the sizes and numbers of reals of docs/performance.md.
func DefaultRingOptions() RingOptions {
	return RingOptions{
		Sizes: []uint32{SmallRing, lb.DefaultRingSize, lb.MaxRingSize}, Members: []int{10, 100, 1000, 4000},
		Rounds: 11, CPU: -1, FIFO: true,
	}
}

// Validate reports all problems but those that maglev.Build finds.
func (o RingOptions) Validate() error {
	errs := []error{Options{Reloads: 1, Rounds: o.Rounds, CPU: o.CPU}.Validate()}
	if len(o.Sizes) == 0 || len(o.Members) == 0 {
		errs = append(errs, errors.New("no sizes or numbers of members"))
	}
	for _, n := range o.Sizes {
		if n > lb.MaxRingSize {
			errs = append(errs, fmt.Errorf("size: %d is more than %d", n, lb.MaxRingSize))
		}
	}
	for _, n := range o.Members {
		if n < 2 || n > 1<<16 {
			errs = append(errs, fmt.Errorf("members: %d is not between 2 and %d", n, 1<<16))
		}
	}
	return errors.Join(errs...)
}

// RingReport is what Ring has measured.
type RingReport struct {
	Head
	Rows []RingRow `json:"rows"`
}

// RingRow is one ring. All times are in ms.
type RingRow struct {
	Size     uint32 `json:"size"`
	Members  int    `json:"members"`
	Weighted bool   `json:"weighted"`
	// Build is the time to compute the slots.
	Build Spread `json:"build_ms"`
	// Full is the time to publish a ring whose slots all differ, Change one that lacks one real,
	// Same one that is already there.
	Full   Spread `json:"full_ms"`
	Change Spread `json:"change_ms"`
	Same   Spread `json:"same_ms"`
	// Changed is the number of slots that Change wrote.
	Changed int `json:"changed_slots"`
}

// Spread is the middle of some figures and what four of five of them lie between.
type Spread struct {
	P10    float64 `json:"p10"`
	Median float64 `json:"median"`
	P90    float64 `json:"p90"`
}

func newSpread(x []float64) Spread { return Spread{quantile(x, 0.1), median(x), quantile(x, 0.9)} }

// check adds a problem unless these are figures in order.
func (s Spread) check(c *checks, at string) {
	c.that(s.P10 <= s.Median && s.Median <= s.P90, "%s: %s is not in order", at, s)
	c.figure(at, s.P10)
	c.figure(at, s.P90)
}

func (s Spread) String() string {
	return fmt.Sprintf("%s (%s-%s)", fixed(s.Median, 3), fixed(s.P10, 3), fixed(s.P90, 3))
}

// Ring measures how long maglev.Build takes, and how long the data plane takes to write the slots
// where the packet program reads them. Needs root.
func Ring(ctx context.Context, o RingOptions) (RingReport, error) {
	if err := o.Validate(); err != nil {
		return RingReport{}, fmt.Errorf("measure rings: %w", err)
	}
	r := RingReport{Head: newHead(KindRing)}
	err := onThread(func() error {
		r.note(settle(o.CPU, o.FIFO)...)
		for _, size := range o.Sizes {
			for _, weighted := range []bool{false, true} {
				for _, n := range o.Members {
					row, err := measureRing(ctx, o.Rounds, size, n, weighted)
					if err != nil {
						return err
					}
					r.Rows = append(r.Rows, row)
				}
			}
		}
		return nil
	})
	r.end(err)
	if err != nil {
		return r, fmt.Errorf("measure rings: %w", err)
	}
	return r, nil
}

func measureRing(ctx context.Context, rounds int, size uint32, n int, weighted bool) (row RingRow, err error) {
	row = RingRow{Size: size, Members: n, Weighted: weighted}
	d, err := dataplane.Open(dataplane.Config{})
	if err != nil {
		return row, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	publish := func(slots []lb.Slot) func() {
		return func() {
			if err == nil {
				row.Changed, err = d.SetRing(0, slots)
			}
		}
	}
	ring, members := lb.Ring{Size: size}, ringMembers(n, weighted)
	fewer, err := maglev.Build(ring, members[:n-1])
	if err != nil {
		return row, err
	}
	var build, full, change, same []float64
	for range rounds {
		if err := ctx.Err(); err != nil {
			return row, err
		}
		var slots []lb.Slot
		build = append(build, milliseconds(func() { slots, err = maglev.Build(ring, members) }))
		if err != nil {
			return row, err
		}
		publish(make([]lb.Slot, size))() // and makes room, the first time
		full = append(full, milliseconds(publish(slots)))
		same = append(same, milliseconds(publish(slots)))
		change = append(change, milliseconds(publish(fewer)))
		if err != nil {
			return row, err
		}
	}
	row.Build, row.Full, row.Change, row.Same = newSpread(build), newSpread(full), newSpread(change), newSpread(same)
	return row, nil
}

func milliseconds(f func()) float64 {
	start := time.Now()
	f()
	return float64(time.Since(start).Nanoseconds()) / 1e6
}

// ringMembers returns n reals, of weight 1, or of weights from 1 to 100.
func ringMembers(n int, weighted bool) []maglev.Member {
	ms := make([]maglev.Member, n)
	for i := range ms {
		ms[i] = maglev.Member{ID: lb.RealID(i + 1), Addr: netip.AddrFrom4([4]byte{10, 201, byte(i >> 8), byte(i)}), Weight: 1}
		if weighted {
			ms[i].Weight = 1 + uint32(i*37%100)
		}
	}
	return ms
}

// Err implements Report: a ring that cannot be measured ends the measurement.
func (r RingReport) Err() error { return nil }

func (r RingReport) validate() error {
	var c checks
	c.that(len(r.Rows) > 0 || r.Interrupted, "rows: there are none")
	for i, row := range r.Rows {
		at := fmt.Sprintf("rows[%d]", i)
		c.that(row.Size > 1 && row.Members > 1, "%s: size or members is missing", at)
		for _, s := range []Spread{row.Build, row.Full, row.Change, row.Same} {
			s.check(&c, at)
		}
	}
	return c.err()
}

func (r RingReport) figures() []figure {
	var bars []bar
	for _, row := range r.Rows {
		if !row.Weighted {
			bars = append(bars, bar{label: fmt.Sprintf("%d slots, %d reals", row.Size, row.Members), value: row.Build.Median, least: row.Build.P10, most: row.Build.P90})
		}
	}
	return []figure{barChart("Building a ring, equal weights", "ms", 0, "", bars)}
}

func (r RingReport) sheet() sheet {
	t := table{header: []string{
		"slots", "reals", "weights", "build ms (p10-p90)", "publish all ms", "publish one real less ms", "slots of it", "publish nothing ms",
	}}
	for _, row := range r.Rows {
		weights := "equal"
		if row.Weighted {
			weights = "1 to 100"
		}
		t.rows = append(t.rows, []string{
			decimal(int(row.Size)), decimal(row.Members), weights, row.Build.String(), row.Full.String(), row.Change.String(),
			decimal(row.Changed), row.Same.String(),
		})
	}
	return r.Head.sheet(t)
}
