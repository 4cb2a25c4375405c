// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package governor

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/require"
)

func TestFirstAnswerIsTakenWhole(t *testing.T) {
	for name, list := range map[string]string{
		"backends":   "1 2*7 3/drain 4/down",
		"empty":      "",
		"all down":   "1/down 2/down",
		"all drain":  "1/drain",
		"no weights": "1*0 2*0",
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, testConfig())
			b.offer(list)
			b.want(list)
			b.wantHeld()
			b.wantLog()
		})
	}
}

func TestNothingIsKnownBeforeAWholeAnswer(t *testing.T) {
	b := newBed(t, testConfig())
	b.fail(RuleNoLeader)
	s, ok := b.g.Service(Key{"consul", "web"})
	if !ok || s.Known || s.Refused != RuleNoLeader {
		t.Errorf("got %+v, %t", s, ok)
	}
	b.wantHeld("no_leader answer")
	b.offer("")
	b.want("")
	b.wantLog("began no_leader answer", "gone no_leader answer")
}

func TestWhatIsLetThroughAtOnce(t *testing.T) {
	for name, c := range map[string]struct{ from, to string }{
		"nothing":                          {"1 2", "1 2"},
		"addition":                         {"1 2", "1 2 3 4 5*100"},
		"addition to none":                 {"", "1 2"},
		"more weight":                      {"1 2", "1*5 2*9"},
		"end of a drain":                   {"1 2/drain", "1 2"},
		"return from down":                 {"1 2/down 3/down", "1 2 3"},
		"one backend of many":              {count(10), count(9)},
		"one backend of two":               {"1 2", "1"},
		"one backend of most weight":       {"1*90 2 3", "2 3"},
		"two backends of a fifth":          {count(10), count(8)},
		"drains of a fifth":                {count(5), "1/drain 2 3 4 5"},
		"down of a fifth":                  {count(5), "1/down 2 3 4 5"},
		"less weight within the radius":    {"1*10 2*10 3*10", "1*8 2*8 3*8"},
		"deregistered after its drain":     {"1 2/drain 3/drain 4/drain", "1"},
		"down instead of drain":            {"1 2/drain 3/drain", "1 2/down 3/down"},
		"drain of one that was down":       {"1 2/down 3/down", "1 2/drain 3/drain"},
		"removal of those that were down":  {"1 2/down 3/down", "1"},
		"weight of those without flows":    {"1 2*9/drain 3*9/down", "1 2*1/drain 3*1/down"},
		"one for one, and many additional": {"1 2", "1 3 4 5"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, testConfig())
			b.offer(c.from)
			b.offer(c.to)
			b.want(format(parse(t, c.to)))
			b.wantHeld()
		})
	}
}

func TestBlastRadius(t *testing.T) {
	for name, c := range map[string]struct {
		from, to string
		accepted string
		held     []string
	}{
		"half a list":                    {count(10), "6 7 8 9 10", "3 4 5 6 7 8 9 10", []string{"3", "4", "5"}},
		"a drain before what vanished":   {count(5), "4/drain 5", "1 2 3 4/drain 5", []string{"1", "2", "3"}},
		"weight of a few":                {"1*90 2*90 3 4", "3 4", "2*90 3 4", []string{"2"}},
		"less weight":                    {"1*10 2*10 3*10", "1 2 3", "1 2*10 3*10", []string{"2", "3"}},
		"another fleet":                  {"1 2 3", "4 5 6", "2 3 4 5 6", []string{"2", "3"}},
		"base without what is new":       {"1 2 3", "3 4*100", "2 3 4*100", []string{"2"}},
		"all but one without weight":     {"1 2 3", "1*0 2*0 3", "1*0 2 3", []string{"2"}},
		"a drain, though many end drain": {"1 2 3/drain 4/drain", "1/drain 2", "1/drain 2", nil},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, testConfig())
			b.offer(c.from)
			b.offer(c.to)
			b.want(c.accepted)
			var held, began, expired []string
			for _, name := range c.held {
				held = append(held, "radius 192.0.2."+name)
				began = append(began, "began radius 192.0.2."+name)
				expired = append(expired, "expired radius 192.0.2."+name)
			}
			b.wantHeld(held...)
			b.wantLog(began...)
			b.offer(c.to) // changes nothing, and is not told again
			b.want(c.accepted)
			b.wait(5*time.Minute - 1)
			b.want(c.accepted)
			b.wantLog()
			b.wait(1)
			b.want(format(parse(t, c.to)))
			b.wantHeld()
			b.wantLog(expired...)
		})
	}
}

