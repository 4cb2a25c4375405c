// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package event

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/require"
)

var (
	vip  = lb.VIP{Addr: netip.MustParseAddr("192.0.2.10"), Port: 80, Protocol: lb.TCP}
	real = netip.MustParseAddr("10.0.0.11")
	peer = netip.MustParseAddr("10.0.0.1")
)

func TestLines(t *testing.T) {
	for _, tc := range []struct {
		name  string
		event Event
		want  string
	}{
		{"everything", Event{Kind: KindHealth, Level: slog.LevelWarn, Service: "web", VIP: vip, Real: real, From: "up", To: "down", Cause: "refused: nobody listens"},
			`level=WARN msg="real is down" service=web vip=192.0.2.10:80/tcp real=10.0.0.11 from=up to=down cause="refused: nobody listens" event=health`},
		{"no cause", Event{Kind: KindSession, Peer: peer, From: "openconfirm", To: "established"},
			`level=INFO msg="session is established" peer=10.0.0.1 from=openconfirm to=established event=session`},
		{"interface", Event{Kind: KindAttachment, Interface: "eth0", From: "detached", To: "native"},
			`level=INFO msg="packet program is native" interface=eth0 from=detached to=native event=attachment`},
		{"source", Event{Kind: KindHold, Service: "web", Source: "consul", From: "passed", To: "held"},
			`level=INFO msg="change is held" service=web source=consul from=passed to=held event=hold`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, to := range []func(*slog.Logger) Sink{ToLog, func(l *slog.Logger) Sink { return NewLog(l) }} {
				var out bytes.Buffer
				to(slog.New(slog.NewTextHandler(&out, nil))).Emit(tc.event)
				_, got, _ := strings.Cut(strings.TrimSpace(out.String()), " ") // without the time
				if got != tc.want {
					t.Errorf("line\n%s\nwant\n%s", got, tc.want)
				}
			}
		})
	}
}

// TestJSONLines: with the JSON format each event is an object with the same keys.
func TestJSONLines(t *testing.T) {
	var out bytes.Buffer
	NewLog(slog.New(slog.NewJSONHandler(&out, nil))).Emit(Event{Kind: KindBackend, VIP: vip, Real: real, From: "active", To: "draining", Cause: "drain"})
	var line map[string]any
	require.NoError(t, json.Unmarshal(out.Bytes(), &line))
	for key, want := range map[string]string{"vip": vip.String(), "real": real.String(), "from": "active", "to": "draining", "cause": "drain", "event": "backend"} {
		if line[key] != want {
			t.Errorf("%s is %v, want %s", key, line[key], want)
		}
	}
}

func TestNilLog(t *testing.T) {
	ToLog(nil).Emit(Event{Kind: KindRing})
	l := NewLog(nil)
	l.Emit(Event{Kind: KindRing})
	if events, _ := l.After(0); len(events) != 1 {
		t.Errorf("%d events, want 1", len(events))
	}
}

func TestObject(t *testing.T) {
	e := Event{Service: "web", VIP: vip, Real: real}
	if got, want := e.Object(), "web 192.0.2.10:80/tcp 10.0.0.11"; got != want {
		t.Errorf("object %q, want %q", got, want)
	}
}

// fill emits so many events.
func fill(l *Log, n int) {
	for i := range n {
		l.Emit(Event{Kind: KindRing, To: fmt.Sprint(i)})
	}
}

func TestAfter(t *testing.T) {
	for _, tc := range []struct {
		name                     string
		emitted                  int
		after                    uint64
		wantFirst, wantN, wantLo uint64
	}{
		{"none", 0, 0, 0, 0, 0},
		{"few", 3, 0, 1, 3, 0},
		{"the last", 3, 2, 3, 1, 0},
		{"no new ones", 3, 3, 0, 0, 0},
		{"just full", Kept, 0, 1, Kept, 0},
		{"one lost", Kept + 1, 0, 2, Kept, 1},
		{"many lost", 5 * Kept, 100, 4*Kept + 1, Kept, 4*Kept - 100},
		{"of an earlier run", 3, 77, 1, 3, 0},
		{"of an earlier run, greatest", 3, 1<<64 - 1, 1, 3, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := NewLog(nil)
			fill(l, tc.emitted)
			events, lost := l.After(tc.after)
			if uint64(len(events)) != tc.wantN || lost != tc.wantLo {
				t.Fatalf("%d events, %d lost, want %d and %d", len(events), lost, tc.wantN, tc.wantLo)
			}
			for i, e := range events {
				if e.Number != tc.wantFirst+uint64(i) || e.To != fmt.Sprint(e.Number-1) || e.At.IsZero() {
					t.Fatalf("event %d is %+v", i, e)
				}
			}
			if l.Last() != uint64(tc.emitted) || l.Counts()[KindRing] != uint64(tc.emitted) {
				t.Errorf("last is %d, counts are %v", l.Last(), l.Counts())
			}
		})
	}
}

