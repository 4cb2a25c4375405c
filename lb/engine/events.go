// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"cmp"
	"fmt"
	"log/slog"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/event"
)

// emit tells what a pass changed. Of very many changes at once, as at the first start, only so many are
// told as are kept anyway; then one event says how many there were beside them.
func (e *Engine) emit(before, after Status) {
	list := changesOf(before, after)
	for i, one := range list {
		if i == event.Kept-1 {
			e.sink.Emit(event.Event{Kind: event.KindDataPlane, From: "wanted", To: "changed",
				Cause: fmt.Sprintf("%d more backends, rings and VIPs changed", len(list)-i)})
			return
		}
		e.sink.Emit(one)
	}
}

// emitSettled tells that what an earlier run left is held no more.
func (e *Engine) emitSettled(in inputs) {
	cause := "all sources have reported"
	if silent := in.silent(e.cfg.Sources); len(silent) > 0 || !in.servicesSet {
		cause = fmt.Sprintf("the time for sources to report is over; silent are %q", silent)
	}
	e.sink.Emit(event.Event{Kind: event.KindDataPlane, From: "adopted", To: "settled", Cause: cause})
}

// changesOf are the changes of state between two statuses, those of the data plane as a whole first.
func changesOf(before, after Status) (list []event.Event) {
	add := func(e event.Event) { list = append(list, e) }
	if e, changed := dataPlaneChange(before, after); changed {
		add(e)
	}
	none := ServiceStatus{}
	pairs(before.Services, after.Services, func(a, b *ServiceStatus) int { return cmp.Compare(a.Name, b.Name) }, func(a, b *ServiceStatus) {
		pairs(orZero(a, none).VIPs, orZero(b, none).VIPs, func(a, b *VIPStatus) int { return a.VIP.Compare(b.VIP) }, func(a, b *VIPStatus) {
			vipChanges(a, b, add)
		})
	})
	return list
}

// orZero is what p points to, or none.
func orZero[T any](p *T, none T) T {
	if p == nil {
		return none
	}
	return *p
}

// pairs calls f with the elements of two sorted lists that are the same, each with the other or nil.
func pairs[T any](a, b []T, compare func(a, b *T) int, f func(a, b *T)) {
	for len(a) > 0 || len(b) > 0 {
		order := 0
		switch {
		case len(a) == 0:
			order = 1
		case len(b) == 0:
			order = -1
		default:
			order = compare(&a[0], &b[0])
		}
		var x, y *T
		if order <= 0 {
			x, a = &a[0], a[1:]
		}
		if order >= 0 {
			y, b = &b[0], b[1:]
		}
		f(x, y)
	}
}

// dataPlaneChange tells when passes begin to fail, for what reason, and when they succeed again.
func dataPlaneChange(before, after Status) (event.Event, bool) {
	e := event.Event{Kind: event.KindDataPlane, From: "as wanted", To: "as wanted"}
	if before.LastError != "" {
		e.From = "failing"
	}
	if after.LastError != "" {
		e.To, e.Level, e.Cause = "failing", slog.LevelWarn, after.LastError
	}
	return e, e.From != e.To
}

// vipChanges tells what changed of a VIP, its ring and its reals.
func vipChanges(a, b *VIPStatus, add func(event.Event)) {
	var before, after VIPStatus
	switch {
	case a == nil:
		after = *b
		add(event.Event{Kind: event.KindVIP, Service: b.Service, VIP: b.VIP, From: "none", To: "present"})
	case b == nil:
		before = *a
	default:
		before, after = *a, *b
	}
	about := cmp.Or(after.Service, before.Service)
	vip := cmp.Or(after.VIP, before.VIP)
	pairs(before.Reals, after.Reals, compareReals, func(x, y *RealStatus) {
		if e, changed := realChange(x, y); changed {
			e.Service, e.VIP = about, vip
			add(e)
		}
	})
	if b == nil {
		add(event.Event{Kind: event.KindVIP, Service: a.Service, VIP: a.VIP, From: "present", To: "gone"})
		return
	}
	if e, changed := ringChange(before, after); changed {
		add(e)
	}
}

func compareReals(a, b *RealStatus) int {
	return cmp.Or(a.Backend.Addr.Compare(b.Backend.Addr), cmp.Compare(a.ID, b.ID))
}

// realChange tells when a real comes, goes, or gets other packets than before.
func realChange(a, b *RealStatus) (e event.Event, changed bool) {
	e.Kind = event.KindBackend
	switch {
	case a == nil:
		e.Real, e.From, e.To, e.Cause = b.Backend.Addr, "none", b.Use.String(), whyAbsent(b.Absence)
		return e, true
	case b == nil:
		e.Real, e.From, e.To, e.Cause = a.Backend.Addr, a.Use.String(), "gone", whyAbsent(a.Absence)
		return e, true
	}
	e.Real, e.From, e.To, e.Cause = b.Backend.Addr, a.Use.String(), b.Use.String(), whyAbsent(b.Absence)
	if b.Use != lb.RealActive && b.Absence.Cause == CauseDown {
		e.Level = slog.LevelWarn
	}
	if a.Absence.Cause != CauseNone && b.Absence.Cause == CauseNone {
		e.Cause = "no longer " + a.Absence.Cause.phrase()
	}
	return e, a.Use != b.Use || a.Absence.Cause != b.Absence.Cause
}

// phrase is the cause as part of a sentence: "it is down".
func (c Cause) phrase() string {
	return map[Cause]string{CauseDown: "down", CauseDrain: "drained by an operator", CauseWeight: "of weight 0", CauseRemoved: "removed"}[c]
}

// whyAbsent says why a real gets no new flows; empty if it does.
func whyAbsent(a Absence) string {
	if a.Cause == CauseNone {
		return ""
	}
	return fmt.Sprintf("%s; its flows have until %s", a.Cause.phrase(), a.Until.UTC().Format(time.RFC3339))
}

// ringChange tells when slots of a ring begin to change, and when all are stable again. Nothing is known of
// the slots of a ring that is held as a previous run left it, so its end is no change of them.
func ringChange(before, after VIPStatus) (event.Event, bool) {
	e := event.Event{Kind: event.KindRing, Service: after.Service, VIP: after.VIP, From: "stable", To: "stable"}
	if n := unstable(before); n > 0 {
		e.From = "changing"
	}
	n := unstable(after)
	if n > 0 {
		e.To, e.Cause = "changing", fmt.Sprintf("%d of %d slots", n, after.Ring.Size)
	}
	return e, e.From != e.To && !before.Held && !after.Held
}

func unstable(v VIPStatus) (n int) {
	for _, one := range v.States[lb.SlotStable+1:] {
		n += one
	}
	return n
}