// TestRadiusIsForAStep: answers that follow each other take away no more than one.
func TestRadiusIsForAStep(t *testing.T) {
	b := newBed(t, testConfig())
	b.offer(count(20))
	for n := 19; n > 10; n-- {
		b.offer(count(n))
		b.wait(time.Second)
	}
	b.want(count(16))
	b.wait(time.Minute)
	b.offer(count(4)) // the step is over: 3 of the 16 that are left, and none of those that are held
	b.want(without(count(16), "5", "6", "7"))
}

func TestWithdrawnLossIsForgotten(t *testing.T) {
	b := newBed(t, testConfig())
	b.offer("1 2 3")
	b.offer("3")
	b.want("2 3")
	b.wait(4 * time.Minute)
	b.offer("1 2 3")
	b.want("1 2 3")
	b.wantLog("began radius 192.0.2.2", "gone radius 192.0.2.2")
	b.offer("1")
	b.want("1 3")
	b.wait(4 * time.Minute)
	b.want("1 3")
}

func TestEmptyAnswer(t *testing.T) {
	for name, list := range map[string]string{
		"no entry":       "",
		"all down":       "1/down 2/down 3/down 4/down",
		"all drain":      "1/drain 2/drain 3/drain 4/drain",
		"no weight":      "1*0 2*0 3*0 4*0",
		"only new, down": "5/down",
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, testConfig())
			b.offer("1 2 3 4/drain")
			b.offer(list)
			for _, backend := range []string{"1", "2", "3"} {
				if s, _ := b.g.Service(Key{"consul", "web"}); !strings.Contains(format(s.Backends)+" ", backend+" ") {
					t.Errorf("accepted: %q has no %s", format(s.Backends), backend)
				}
			}
			b.wait(10*time.Minute - 1)
			if s, _ := b.g.Service(Key{"consul", "web"}); capacity(s.Backends) != 3 {
				t.Errorf("accepted too early: %q", format(s.Backends))
			}
			b.wait(1)
			b.want(list)
			b.wantHeld()
		})
	}
}

func TestEmptyAnswerKeepsDrains(t *testing.T) {
	b := newBed(t, testConfig())
	b.offer("1 2/drain")
	b.offer("")
	b.want("1 2/drain")
	b.wantHeld("empty 192.0.2.1", "empty 192.0.2.2")
}

func TestLocalChecksConfirm(t *testing.T) {
	b := newBed(t, testConfig())
	b.offer("1 2 3 4")
	b.local(map[string]Verdict{"1": LocalDown, "2": LocalUp})
	b.want("1 2 3 4") // alone they take nothing away
	b.offer("")
	b.want("2 3 4")
	b.wantLog("began empty 192.0.2.2", "began empty 192.0.2.3", "began empty 192.0.2.4")
	b.local(map[string]Verdict{"2": LocalUp, "3": LocalDown})
	b.want("2 4")
	b.wantLog("confirmed empty 192.0.2.3")
	b.local(map[string]Verdict{"2": LocalDown, "3": LocalDown, "4": LocalDown})
	b.want("")
	b.wantLog("confirmed empty 192.0.2.2", "confirmed empty 192.0.2.4")
}

