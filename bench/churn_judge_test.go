// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"net/netip"
	"testing"
	"time"
)

func TestAgeOf(t *testing.T) {
	const window = 10 * time.Second
	start := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		name     string
		from, to int // within which it began
		now      int
		changes  [][2]int
		want     Age
	}{
		{"no change ever", 0, 1, 50, nil, AgeQuiet},
		{"the only change is forgotten and came first", 20, 21, 50, [][2]int{{10, 11}}, AgeQuiet},
		{"the only change is forgotten and came later", 5, 6, 50, [][2]int{{10, 11}}, AgeOutlived},
		{"the only change is forgotten and may have come first", 10, 12, 50, [][2]int{{9, 11}}, AgeOutlived},
		{"forgotten at this moment", 5, 6, 21, [][2]int{{10, 11}}, AgeOutlived},
		{"not forgotten by all", 5, 6, 20, [][2]int{{10, 11}}, AgeOlder},
		{"before all", 5, 6, 19, [][2]int{{10, 11}, {15, 16}}, AgeOlder},
		{"between", 12, 13, 19, [][2]int{{10, 11}, {15, 16}}, AgeBetween},
		{"after all", 17, 18, 19, [][2]int{{10, 11}, {15, 16}}, AgeYounger},
		{"during the last", 14, 16, 19, [][2]int{{10, 11}, {15, 17}}, AgeBetween},
		{"during the first", 9, 10, 19, [][2]int{{10, 11}, {15, 16}}, AgeBetween},
		{"during one that is under way", 18, 19, 19, [][2]int{{18, 0}}, AgeBetween},
		{"outlived the first", 5, 6, 24, [][2]int{{10, 11}, {15, 16}, {20, 21}}, AgeOutlived},
		{"after the forgotten, before the others", 12, 13, 24, [][2]int{{10, 11}, {15, 16}, {20, 21}}, AgeOlder},
	} {
		t.Run(tc.name, func(t *testing.T) {
			at := func(s int) (at time.Time) {
				if s != 0 {
					at = start.Add(time.Duration(s) * time.Second)
				}
				return at
			}
			var changes []span
			for _, c := range tc.changes {
				changes = append(changes, span{at(c[0]), at(c[1])})
			}
			if got := ageOf(span{at(tc.from), at(tc.to)}, at(tc.now), changes, window); got != tc.want {
				t.Errorf("it is %q, want %q", got, tc.want)
			}
		})
	}
}

// judged is a judge of ten servers, of which one is in each state but active, and ten that were never
// there.
func judged(t *testing.T) *judge {
	t.Helper()
	s := newServers(10)
	err := s.change(func() {
		s.set(1, serverDrained)
		s.set(2, serverRemoved)
		s.set(3, serverDoubted)
		s.set(4, serverDown)
	}, func(Fleet) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return &judge{servers: s, window: 10 * time.Second, start: time.Now(), tally: newTally()}
}

func TestJudgePacket(t *testing.T) {
	at := func(sent, back int) burst {
		return burst{sent: time.Duration(sent) * time.Second, back: time.Duration(back) * time.Second}
	}
	const nowhere, unknown = -1, 1000
	for _, tc := range []struct {
		name  string
		flow  flow
		to    int
		at    burst
		cause Cause
		again bool
	}{
		{"begins at an active server", flow{server: -1}, 0, at(5, 6), "", false},
		{"begins at a drained one", flow{server: -1}, 1, at(5, 6), CauseStranger, false},
		{"begins at a removed one", flow{server: -1}, 2, at(5, 6), CauseStranger, false},
		{"begins at one that is down", flow{server: -1}, 4, at(5, 6), CauseStranger, false},
		{"begins at one that was never there", flow{server: -1}, 12, at(5, 6), CauseStranger, false},
		{"begins at an unknown address", flow{server: -1}, unknown, at(5, 6), CauseStranger, false},
		{"goes on", flow{server: 0, state: flowGoesOn}, 0, at(5, 6), "", false},
		{"goes on at a removed server", flow{server: 2, state: flowGoesOn}, 2, at(5, 6), "", false},
		{"leaves an active server", flow{server: 5, state: flowGoesOn}, 0, at(5, 6), CauseMoved, false},
		{"leaves a drained one", flow{server: 1, state: flowGoesOn}, 0, at(5, 6), CauseMoved, false},
		{"leaves a removed one", flow{server: 2, state: flowEnds}, 0, at(5, 6), CauseMoved, false},
		{"leaves one that has time to come back", flow{server: 3, state: flowGoesOn}, 0, at(5, 6), CauseMoved, false},
		{"leaves one that is down", flow{server: 4, state: flowGoesOn}, 0, at(5, 6), CauseKilled, false},
		{"goes to one that was never there", flow{server: 5, state: flowGoesOn}, 12, at(5, 6), CauseStranger, false},
		{"goes to an unknown address", flow{server: 5, state: flowGoesOn}, unknown, at(5, 6), CauseStranger, false},
		{"silent for a window", flow{server: 5, state: flowGoesOn}, 0, at(9, 10), CauseSilent, false},
		{"silent, and goes on", flow{server: 5, state: flowGoesOn}, 5, at(9, 10), "", false},
		{"lost", flow{server: 5, state: flowGoesOn}, nowhere, at(5, 6), "", true},
		{"lost too often", flow{server: 5, state: flowGoesOn, tries: maxTries - 1}, nowhere, at(5, 6), CauseDropped, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			j, f := judged(t), tc.flow
			var to netip.Addr
			switch tc.to {
			case nowhere:
			case unknown:
				to = netip.MustParseAddr("192.0.2.1")
			default:
				to = j.servers.all[tc.to].addr
			}
			cause, again := j.packet(&f, to, tc.at)
			if cause != tc.cause || again != tc.again {
				t.Errorf("cause %q, again %v; want %q, %v", cause, again, tc.cause, tc.again)
			}
			if f.last != tc.at.sent {
				t.Errorf("its last packet was at %v", f.last)
			}
		})
	}
}

