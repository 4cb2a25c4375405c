// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/maglev"
	"github.com/remora-lb/remora/lb/transition"
)

// hasMonotonic tells whether a time has a reading of the clock that nobody sets.
func hasMonotonic(t time.Time) bool { return t != t.Round(0) }

func TestAnchored(t *testing.T) {
	now := time.Now()
	for _, tc := range []struct {
		name string
		ago  time.Duration // of what was read
		want time.Duration
	}{
		{"a minute ago", time.Minute, time.Minute},
		{"just now", 0, 0},
		{"of the future", -time.Hour, 0},
		{"older than the window", time.Hour, 15 * time.Minute},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := anchored(now, now.Round(0).Add(-tc.ago), 15*time.Minute)
			if !hasMonotonic(got) || now.Sub(got) != tc.want {
				t.Errorf("%v ago, want %v; monotonic: %v", now.Sub(got), tc.want, hasMonotonic(got))
			}
		})
	}
}

func TestAnchoredDrain(t *testing.T) {
	now := time.Now()
	for _, tc := range []struct {
		name                 string
		since, until         time.Duration // from now, as read
		wantSince, wantUntil time.Duration
	}{
		{name: "half done", since: -time.Minute, until: time.Minute, wantSince: -time.Minute, wantUntil: time.Minute},
		{name: "over", since: -2 * time.Hour, until: -time.Hour, wantSince: -2 * time.Hour, wantUntil: -time.Hour},
		{name: "the clock was set back", since: 5 * time.Hour, until: 6 * time.Hour, wantSince: 0, wantUntil: time.Hour},
		{name: "the clock was set forward", since: -6 * time.Hour, until: -5 * time.Hour, wantSince: -6 * time.Hour, wantUntil: -5 * time.Hour},
		{name: "ends before it begins", since: 0, until: -time.Hour, wantSince: 0, wantUntil: -time.Hour},
	} {
		t.Run(tc.name, func(t *testing.T) {
			wall := now.Round(0)
			d := Drain{Since: wall.Add(tc.since), Until: wall.Add(tc.until)}.Anchored(now)
			if got := d.Since.Sub(now); got != tc.wantSince || !hasMonotonic(d.Since) {
				t.Errorf("it began at %v, want %v; monotonic: %v", got, tc.wantSince, hasMonotonic(d.Since))
			}
			if got := d.Until.Sub(now); got != tc.wantUntil || !hasMonotonic(d.Until) {
				t.Errorf("it ends at %v, want %v; monotonic: %v", got, tc.wantUntil, hasMonotonic(d.Until))
			}
		})
	}
}

func TestSetsWithin(t *testing.T) {
	now := time.Now()
	set := func(minutesAgo int, weight uint32) SetMemory {
		return SetMemory{
			Since:   now.Round(0).Add(-time.Duration(minutesAgo) * time.Minute),
			Members: []MemberMemory{{netip.MustParseAddr("10.0.0.1"), weight}},
		}
	}
	for _, tc := range []struct {
		name string
		sets []SetMemory
		want string // minutes ago and weight
	}{
		{name: "none"},
		{name: "all within the window", sets: []SetMemory{set(10, 1), set(5, 2)}, want: "10:1 5:2"},
		{name: "of those that are older the last", sets: []SetMemory{set(90, 1), set(80, 2), set(20, 3), set(5, 4)}, want: "15:3 5:4"},
		{name: "all are older", sets: []SetMemory{set(90, 1), set(80, 2)}, want: "15:2"},
		{name: "equal neighbours", sets: []SetMemory{set(10, 1), set(9, 1), set(8, 2), set(7, 1)}, want: "10:1 8:2 7:1"},
		{name: "of the future", sets: []SetMemory{set(10, 1), set(-5, 2)}, want: "10:1 0:2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, ok := setsWithin(now, 15*time.Minute, tc.sets)
			var text []string
			for _, s := range got {
				if !hasMonotonic(s.Since) {
					t.Errorf("%v is by the wall clock", s.Since)
				}
				text = append(text, fmt.Sprintf("%.0f:%d", now.Sub(s.Since).Minutes(), s.Members[0].Weight))
			}
			if !ok || strings.Join(text, " ") != tc.want {
				t.Errorf("%v, %q, want %q", ok, text, tc.want)
			}
		})
	}
	if _, ok := setsWithin(now, 15*time.Minute, make([]SetMemory, mostSets+1)); ok {
		t.Error("too many sets are taken")
	}
}

// leftOf is a ring that was left in the middle of a change, with sets that tell how.
func leftOf(t *testing.T, now time.Time) (leftRing, []lb.Slot) {
	t.Helper()
	spec := lb.Ring{Size: 53}
	var reals []lb.Real
	var members []maglev.Member
	var memories []MemberMemory
	for i := range lb.RealID(3) {
		b := lb.Backend{Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), Weight: 1}
		reals = append(reals, lb.Real{ID: i + 1, Backend: b})
		members = append(members, maglev.Member{ID: i + 1, Addr: b.Addr, Weight: 1})
		memories = append(memories, MemberMemory{b.Addr, 1})
	}
	reals[0].Use = lb.RealDraining
	before, err := maglev.Build(spec, members)
	if err != nil {
		t.Fatal(err)
	}
	choice, err := maglev.Build(spec, members[1:])
	if err != nil {
		t.Fatal(err)
	}
	h := transition.New(before)
	h.Change(now, choice)
	slots := h.Slots(func(lb.RealID) bool { return true })
	return leftRing{
		spec: spec, reals: reals, slots: func() []lb.Slot { return slots },
		sets: []SetMemory{{now.Add(-2 * time.Hour), memories}, {now.Add(-10 * time.Minute), memories[1:]}},
	}, choice
}