func TestAccept(t *testing.T) {
	b := newBed(t, testConfig())
	b.offer("1 2 3")
	_, err := b.g.Accept("web", b.now)
	require.ErrorSays(t, err, `accept changes of service "web": none is held`)
	_, err = b.g.Accept("other", b.now)
	require.ErrorSays(t, err, `accept changes of service "other": none is held`)
	b.offer("")
	b.accept()
	b.want("")
	b.wantLog("began empty 192.0.2.1", "began empty 192.0.2.2", "began empty 192.0.2.3",
		"accepted empty 192.0.2.1", "accepted empty 192.0.2.2", "accepted empty 192.0.2.3")
}

// TestChangeOfRule: a hold that another rule takes over is not shorter for it.
func TestChangeOfRule(t *testing.T) {
	b := newBed(t, testConfig())
	b.offer("1 2 3 4")
	b.offer("")
	b.wait(9 * time.Minute)
	b.offer("4")
	b.want("2 3 4") // one fits the blast radius
	b.wantHeld("radius 192.0.2.2", "radius 192.0.2.3")
	b.wait(time.Minute - 1)
	b.want("2 3 4")
	b.offer("")
	b.wantHeld("empty 192.0.2.2", "empty 192.0.2.3", "empty 192.0.2.4")
	b.wait(1)
	b.want("4")
	b.wait(10*time.Minute - 2)
	b.want("4")
	b.wait(1)
	b.want("")
}

func TestAnswersThatAreNotWhole(t *testing.T) {
	for rule := RuleIncomplete; rule <= RuleDecode; rule++ {
		t.Run(rule.String(), func(t *testing.T) {
			b := newBed(t, testConfig())
			b.offer("1 2 3")
			b.fail(rule)
			b.wait(time.Hour)
			b.fail(rule)
			b.want("1 2 3")
			b.wantHeld(rule.String() + " answer")
			b.offer("1 2 3")
			b.wantHeld()
			b.wantLog("began "+rule.String()+" answer", "gone "+rule.String()+" answer")
			if c := b.g.Counters(); c.Held[rule] != 2 || c.Ended[Gone] != 1 {
				t.Errorf("counters: %+v", c)
			}
		})
	}
}

func TestAnswersThatDoNotSayWhy(t *testing.T) {
	for name, o := range map[string]Offer{
		"zero":                 {},
		"complete with fault":  {Complete: true, Fault: RuleIncomplete},
		"fault is a hold":      {Fault: RuleFreeze},
		"fault is not a rule":  {Fault: RuleLen},
		"complete, wild fault": {Complete: true, Fault: RuleLen},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, testConfig())
			b.offer("1 2")
			o.Source, o.Service, o.At = "consul", "web", b.now
			b.note(b.g.Offer(o))
			b.want("1 2")
			b.wantHeld("incomplete answer")
		})
	}
}

// TestClocksStandWhileNotHeard: an empty answer before an outage does not empty the service in it,
// nor right after it.
func TestClocksStandWhileNotHeard(t *testing.T) {
	b := newBed(t, testConfig())
	b.offer("1 2 3")
	b.offer("")
	b.wait(time.Minute)
	b.fail(RuleStatus)
	b.wait(time.Hour)
	b.want("1 2 3")
	if h := b.g.Held()[0]; !h.Until.IsZero() || !strings.Contains(h.Release, "9m0s after answers are whole again") {
		t.Errorf("hold: until %v, release %q", h.Until, h.Release)
	}
	b.offer("")
	b.want("1 2 3")
	b.wait(9*time.Minute - 1)
	b.want("1 2 3")
	b.wait(1)
	b.want("")
}

// TestChangeOfRuleAfterAnOutage: the other rule's time counts from when the clock runs again, too.
func TestChangeOfRuleAfterAnOutage(t *testing.T) {
	b := newBed(t, testConfig())
	b.offer("1 2 3")
	b.offer("3")
	b.fail(RuleStatus)
	b.wait(time.Hour)
	b.offer("")
	b.wait(10*time.Minute - 1)
	b.want("2 3")
	b.wait(1)
	b.want("")
}

