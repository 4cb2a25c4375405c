// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package governor

import (
	"net/netip"
	"testing"
	"time"

	"github.com/remora-lb/remora/test/require"
)

// TestRestartInAnOutage: the last known good backends are there at once, and what was held stays
// held until the source is heard again for as long as was left.
func TestRestartInAnOutage(t *testing.T) {
	b := newBed(t, testConfig())
	b.offer("1 2 3")
	b.offer("")
	b.wait(4 * time.Minute)
	b.fail(RuleNoLeader)
	b.wait(3 * time.Minute)
	b.fail(RuleNoLeader)
	b.restart()
	b.log = nil
	b.wait(time.Hour)
	b.want("1 2 3")
	b.wantHeld("empty 192.0.2.1", "empty 192.0.2.2", "empty 192.0.2.3", "unheard answer")
	b.fail(RuleUnreachable)
	b.wantLog("began unreachable answer")
	b.offer("")
	b.want("1 2 3")
	b.wait(6*time.Minute - 1)
	b.want("1 2 3")
	b.wait(1)
	b.want("")
}

// TestRestartIsNotToldOfHolds: what was told before the restart is not told again, nor is that the
// source was not heard yet.
func TestRestartIsNotToldOfHolds(t *testing.T) {
	b := newBed(t, testConfig())
	b.offer("1 2 3")
	b.offer("3")
	b.freeze(time.Hour)
	b.log = nil
	b.restart()
	b.offer("3")
	b.wantLog()
	b.wantHeld("freeze 192.0.2.2", "freeze service")
}

func TestRestartKeepsDampingAndRadius(t *testing.T) {
	b := newDamped(t)
	b.restart()
	b.wantHeld("damping 192.0.2.1", "unheard answer")
	b.offer(without(count(10), "2", "3"))
	b.want(without(count(10), "1", "2"))
	b.wantHeld("damping 192.0.2.1", "radius 192.0.2.3")
}

// newDamped has 10 backends, of which one is damped and another was just lost.
func newDamped(t *testing.T) *bed {
	t.Helper()
	b := newBed(t, testConfig())
	b.offer(count(10))
	for range 4 {
		b.offer(without(count(10), "1"))
		b.offer(count(10))
		b.wait(time.Minute)
	}
	b.offer(without(count(10), "2"))
	return b
}

// TestRestartAfterTheClockWasSetBack: nothing lasts longer than it would have.
func TestRestartAfterTheClockWasSetBack(t *testing.T) {
	b := newDamped(t)
	b.now = b.now.Add(-24 * time.Hour)
	b.restart()
	b.offer(count(10)) // holds are withdrawn, and a new step begins after a minute
	b.wait(time.Minute)
	b.offer(count(9))
	b.want(without(count(9), "1"))
	b.wait(15 * time.Minute)
	b.want(count(9))
}

func TestRefusedRecords(t *testing.T) {
	good := func() Record {
		return Record{At: start, Services: []ServiceRecord{{
			Source: "consul", Service: "web", Known: true, Accepted: parse(t, "1 2"), Offered: parse(t, "1"),
		}}}
	}
	if _, err := Restore(testConfig(), good(), start); err != nil {
		t.Fatal(err)
	}
	for want, spoil := range map[string]func(*Record){
		`Services[1]: "consul/web" is there twice`:                 func(r *Record) { r.Services = append(r.Services, r.Services[0]) },
		`Services[0]: the backends of "consul/web" are not valid`:  func(r *Record) { r.Services[0].Accepted = parse(t, "2 1") },
		`Services[0]: the backends of "consul/web" are not`:        func(r *Record) { r.Services[0].Offered = parse(t, "1 1") },
		`the backends of "consul/web" are not valid and sorted by`: func(r *Record) { r.Services[0].Offered = make([]Backend, 1) },
		`Services[0]: a change of 192.0.2.1 is held by rule none`: func(r *Record) {
			r.Services[0].Held = map[netip.Addr]HeldRecord{addrOf(t, "1"): {}}
		},
	} {
		r := good()
		spoil(&r)
		_, err := Restore(testConfig(), r, start)
		require.ErrorSays(t, err, "restore governor", want)
	}
	_, err := Restore(Config{}, good(), start)
	require.ErrorSays(t, err, "configure governor")
}
