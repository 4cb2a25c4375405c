// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package governor

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/require"
)

// start is when every test begins.
var start = time.Date(2026, 5, 6, 7, 0, 0, 0, time.UTC)

// compared makes netip.Addr comparable to cmp.
var compared = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

// bed is a governor with a clock and all that it said.
type bed struct {
	t   *testing.T
	g   *Governor
	now time.Time
	// log is one line per event since it was read last: OUTCOME RULE OBJECT.
	log []string
}

// testConfig lets a fifth of the weight or one backend go within a minute.
func testConfig() Config {
	cfg := DefaultConfig()
	cfg.MaxWeightPercent = 20
	cfg.EmptyHold = 10 * time.Minute
	return cfg
}

func newBed(t *testing.T, cfg Config) *bed {
	t.Helper()
	g, err := New(cfg)
	require.NoError(t, err)
	return &bed{t: t, g: g, now: start}
}

// wait lets the time pass, with a tick whenever one is due.
func (b *bed) wait(d time.Duration) {
	b.t.Helper()
	end := b.now.Add(d)
	for next := b.g.Next(); !next.IsZero() && !next.After(end); next = b.g.Next() {
		b.now = later(b.now, next)
		b.note(b.g.Tick(b.now))
		if again := b.g.Next(); !again.IsZero() && !again.After(next) {
			b.t.Fatalf("after the tick at %v the next one is at %v", next, again)
		}
	}
	b.now = end
}

func (b *bed) note(r Result) {
	for _, e := range r.Events {
		b.log = append(b.log, fmt.Sprintf("%s %s %s", e.Outcome, e.Hold.Rule, e.Hold.Object))
	}
}

// offer offers a whole answer in the form of parse.
func (b *bed) offer(list string) {
	b.note(b.g.Offer(Offer{Source: "consul", Service: "web", Backends: parse(b.t, list), Complete: true, At: b.now}))
}

// fail offers an answer that is not whole and would leave nothing.
func (b *bed) fail(rule Rule) {
	b.note(b.g.Offer(Offer{Source: "consul", Service: "web", Fault: rule, Detail: "as the test says", At: b.now}))
}

func (b *bed) local(verdicts map[string]Verdict) {
	byAddr := make(map[netip.Addr]Verdict)
	for name, v := range verdicts {
		byAddr[addrOf(b.t, name)] = v
	}
	b.note(b.g.SetLocal("web", byAddr, b.now))
}

func (b *bed) freeze(d time.Duration) {
	b.t.Helper()
	r, err := b.g.Freeze("web", Freeze{Author: "alice", Reason: "a move", Expiry: b.now.Add(d)}, b.now)
	require.NoError(b.t, err)
	b.note(r)
}

func (b *bed) accept() {
	b.t.Helper()
	r, err := b.g.Accept("web", b.now)
	require.NoError(b.t, err)
	b.note(r)
}

func (b *bed) unfreeze() {
	b.t.Helper()
	r, err := b.g.Unfreeze("web", b.now)
	require.NoError(b.t, err)
	b.note(r)
}

// restart makes the governor anew from its record, as JSON.
func (b *bed) restart() {
	b.t.Helper()
	text, err := json.Marshal(b.g.Record())
	require.NoError(b.t, err)
	var r Record
	require.NoError(b.t, json.Unmarshal(text, &r))
	b.g, err = Restore(b.g.cfg, r, b.now)
	require.NoError(b.t, err)
}

// want fails unless these backends are accepted.
func (b *bed) want(list string) {
	b.t.Helper()
	s, ok := b.g.Service(Key{"consul", "web"})
	if !ok || !s.Known {
		b.t.Fatalf("the service is not known, want %q", list)
	}
	if got := format(s.Backends); got != list {
		b.t.Errorf("accepted: got %q, want %q", got, list)
	}
}

// wantHeld fails unless these are the holds, each as RULE OBJECT.
func (b *bed) wantHeld(want ...string) {
	b.t.Helper()
	var got []string
	for _, h := range b.g.Held() {
		got = append(got, fmt.Sprintf("%s %s", h.Rule, h.Object))
		if h.Sentence == "" || h.Release == "" || h.Since.IsZero() {
			b.t.Errorf("the hold does not say all: %+v", h)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		b.t.Errorf("held (-want +got):\n%s", diff)
	}
}

// wantLog fails unless these are the events since the last call.
func (b *bed) wantLog(want ...string) {
	b.t.Helper()
	if diff := cmp.Diff(want, b.log); diff != "" {
		b.t.Errorf("events (-want +got):\n%s", diff)
	}
	b.log = nil
}

// parse reads backends as in "1 2*5 3/drain 4/down": the last number of the address, the weight if
// it is not 1, and the state if it is not active.
func parse(t testing.TB, text string) []Backend {
	t.Helper()
	var list []Backend
	for _, word := range strings.Fields(text) {
		name, state, hasState := strings.Cut(word, "/")
		name, weight, hasWeight := strings.Cut(name, "*")
		b := Backend{Backend: lb.Backend{Addr: addrOf(t, name), Weight: 1}}
		if hasWeight {
			_, err := fmt.Sscan(weight, &b.Weight)
			require.NoError(t, err)
		}
		if hasState {
			require.NoError(t, b.State.UnmarshalText([]byte(state)))
		}
		list = append(list, b)
	}
	return list
}

func addrOf(t testing.TB, name string) netip.Addr {
	t.Helper()
	a, err := netip.ParseAddr("192.0.2." + name)
	require.NoError(t, err)
	return a
}

// format is the reverse of parse.
func format(list []Backend) string {
	var words []string
	for _, b := range list {
		word := strings.TrimPrefix(b.Addr.String(), "192.0.2.")
		if b.Weight != 1 {
			word += fmt.Sprintf("*%d", b.Weight)
		}
		if b.State != Active {
			word += "/" + b.State.String()
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

// count is "1 2 ... n".
func count(n int) string {
	var words []string
	for i := range n {
		words = append(words, fmt.Sprint(i+1))
	}
	return strings.Join(words, " ")
}

// without is a list of words without some.
func without(list string, words ...string) string {
	return strings.Join(slices.DeleteFunc(strings.Fields(list), func(w string) bool { return slices.Contains(words, w) }), " ")
}