func TestLocalChecksConfirmWhileNotHeard(t *testing.T) {
	b := newBed(t, testConfig())
	b.offer("1 2 3")
	b.offer("3")
	b.fail(RuleUnreachable)
	b.local(map[string]Verdict{"2": LocalDown, "3": LocalDown})
	b.want("3")
}

func TestFreeze(t *testing.T) {
	b := newBed(t, testConfig())
	b.offer("1 2 3")
	b.offer("3")
	b.want("2 3")
	b.wantLog("began radius 192.0.2.2")
	b.freeze(time.Hour)
	b.wantLog("began freeze 192.0.2.2", "began freeze service")
	b.local(map[string]Verdict{"2": LocalDown, "3": LocalDown})
	b.offer("3*9 4")
	b.wait(30 * time.Minute)
	b.want("2 3")
	b.wantHeld("freeze 192.0.2.2", "freeze 192.0.2.3", "freeze 192.0.2.4", "freeze service")
	_, err := b.g.Accept("web", b.now)
	require.ErrorSays(t, err, `it is frozen by "alice" until 2026-05-06T08:00:00Z: "a move"`)
	b.local(nil)
	b.wait(30*time.Minute - 1)
	b.want("2 3")
	b.log = nil
	b.wait(1)
	b.want("3*9 4") // what was held is as if new: one loss fits the blast radius
	b.wantHeld()
	b.wantLog("gone freeze 192.0.2.2", "gone freeze 192.0.2.3", "gone freeze 192.0.2.4", "gone freeze service")
}

// TestFreezeEndsBeforeTheTick: an answer after the expiry is judged without the freeze.
func TestFreezeEndsBeforeTheTick(t *testing.T) {
	b := newBed(t, testConfig())
	b.offer("1")
	b.freeze(time.Minute)
	b.now = b.now.Add(time.Minute)
	b.offer("1 2")
	b.want("1 2")
}

func TestUnfreezeStartsHoldsAnew(t *testing.T) {
	b := newBed(t, testConfig())
	b.offer("1 2 3 4")
	b.freeze(10 * time.Hour)
	b.offer("4")
	b.wait(time.Hour)
	b.unfreeze()
	b.want("2 3 4")
	b.wait(5*time.Minute - 1)
	b.want("2 3 4")
	b.wait(1)
	b.want("4")
	_, err := b.g.Unfreeze("web", b.now)
	require.ErrorSays(t, err, `unfreeze service "web": it is not frozen`)
}

func TestFreezeBeforeTheFirstAnswer(t *testing.T) {
	b := newBed(t, testConfig())
	b.freeze(time.Hour)
	b.offer("1")
	if s, _ := b.g.Service(Key{"consul", "web"}); s.Known {
		t.Error("a frozen service became known")
	}
	b.unfreeze()
	b.want("1")
}

func TestRefusedFreezes(t *testing.T) {
	g, err := New(testConfig())
	require.NoError(t, err)
	whole := Freeze{Author: "alice", Reason: "a move", Expiry: start.Add(1)}
	for name, spoil := range map[string]func(*Freeze){
		"an author and a reason are needed":                     func(f *Freeze) { f.Author = "" },
		"an author and a reason":                                func(f *Freeze) { f.Reason = "" },
		"the expiry 2026-05-06T07:00:00Z is not in the future":  func(f *Freeze) { f.Expiry = start },
		"the expiry 0001-01-01T00:00:00Z is not in the future":  func(f *Freeze) { f.Expiry = time.Time{} },
		`freeze service "web": an author and a reason are need`: func(f *Freeze) { *f = Freeze{} },
	} {
		f := whole
		spoil(&f)
		_, err := g.Freeze("web", f, start)
		require.ErrorSays(t, err, name)
	}
	if len(g.Frozen()) != 0 {
		t.Errorf("frozen: %v", g.Frozen())
	}
}

