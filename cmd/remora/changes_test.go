// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/remora-lb/remora/bgp"
	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/announce"
	"github.com/remora-lb/remora/lb/config"
	"github.com/remora-lb/remora/lb/event"
)

// eventText is an event as a line; those that an operator should look at end in "!".
func eventText(e event.Event) string {
	line := fmt.Sprintf("%s %s: %s>%s", e.Kind, e.Object(), e.From, e.To)
	if e.Cause != "" {
		line += " " + e.Cause
	}
	if e.Level >= slog.LevelWarn {
		line += " !"
	}
	return line
}

func eventTexts(l *event.Log) string {
	var lines []string
	events, _ := l.After(0)
	for _, e := range events {
		lines = append(lines, eventText(e))
	}
	return strings.Join(lines, "\n")
}

func TestEventsOfOthers(t *testing.T) {
	vip := mustVIP(t, "192.0.2.10:80/tcp")
	for _, tc := range []struct {
		name string
		got  event.Event
		want string
	}{
		{"announced first", announcementEvent(announce.Status{}, announce.Status{VIP: vip, State: announce.Announced, Code: announce.CodeServed, Reason: "it can be served"}),
			"announcement 192.0.2.10:80/tcp: none>announced served: it can be served"},
		{"announced no more", announcementEvent(announce.Status{VIP: vip, State: announce.Announced}, announce.Status{VIP: vip, State: announce.Waiting, Code: "next_hop", Reason: "no"}),
			"announcement 192.0.2.10:80/tcp: announced>waiting next_hop: no"},
	} {
		if got := eventText(tc.got); got != tc.want {
			t.Errorf("%s: %s\nwant %s", tc.name, got, tc.want)
		}
	}
}

// TestSessionTeller: what counts is told once, and the attempts in between are not.
func TestSessionTeller(t *testing.T) {
	log := event.NewLog(nil)
	teller := newSessionTeller(log)
	peer := netip.MustParseAddr("10.0.0.1")
	see := func(state bgp.SessionState, bfd, problem string) {
		teller.see([]bgp.Session{{Peer: peer, ASN: 65000, State: state, BFD: bfd, LastError: problem}})
	}
	see(bgp.Idle, "off", "")
	see(bgp.Active, "off", "refused")
	see(bgp.OpenConfirm, "off", "refused")
	see(bgp.Established, "off", "refused")
	see(bgp.Established, "up", "refused")
	see(bgp.Idle, "up", "hold timer expired")
	see(bgp.Active, "off", "hold timer expired")
	const want = `session 10.0.0.1: openconfirm>established AS 65000
bfd 10.0.0.1: off>up
session 10.0.0.1: established>idle hold timer expired !
bfd 10.0.0.1: up>off`
	if got := eventTexts(log); got != want {
		t.Errorf("it tells\n%s\nwant\n%s", got, want)
	}
}

func TestReloadLog(t *testing.T) {
	log, start := event.NewLog(nil), time.Unix(1000, 0)
	r := newReloadLog(log, start)
	if s := r.state(); !s.LastOK || s.At != start {
		t.Errorf("at the start: %+v", s)
	}
	c := &config.Config{Services: make([]lb.Service, 1)}
	r.note(c, fmt.Errorf("line 3: no"), start.Add(time.Second))
	if s := r.state(); s.LastOK || s.At != start || s.Failed != 1 {
		t.Errorf("after a failure: %+v", s)
	}
	r.note(c, nil, start.Add(2*time.Second))
	if s := r.state(); !s.LastOK || !s.At.Equal(start.Add(2*time.Second)) || s.Succeeded != 1 || s.Failed != 1 {
		t.Errorf("after a success: %+v", s)
	}
	const want = "configuration : in force>not reloaded, the present one stays line 3: no !\nconfiguration : in force>reloaded 1 service"
	if got := eventTexts(log); got != want {
		t.Errorf("it tells\n%s\nwant\n%s", got, want)
	}
}

// TestReloadProblems: of very many, the event has the first, and the line of the log all.
func TestReloadProblems(t *testing.T) {
	var lines bytes.Buffer
	log := event.NewLog(slog.New(slog.NewTextHandler(&lines, nil)))
	var problems config.Problems
	for i := range 500 {
		problems = append(problems, config.Problem{File: "a.yaml", Line: i + 1, Message: "no"})
	}
	newReloadLog(log, time.Unix(0, 0)).note(nil, problems, time.Unix(1, 0))
	const want = "configuration : in force>not reloaded, the present one stays 500 problems, the first are: a.yaml:1: no; a.yaml:2: no; a.yaml:3: no !"
	if got := eventTexts(log); got != want {
		t.Errorf("it tells\n%s\nwant\n%s", got, want)
	}
	if !strings.Contains(lines.String(), "a.yaml:500: no") || strings.Count(lines.String(), "\n") != 1 {
		t.Errorf("the log's line is %s", lines.String())
	}
}
