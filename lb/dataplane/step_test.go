// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/attach"
	"github.com/remora-lb/remora/test/require"
)

// stepBed is a lab in which something is done that consists of steps.
type stepBed struct {
	*lab
	// d is held by what is done to a data plane that is open; else nil.
	d     *Dataplane
	reals int // that were reserved last
}

// start opens a data plane that an earlier run may have left, fills it, attaches it and closes it.
func (b *stepBed) start(f faults) error {
	config := b.config("lb0", attach.Auto)
	config.faults = f
	d, err := Open(config)
	if err != nil {
		return err
	}
	defer d.Close()
	if _, vips := d.Adopted(); len(vips) == 0 {
		if err := d.Reserve(capacityOf(1, 0, 100, 70000)); err != nil {
			return err
		}
		fill(b.T, d, web())
	}
	return d.Attach()
}

// grow makes room for more, at each call.
func (b *stepBed) grow(f faults) error {
	b.d.cfg.faults, b.d.pins.faults = f, f
	b.reals = 2*b.reals + 1000
	return b.d.Reserve(capacityOf(1, 0, b.reals, 0))
}

func (b *stepBed) leave() { require.NoError(b.T, b.start(nil)) }

var errInjected = errors.New("injected fault")

// TestFailingSteps lets each step fail of all that puts a generation to use. What forwarded before goes on,
// with the pins that it had, or its successor does; and the next try completes it.
func TestFailingSteps(t *testing.T) {
	for _, tt := range []struct {
		name   string
		before func(*stepBed)
		do     func(*stepBed, faults) error
		// steps are all, in the order in which they first come.
		steps []step
		// makesUp says that a failure to point to the generation is made up for later, and is no error.
		makesUp bool
	}{
		{
			"first start", func(*stepBed) {}, (*stepBed).start,
			[]step{stepMake, stepFill, stepCount, stepPin, stepAttach, stepPinLink, stepDescribe, stepPoint}, false,
		},
		{
			"start with what was left", (*stepBed).leave, (*stepBed).start,
			[]step{stepMake, stepFill, stepPin, stepCount, stepUpdate, stepPoint, stepRemove}, true,
		},
		{
			"start with what the schema before left", func(b *stepBed) {
				b.leave()
				b.toSchemaBefore()
			}, (*stepBed).start,
			[]step{stepMake, stepFill, stepPin, stepCount, stepUpdate, stepPoint, stepRemove}, true,
		},
		{
			"start after one that was cut off", func(b *stepBed) {
				require.ErrorSays(b.T, b.start(failLast(stepDescribe, 1)), errInjected.Error())
			}, (*stepBed).start,
			[]step{stepMake, stepFill, stepCount, stepPin, stepUpdate, stepDescribe, stepPoint, stepRemove}, false,
		},
		{
			"growth", func(b *stepBed) { b.d = b.attached("lb0", attach.Auto) }, (*stepBed).grow,
			[]step{stepMake, stepFill, stepPin, stepCount, stepUpdate, stepPoint, stepRemove}, true,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			steps, counts := recordSteps(t, tt.before, tt.do)
			wantEqual(t, "steps", steps, tt.steps)
			for _, s := range steps {
				t.Run(string(s), func(t *testing.T) {
					b := &stepBed{lab: newLab(t)}
					tt.before(b)
					b.tryFailing(s, counts[s], tt.makesUp && s == stepPoint, func(f faults) error { return tt.do(b, f) })
				})
			}
		})
	}
}

// recordSteps does it without a fault, and returns the steps and how often each came.
func recordSteps(t *testing.T, before func(*stepBed), do func(*stepBed, faults) error) (steps []step, counts map[step]int) {
	t.Helper()
	counts = make(map[step]int)
	t.Run("no fault", func(t *testing.T) {
		b := &stepBed{lab: newLab(t)}
		before(b)
		require.NoError(t, do(b, func(s step) error {
			if counts[s]++; counts[s] == 1 {
				steps = append(steps, s)
			}
			return nil
		}))
		b.wantComplete()
	})
	return steps, counts
}

// failLast lets a step fail when it comes for the n-th time, and not again.
func failLast(s step, n int) faults {
	return func(at step) error {
		if at == s {
			if n--; n == 0 {
				return errInjected
			}
		}
		return nil
	}
}

// tryFailing does something with a fault, which is an error unless it is tolerated, and then without.
func (b *stepBed) tryFailing(s step, n int, tolerated bool, do func(faults) error) {
	b.Helper()
	tree, program := b.tree(), b.programID()
	err := do(failLast(s, n))
	if tolerated {
		require.NoError(b.T, err)
	} else {
		require.ErrorSays(b.T, err, errInjected.Error())
	}
	switch replaced := slices.Contains([]step{stepDescribe, stepPoint, stepRemove}, s); {
	case !replaced:
		wantEqual(b.T, "pins", b.tree(), tree)
		if now := b.programID(); now != program {
			b.Errorf("the interface runs program %d, want %d as before", now, program)
		}
	case b.programID() == program:
		b.Errorf("the interface still runs program %d", program)
	}
	if program != 0 {
		b.wantForwarding("lb0")
	}
	require.NoError(b.T, do(nil))
	b.wantComplete()
}

// programID is that of what the interface runs; 0 if nothing.
func (b *stepBed) programID() ebpf.ProgramID {
	b.Helper()
	if p := b.program("lb0"); p != nil {
		return programID(p)
	}
	return 0
}

// wantComplete demands that the interface forwards, and that what is pinned is its generation, no more.
func (b *stepBed) wantComplete() {
	b.Helper()
	b.wantForwarding("lb0")
	to, err := os.Readlink(b.pin("maps"))
	require.NoError(b.T, err)
	number, err := strconv.Atoi(filepath.Base(filepath.Dir(to)))
	require.NoError(b.T, err)
	wantEqual(b.T, "pins", b.tree(), pinTree("lb0", number))
	if s := b.snapshot(); s.Interface != "lb0" || s.Mode != attach.Native {
		b.Errorf("snapshot of %q in %v mode", s.Interface, s.Mode)
	}
}

// What could not be pointed to is readable by the pins of before, until the next pass.
func TestPointedLater(t *testing.T) {
	l := newLab(t)
	d := l.attached("lb0", attach.Auto)
	room := capacityOf(1, 0, 0, 300_000) // which shares the counters
	d.pins.faults = failLast(stepPoint, 1)
	require.NoError(t, d.Reserve(room))
	l.wantForwarding("lb0")
	if s := l.snapshot(); s.Reasons[lb.ReasonForwarded] != 1 {
		t.Errorf("%d packets forwarded by the pins of before, want 1", s.Reasons[lb.ReasonForwarded])
	}
	require.NoError(t, d.Reserve(room))
	(&stepBed{lab: l}).wantComplete()
}