func TestFlappingIsDamped(t *testing.T) {
	b := newBed(t, testConfig())
	whole, gone := count(10), count(9)
	b.offer(whole)
	flips, last := 0, ""
	for range 120 { // two hours, half a minute each
		for _, list := range []string{gone, whole} {
			b.offer(list)
			s, _ := b.g.Service(Key{"consul", "web"})
			if now := format(s.Backends); now != last {
				flips, last = flips+1, now
			}
			b.wait(30 * time.Second)
		}
	}
	if flips > 80 {
		t.Errorf("%d flips", flips)
	}
	b.offer(whole)
	b.wait(15 * time.Minute)
	b.want(whole)
	b.wantHeld()
}

func TestDampedBackendIsBetterThanNone(t *testing.T) {
	b := newBed(t, testConfig())
	b.offer("1 2 3 4 5 6")
	for range 4 {
		b.offer("1 2 3 4 5")
		b.offer("1 2 3 4 5 6")
		b.wait(time.Minute)
	}
	b.want("1 2 3 4 5")
	b.wantHeld("damping 192.0.2.6")
	b.local(map[string]Verdict{"1": LocalDown, "2": LocalDown, "3": LocalDown, "4": LocalDown, "5": LocalDown})
	b.offer("6")
	b.want("6")
	b.wantHeld()
}

func TestAcceptEndsDamping(t *testing.T) {
	b := newBed(t, testConfig())
	b.offer("1 2")
	for range 3 {
		b.offer("1")
		b.offer("1 2")
		b.wait(time.Minute)
		b.log = nil
	}
	b.offer("1")
	b.offer("1 2")
	b.wantHeld("damping 192.0.2.2")
	since := b.now
	b.wait(time.Second)
	b.offer("1 2")
	if h := b.g.Held()[0]; !h.Since.Equal(since) {
		t.Errorf("held since %v, want %v", h.Since, since)
	}
	b.accept()
	b.want("1 2")
	b.wantLog("began damping 192.0.2.2", "accepted damping 192.0.2.2")
}

func TestWhatIsAcceptedIsNoFlap(t *testing.T) {
	b := newBed(t, testConfig())
	b.offer("1 2 3")
	for range 6 {
		b.offer("")
		b.accept()
		b.offer("1 2 3")
		b.want("1 2 3")
	}
}

// TestDrainAndRemovalAreOneLoss: a server that is restarted in good order is not damped for it.
func TestDrainAndRemovalAreOneLoss(t *testing.T) {
	b := newBed(t, testConfig())
	b.offer("1 2")
	for range 3 {
		for _, list := range []string{"1/drain 2", "2", "1 2"} {
			b.offer(list)
			b.want(list)
		}
		b.wait(time.Minute)
	}
}

func TestFlapPenalty(t *testing.T) {
	d := DefaultConfig().Damping
	losses := func(f flap, at time.Time, n int) flap {
		for range n {
			f = f.lost(at, d)
		}
		return f
	}
	if f := losses(flap{}, start, 2); !f.until.IsZero() {
		t.Errorf("2 losses: suppressed until %v", f.until)
	}
	near := func(what string, got time.Time, want time.Duration) {
		t.Helper()
		if diff := got.Sub(start.Add(want)).Abs(); diff > time.Second {
			t.Errorf("%s: until %v, want %v", what, got.Sub(start), want)
		}
	}
	near("4 losses", losses(flap{}, start, 4).until, 10*time.Minute)
	near("many losses", losses(flap{}, start, 100).until, 15*time.Minute)
	later := losses(losses(flap{}, start, 4), start.Add(5*time.Minute), 1) // 4 became 2, and is 3 now
	near("one later", later.until, 5*time.Minute+7*time.Minute+55*time.Second+500*time.Millisecond)
	later = losses(losses(flap{}, start, 4), start.Add(7*time.Minute), 1) // 1.5 and 1
	near("one still later", later.until, 13*time.Minute+39*time.Second)
}