// What was true while the packets were under way counts for them.
func TestJudgeDuringChange(t *testing.T) {
	j := judged(t)
	at := burst{sent: time.Since(j.start), back: time.Since(j.start)}
	err := j.servers.change(func() { j.servers.set(0, serverDown); j.servers.set(4, serverActive) }, func(Fleet) error {
		at := burst{sent: time.Since(j.start), back: time.Since(j.start)}
		if cause := j.newcomer(0, at); cause != "" {
			t.Errorf("a flow that begins where it still may is %q", cause)
		}
		if cause := j.elsewhere(4, 5, false, at); cause != CauseKilled {
			t.Errorf("a flow of a server that was down is %q", cause)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if cause := j.newcomer(0, at); cause != "" {
		t.Errorf("after the change, a flow that began before is %q", cause)
	}
	later := burst{sent: time.Since(j.start) + time.Second}
	if cause := j.newcomer(0, later); cause != CauseStranger {
		t.Errorf("a later flow is %q", cause)
	}
	if cause := j.elsewhere(4, 5, false, later); cause != CauseMoved {
		t.Errorf("a later packet elsewhere is %q", cause)
	}
}

func TestJudgeKeepsAgeOfLoss(t *testing.T) {
	j := judged(t)
	second := func(n int) burst {
		return burst{sent: time.Duration(n) * time.Second, back: time.Duration(n) * time.Second}
	}
	j.servers.changes = []span{{j.start.Add(4 * time.Second), j.start.Add(5 * time.Second)}}
	flows := []flow{{server: 0, began: second(1)}, {server: 0, began: second(6)}, {server: -1}}
	j.loss(flows, 7*time.Second)
	flows[2].server, flows[2].began = 0, second(8)
	for i := range flows {
		j.broke(&flows[i], CauseMoved, burst{sent: 20 * time.Second})
	}
	want := map[Age]uint64{AgeOlder: 1, AgeYounger: 1}
	for _, age := range Ages() {
		if j.tally.live[age] != want[age] {
			t.Errorf("%d flows are %s, want %d", j.tally.live[age], age, want[age])
		}
	}
	if m := j.tally.moved; m[AgeOlder] != 1 || m[AgeYounger] != 1 || m[AgeQuiet] != 1 || j.tally.broken[CauseMoved] != 3 {
		t.Errorf("moved by age: %v", m)
	}
}

func TestFleet(t *testing.T) {
	j := judged(t)
	f := j.servers.fleet()
	if len(f.Backends) != 9 || len(f.Drains) != 1 || f.Drains[0] != j.servers.all[1].addr {
		t.Errorf("fleet is %+v", f)
	}
	for _, b := range f.Backends {
		i := j.servers.index(b.Addr)
		if i == 2 || i > 9 || b.Down != (i == 3 || i == 4) {
			t.Errorf("server %d is in it, down %v", i, b.Down)
		}
	}
}