// TestFollow: who follows gets what is there and what comes, in order; who is slow is told what it lost,
// and holds nobody up.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLog(nil)
		fill(l, 2)
		ctx, cancel := context.WithCancel(t.Context())
		var got []uint64
		var lost uint64
		proceed, done := make(chan struct{}), make(chan error)
		go func() {
			done <- l.Follow(ctx, 0, func(events []Event, missing uint64) error {
				lost += missing
				for _, e := range events {
					got = append(got, e.Number)
				}
				<-proceed
				return nil
			})
		}()
		synctest.Wait() // it has the first two, and is slow
		fill(l, 3*Kept)
		proceed <- struct{}{}
		proceed <- struct{}{}
		synctest.Wait() // it waits for more
		l.Emit(Event{Kind: KindRing})
		proceed <- struct{}{}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("it ends with %v", err)
		}
		if len(got) != 2+Kept+1 || lost != 2*Kept || got[2] != 2*Kept+3 || got[len(got)-1] != 3*Kept+3 {
			t.Errorf("got %d events, %d lost, third %d, last %d", len(got), lost, got[2], got[len(got)-1])
		}
	})
}

func TestFollowEndsWithItsCaller(t *testing.T) {
	l, enough := NewLog(nil), errors.New("enough")
	fill(l, 1)
	if err := l.Follow(t.Context(), 0, func([]Event, uint64) error { return enough }); err != enough {
		t.Errorf("it ends with %v", err)
	}
}

// TestManyAtOnce: those who emit and those who follow do not disturb each other, and no number is given
// twice.
func TestManyAtOnce(t *testing.T) {
	const emitters, each, followers = 4, 200, 3
	l := NewLog(nil)
	var emitting, following sync.WaitGroup
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range followers {
		following.Go(func() {
			next, all := uint64(1), errors.New("all")
			err := l.Follow(ctx, 0, func(events []Event, lost uint64) error {
				for _, e := range events {
					if e.Number != next || lost != 0 {
						t.Errorf("event %d with %d lost, want %d", e.Number, lost, next)
					}
					next++
				}
				if next > emitters*each {
					return all
				}
				return nil
			})
			if err != all {
				t.Errorf("it ends with %v", err)
			}
		})
	}
	for range emitters {
		emitting.Go(func() { fill(l, each) })
	}
	emitting.Wait()
	following.Wait()
}

func TestKinds(t *testing.T) {
	seen := make(map[Kind]bool)
	for _, k := range Kinds() {
		if k == "" || seen[k] {
			t.Errorf("kind %q is empty or there twice", k)
		}
		seen[k] = true
	}
}

// TestTextsAreBounded: a long text is cut between two letters and says so; the log's line has all of it.
func TestTextsAreBounded(t *testing.T) {
	long := "x" + strings.Repeat("ü", MaxText) // a letter lies across the bound
	var lines bytes.Buffer
	l := NewLog(slog.New(slog.NewTextHandler(&lines, nil)))
	l.Emit(Event{Kind: KindHealth, Service: long, Source: long, Interface: long, From: long, To: long, Cause: long})
	l.Emit(Event{Kind: KindHealth, Cause: "bad \xc3", Detail: long})
	l.Emit(Event{Kind: KindHealth, Cause: strings.Repeat("x", MaxText)})
	events, _ := l.After(0)
	want := "x" + strings.Repeat("ü", MaxText/2-1) + "... (cut, of 2049 bytes)"
	for i, got := range []string{events[0].Service, events[0].Source, events[0].Interface, events[0].From, events[0].To, events[0].Cause} {
		if got != want {
			t.Errorf("text %d is %q", i, got)
		}
	}
	if e := events[1]; e.Cause != "bad \uFFFD" || e.Detail != "" {
		t.Errorf("it keeps %+v", e)
	}
	if e := events[2]; e.Cause != strings.Repeat("x", MaxText) {
		t.Errorf("a text that just fits is %q", e.Cause)
	}
	if n := strings.Count(lines.String(), "cause="+long); n != 2 {
		t.Errorf("%d lines have the whole cause, want 2", n)
	}
}