func TestNothingIsDampedWithoutDamping(t *testing.T) {
	cfg := testConfig()
	cfg.Damping = Damping{}
	b := newBed(t, cfg)
	b.offer("1 2")
	for range 50 {
		b.offer("1")
		b.wait(time.Minute)
		b.want("1")
		b.offer("1 2")
		b.want("1 2")
	}
}

func TestEntriesThatCannotBeUsed(t *testing.T) {
	b := newBed(t, testConfig())
	list := parse(t, "2 1 1*5 1/down")
	for _, a := range []string{"0.0.0.0", "127.0.0.1", "224.0.0.1", "fe80::1%eth0", "::ffff:192.0.2.9"} {
		list = append(list, Backend{Backend: lb.Backend{Addr: netip.MustParseAddr(a), Weight: 1}})
	}
	list = append(list, Backend{}, Backend{Backend: parse(t, "3")[0].Backend, State: 9})
	o := Offer{Source: "consul", Service: "web", Backends: list, Complete: true, At: b.now}
	b.note(b.g.Offer(o))
	b.want("1*5 2")
	b.wantHeld("invalid 0.0.0.0", "invalid 127.0.0.1", "invalid 192.0.2.1 (again)", "invalid 192.0.2.3",
		"invalid 224.0.0.1", "invalid ::ffff:192.0.2.9", "invalid fe80::1%eth0", "invalid invalid IP")
	b.log = nil
	b.note(b.g.Offer(o))
	b.wantLog()
	b.offer("1*5 2")
	b.wantHeld()
}

func TestServicesAreSeparate(t *testing.T) {
	b := newBed(t, testConfig())
	b.offer("1 2 3")
	other := Offer{Source: "kv", Service: "web", Backends: parse(t, "7 8"), Complete: true, At: b.now}
	r := b.g.Offer(other)
	if diff := cmp.Diff([]Key{{"kv", "web"}}, r.Changed); diff != "" {
		t.Errorf("changed (-want +got):\n%s", diff)
	}
	other.Complete, other.Fault = false, RuleStatus
	b.g.Offer(other)
	b.offer("1 2 3 4")
	b.want("1 2 3 4")
	b.freeze(time.Hour)
	b.offer("")
	b.wantHeld("freeze 192.0.2.1", "freeze 192.0.2.2", "freeze 192.0.2.3", "freeze 192.0.2.4", "freeze service",
		"status answer", "freeze service")
}

func TestRetain(t *testing.T) {
	b := newBed(t, testConfig())
	b.offer("1 2 3")
	b.offer("")
	b.g.Offer(Offer{Source: "consul", Service: "mail", Complete: true, At: b.now})
	b.g.Offer(Offer{Source: "kv", Service: "web", Complete: true, At: b.now})
	b.log = nil
	r := b.g.Retain("consul", []string{"mail", "other"}, b.now)
	b.note(r)
	if diff := cmp.Diff([]Key{{"consul", "web"}}, r.Changed); diff != "" {
		t.Errorf("changed (-want +got):\n%s", diff)
	}
	b.wantLog("gone empty 192.0.2.1", "gone empty 192.0.2.2", "gone empty 192.0.2.3")
	var left []string
	for _, s := range b.g.Services() {
		left = append(left, s.Key.String())
	}
	if diff := cmp.Diff([]string{"consul/mail", "kv/web"}, left); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
}