// TestReplayIsBounded: what exceeds the budget, or a context that ends, leaves what the slots say.
func TestReplayIsBounded(t *testing.T) {
	now := time.Now()
	left, choice := leftOf(t, now)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tc := range []struct {
		name    string
		ctx     context.Context
		left    int // of the budget
		guessed bool
		after   int
	}{
		{name: "enough", ctx: t.Context(), left: 2*53 + 5, after: 0},
		{name: "not enough", ctx: t.Context(), left: 2*53 + 4, guessed: true, after: 2*53 + 4},
		{name: "ended", ctx: ended, left: 1000, guessed: true, after: 1000 - 2*53 - 5},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := budget{tc.left}
			p := left.restore(tc.ctx, &b, now, 15*time.Minute, choice)
			if p == nil || p.guessed.IsZero() == tc.guessed || b.left != tc.after {
				t.Fatalf("past %+v, budget left %d, want guessed %v and %d", p, b.left, tc.guessed, tc.after)
			}
			if !p.explains(left.slots(), receivers(usesOf(left.reals))) {
				t.Error("packets go elsewhere")
			}
			expires, _ := p.history.Expires(15 * time.Minute)
			want := 5 * time.Minute
			if tc.guessed {
				want = 15 * time.Minute
			}
			if got := expires.Sub(now); got != want {
				t.Errorf("it expires in %v, want %v", got, want)
			}
		})
	}
}

// TestPlanEndsWithItsContext: and is made anew afterwards.
func TestPlanEndsWithItsContext(t *testing.T) {
	e, err := New(DefaultConfig(), sink{}, sink{})
	if err != nil {
		t.Fatal(err)
	}
	vip := lb.ServiceVIP{VIP: lb.VIP{Addr: netip.MustParseAddr("192.0.2.1"), Port: 80, Protocol: lb.TCP}, Ring: lb.Ring{Size: 53}}
	e.SetServices([]lb.Service{{Name: "web", VIPs: []lb.ServiceVIP{vip}}})
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	if err := e.pass(ctx); err == nil || !strings.Contains(err.Error(), "plan changes: enough") {
		t.Errorf("error %v", err)
	}
	if err := e.pass(t.Context()); err != nil || len(e.have.vips) != 1 {
		t.Errorf("afterwards: error %v, VIPs %v", err, e.have.vips)
	}
}

// TestRestoredTimesDoNotFollowTheWallClock: windows and deadlines of an earlier run are as long as they
// were, whatever becomes of the wall clock.
func TestRestoredTimesDoNotFollowTheWallClock(t *testing.T) {
	wall := time.Now().Round(0)
	vip := lb.VIP{Addr: netip.MustParseAddr("192.0.2.1"), Port: 80, Protocol: lb.TCP}
	left, choice := leftOf(t, wall)
	cfg := DefaultConfig()
	for i := range left.reals {
		left.reals[i].VIP = vip
	}
	cfg.Adopted = Adopted{
		Reals: left.reals,
		VIPs:  []lb.VIPEntry{{VIP: vip, Ring: left.spec}},
		Slots: func(lb.RingID) []lb.Slot { return left.slots() },
		Memory: &Memory{VIPs: []VIPMemory{{
			VIP: vip, Size: left.spec.Size, Hash: left.spec.Hash.String(), Sets: left.sets, Renumbered: wall.Add(-time.Minute),
			Absent: []AbsenceMemory{{Backend: left.reals[0].Backend.Addr, Cause: CauseRemoved, Since: wall, Until: wall.Add(time.Hour)}},
		}}},
	}
	e, err := New(cfg, sink{}, sink{})
	if err != nil {
		t.Fatal(err)
	}
	a := e.absences.of[keyOf(left.reals[0])]
	if a.Cause != CauseRemoved || !hasMonotonic(a.Since) || !hasMonotonic(a.Until) {
		t.Errorf("the absence is %+v", a)
	}
	restored := e.pasts.left[vip]
	p := restored.restore(t.Context(), &e.pasts.replays, time.Now(), cfg.Window, choice)
	expires, _ := p.history.Expires(0)
	if !p.guessed.IsZero() || !hasMonotonic(expires) || !hasMonotonic(p.renumbered) {
		t.Errorf("the past is %+v", p)
	}
	for _, set := range p.sets {
		if !hasMonotonic(set.since) {
			t.Errorf("a set is since %v", set.since)
		}
	}
}

// TestMemoryIsBoundedBySlots has backends of a great ring flap: few of them, or many of a small share.
func TestMemoryIsBoundedBySlots(t *testing.T) {
	const size, window = 65537, 15 * time.Minute
	spec := lb.Ring{Size: size}
	now := time.Now()
	var p *past
	for i := range 60 {
		var members []maglev.Member
		for m := range 4 {
			// Each change moves a third of all slots or so.
			members = append(members, maglev.Member{ID: lb.RealID(m + 1), Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(m)}), Weight: uint32(1 + 40*(i>>m%2&1))})
		}
		choice, err := maglev.Build(spec, members)
		if err != nil {
			t.Fatal(err)
		}
		at := now.Add(time.Duration(i) * window / 60)
		if p == nil {
			p = &past{spec: spec, history: transition.New(choice), sets: []memberSet{{at, members}}}
			continue
		}
		if p.history.Change(at, choice) {
			p.sets = append(p.sets, memberSet{at, members})
			p.coalesce(window)
		}
		if kept := p.history.Kept(); kept > keptPerSlot*size {
			t.Fatalf("after %d changes %d slots are kept", i, kept)
		}
	}
	if len(p.sets) < 3 {
		t.Errorf("only %d sets are kept", len(p.sets))
	}
}
