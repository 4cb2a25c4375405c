// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"net/netip"
	"time"
)

// Cause is why a flow is broken.
type Cause string

// The causes. All but the last two break a promise.
const (
	// CauseMoved is a packet that went to another server, though the flow's own is still there, or
	// draining.
	CauseMoved Cause = "moved"
	// CauseStranger is a packet that went to a server that is not configured, or that began a flow at
	// one that takes no new ones.
	CauseStranger Cause = "stranger"
	// CauseDropped is a packet that did not come back though it was sent several times.
	CauseDropped Cause = "dropped"
	// CauseKilled is a packet that went to another server, since the flow's own is down.
	CauseKilled Cause = "killed"
	// CauseSilent is a flow that was silent for a window, since the machine was too busy to send its
	// packets in time. It is not judged.
	CauseSilent Cause = "silent"
)

// Age is how old a flow is relative to the changes within the window.
type Age string

// The ages.
const (
	// AgeQuiet: there was no change within the window.
	AgeQuiet Age = "no change"
	// AgeOlder began before the changes within the window, and since it did there were no others.
	AgeOlder Age = "older than the changes"
	// AgeBetween began between them.
	AgeBetween Age = "between the changes"
	// AgeYounger began after the last of them.
	AgeYounger Age = "younger than the changes"
	// AgeOutlived has seen a change that the window has forgotten.
	AgeOutlived Age = "outlived a change"
)

// Ages are all of them.
func Ages() []Age { return []Age{AgeQuiet, AgeOlder, AgeBetween, AgeYounger, AgeOutlived} }

// span is from when to when something may have happened.
type span struct{ from, to time.Time }

// ageOf is the age at a time of a flow that began within a span. The spans of the changes are from when
// they were asked for until the last balancer had them, with no end while one has not. A change that may
// have come before the beginning or after it counts as both.
func ageOf(began span, now time.Time, changes []span, window time.Duration) Age {
	forgotten := now.Add(-window)
	within, before, after := false, false, false
	for _, c := range changes {
		done := !c.to.IsZero()
		later := !done || c.to.After(began.from)
		if done && !c.to.After(forgotten) {
			if later {
				return AgeOutlived
			}
			continue
		}
		within = true
		before = before || !c.from.After(began.to)
		after = after || later
	}
	switch {
	case !within:
		return AgeQuiet
	case !before:
		return AgeOlder
	case !after:
		return AgeYounger
	}
	return AgeBetween
}

// tally is what was counted of one run.
type tally struct {
	flows, packets, flood uint64
	// lost are packets that did not come back, each try of one.
	lost   uint64
	broken map[Cause]uint64
	moved  map[Age]uint64 // by cause CauseMoved
	// live is how many flows of each age there were when a balancer was lost.
	live map[Age]uint64
}

func newTally() tally {
	return tally{broken: make(map[Cause]uint64), moved: make(map[Age]uint64), live: make(map[Age]uint64)}
}

// judge says of each packet whether it went the right way.
type judge struct {
	servers *servers
	window  time.Duration
	start   time.Time
	tally   tally
}

// burst is when packets were sent, and when the last of them was back.
type burst struct{ sent, back time.Duration }

// packet judges one that came back for the server to; or did not, if that is invalid. It returns why
// the flow is broken, or that the packet is to be sent again. The mutex of the servers is held.
func (j *judge) packet(f *flow, to netip.Addr, at burst) (cause Cause, again bool) {
	silent := f.server >= 0 && at.back-f.last >= j.window
	f.last = at.sent
	if !to.IsValid() {
		j.tally.lost++
		if f.tries++; f.tries < maxTries {
			return "", true
		}
		return CauseDropped, false
	}
	f.tries = 0
	i := j.servers.index(to)
	if f.state == flowBegins {
		f.began, f.server = at, int32(i)
		j.tally.flows++
		return j.newcomer(i, at), false
	}
	if i == int(f.server) {
		return "", false
	}
	return j.elsewhere(int(f.server), i, silent, at), false
}

// newcomer judges where a flow begins.
func (j *judge) newcomer(i int, at burst) Cause {
	active := func(s serverState) bool { return s == serverActive }
	if i < 0 || !j.servers.was(i, j.start.Add(at.sent), active) {
		return CauseStranger
	}
	return ""
}

// elsewhere judges a packet that went to another server than its flow's own.
func (j *judge) elsewhere(own, other int, silent bool, at burst) Cause {
	since := j.start.Add(at.sent)
	present := func(s serverState) bool { return s != serverAbsent }
	gone := func(s serverState) bool { return !s.keepsFlows() }
	switch {
	case other < 0 || !j.servers.was(other, since, present):
		return CauseStranger
	case silent:
		return CauseSilent
	case j.servers.was(own, since, gone):
		return CauseKilled
	}
	return CauseMoved
}

// flood judges packets that begin flows which do not go on.
func (j *judge) flood(to []netip.Addr, at burst) {
	j.tally.flood += uint64(len(to))
	for _, addr := range to {
		if !addr.IsValid() {
			j.tally.lost++
		} else if cause := j.newcomer(j.servers.index(addr), at); cause != "" {
			j.tally.broken[cause]++
		}
	}
}

// broke counts a broken flow. Those that lived when a balancer was lost have the age that they had
// then.
func (j *judge) broke(f *flow, cause Cause, at burst) {
	j.tally.broken[cause]++
	if cause != CauseMoved {
		return
	}
	age := f.age
	if age == "" {
		age = j.age(f, at.sent)
	}
	j.tally.moved[age]++
}

func (j *judge) age(f *flow, now time.Duration) Age {
	began := span{j.start.Add(f.began.sent), j.start.Add(f.began.back)}
	return ageOf(began, j.start.Add(now), j.servers.changes, j.window)
}

// loss has all flows keep the age that they have now. The mutex of the servers is held.
func (j *judge) loss(flows []flow, now time.Duration) {
	for i := range flows {
		if f := &flows[i]; f.server >= 0 {
			f.age = j.age(f, now)
			j.tally.live[f.age]++
		}
	}
}