func TestSentences(t *testing.T) {
	b := newBed(t, testConfig())
	b.offer("1 2*5 3 4")
	b.local(map[string]Verdict{"3": LocalUp})
	b.offer("2/drain 3/down 4")
	b.fail(RuleFiltered)
	var got []string
	for _, h := range b.g.Held() {
		got = append(got, h.Sentence+" | "+h.Release)
	}
	want := []string{
		"stays active with weight 1, as more than 1 backends and 20 % of the weight would be lost within 1m0s; consul says absent" +
			" | 5m0s after answers are whole again, local checks that find it down, or an accept",
		"stays active with weight 1, as more than 1 backends and 20 % of the weight would be lost within 1m0s; consul says down;" +
			" the local checks find it up | 5m0s after answers are whole again, local checks that find it down, or an accept",
		`answer of consul refused by rule filtered: "as the test says"; the 4 backends that are known stay | a whole answer`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sentences (-want +got):\n%s", diff)
	}
}

func TestTimeDoesNotGoBack(t *testing.T) {
	b := newBed(t, testConfig())
	b.offer("1 2 3")
	b.now = start.Add(-time.Hour)
	b.offer("")
	b.now = start.Add(10*time.Minute - 1)
	b.g.Tick(b.now)
	b.want("1 2 3")
	b.now = start.Add(10 * time.Minute)
	b.g.Tick(b.now)
	b.want("")
}

func TestConfigValidate(t *testing.T) {
	require.NoError(t, DefaultConfig().Validate())
	for want, spoil := range map[string]func(*Config){
		"MaxReals: -1 is negative":                                func(c *Config) { c.MaxReals = -1 },
		"MaxWeightPercent: 101 is not 0 to 100":                   func(c *Config) { c.MaxWeightPercent = 101 },
		"MaxWeightPercent: -1 is not 0 to 100":                    func(c *Config) { c.MaxWeightPercent = -1 },
		"Step: 0s is not more than 0":                             func(c *Config) { c.Step = 0 },
		"Hold: -1ns is negative":                                  func(c *Config) { c.Hold = -1 },
		"EmptyHold: 5m0s is less than Hold, 6m0s":                 func(c *Config) { c.Hold = 6 * time.Minute },
		"Damping.Suppress: 1 is neither 0 nor a number above 1":   func(c *Config) { c.Damping.Suppress = 1 },
		"Damping.Suppress: NaN is neither 0 nor a number above 1": func(c *Config) { c.Damping.Suppress = nan() },
		"Damping.Reuse: 3 is not between 0 and Suppress, 3":       func(c *Config) { c.Damping.Reuse = 3 },
		"Damping.Reuse: 0 is not between 0 and Suppress, 3":       func(c *Config) { c.Damping.Reuse = 0 },
		"Damping.HalfLife: 0s is not more than 0":                 func(c *Config) { c.Damping.HalfLife = 0 },
		"Damping.MaxSuppress: 1m0s is less than 7m55.48":          func(c *Config) { c.Damping.MaxSuppress = time.Minute },
	} {
		cfg := DefaultConfig()
		spoil(&cfg)
		require.ErrorSays(t, cfg.Validate(), want)
	}
	_, err := New(Config{MaxReals: -1})
	require.ErrorSays(t, err, "configure governor", "MaxReals", "Step")
}

func nan() float64 { zero := 0.0; return zero / zero }

func TestNames(t *testing.T) {
	for r := range RuleLen {
		text, err := r.MarshalText()
		require.NoError(t, err)
		var back Rule
		require.NoError(t, back.UnmarshalText(text))
		if back != r || fmt.Sprint(r) != string(text) || len(text) == 0 {
			t.Errorf("rule %d: text %q, back %d", r, text, back)
		}
	}
	for _, wild := range []fmt.Stringer{RuleLen, OutcomeLen, State(9)} {
		if wild.String() != "unknown" {
			t.Errorf("%T: %q", wild, wild)
		}
	}
	_, err := RuleLen.MarshalText()
	require.ErrorSays(t, err, "14 has no name")
	require.ErrorSays(t, new(State).UnmarshalText([]byte("x")), `state "x" is not known`)
}
