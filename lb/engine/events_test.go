// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/event"
)

// told is an event as a line: vip real from>to cause.
func told(e event.Event) string {
	line := fmt.Sprintf("%s %s %s>%s", e.Kind, e.Object(), e.From, e.To)
	if e.Cause != "" {
		line += " " + e.Cause
	}
	if e.Level >= slog.LevelWarn {
		line += " !"
	}
	return line
}

func TestChangesOf(t *testing.T) {
	until := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	vip := func(n byte) lb.VIPEntry {
		return lb.VIPEntry{VIP: lb.VIP{Addr: netip.AddrFrom4([4]byte{192, 0, 2, n}), Port: 80, Protocol: lb.TCP}, Service: "web", Ring: lb.Ring{Size: 7}}
	}
	backend := func(id lb.RealID, use lb.RealUse, cause Cause) RealStatus {
		r := RealStatus{Real: lb.Real{ID: id, Backend: lb.Backend{Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(id)})}, Use: use}}
		if cause != CauseNone {
			r.Absence = Absence{Cause: cause, Until: until}
		}
		return r
	}
	with := func(n byte, moving int, reals ...RealStatus) VIPStatus {
		return VIPStatus{VIPEntry: vip(n), States: [lb.SlotStateLen]int{lb.SlotStable: 7 - moving, lb.SlotMoving: moving}, Reals: reals}
	}
	of := func(vips ...VIPStatus) Status { return Status{Services: []ServiceStatus{{Name: "web", VIPs: vips}}} }
	held := with(1, 3)
	held.Held = true
	unknown := VIPStatus{VIPEntry: vip(1), Held: true}
	const web1, web2 = "web 192.0.2.1:80/tcp", "web 192.0.2.2:80/tcp"
	for _, tc := range []struct {
		name          string
		before, after Status
		want          []string
	}{
		{"nothing", of(with(1, 0, backend(1, lb.RealActive, CauseNone))), of(with(1, 0, backend(1, lb.RealActive, CauseNone))), nil},
		{"a VIP comes", Status{}, of(with(1, 0, backend(1, lb.RealActive, CauseNone))), []string{
			"vip " + web1 + " none>present", "backend " + web1 + " 10.0.0.1 none>active"}},
		{"a VIP goes", of(with(1, 0, backend(1, lb.RealActive, CauseNone)), with(2, 0)), of(with(2, 0)), []string{
			"backend " + web1 + " 10.0.0.1 active>gone", "vip " + web1 + " present>gone"}},
		{"a service comes", of(with(1, 0)), Status{Services: []ServiceStatus{{Name: "dns", VIPs: []VIPStatus{with(2, 0)}}, {Name: "web", VIPs: []VIPStatus{with(1, 0)}}}},
			[]string{"vip " + web2 + " none>present"}},
		{"a backend comes and one goes", of(with(1, 0, backend(1, lb.RealRetired, CauseRemoved))), of(with(1, 0, backend(2, lb.RealActive, CauseNone))), []string{
			"backend " + web1 + " 10.0.0.1 retired>gone removed; its flows have until 2026-01-02T03:04:05Z", "backend " + web1 + " 10.0.0.2 none>active"}},
		{"down", of(with(1, 0, backend(1, lb.RealActive, CauseNone))), of(with(1, 2, backend(1, lb.RealDraining, CauseDown))), []string{
			"backend " + web1 + " 10.0.0.1 active>draining down; its flows have until 2026-01-02T03:04:05Z !", "ring " + web1 + " stable>changing 2 of 7 slots"}},
		{"up again", of(with(1, 2, backend(1, lb.RealDraining, CauseDown))), of(with(1, 2, backend(1, lb.RealActive, CauseNone))), []string{
			"backend " + web1 + " 10.0.0.1 draining>active no longer down"}},
		{"another cause", of(with(1, 0, backend(1, lb.RealDraining, CauseDrain))), of(with(1, 0, backend(1, lb.RealDraining, CauseRemoved))), []string{
			"backend " + web1 + " 10.0.0.1 draining>draining removed; its flows have until 2026-01-02T03:04:05Z"}},
		{"settled", of(with(1, 1)), of(with(1, 0)), []string{"ring " + web1 + " changing>stable"}},
		{"still changing", of(with(1, 1)), of(with(1, 2)), nil},
		{"held as it was left", of(with(1, 0)), of(held), nil},
		{"held no more, and not settled", of(unknown), of(with(1, 3)), nil},
		{"settled after that", of(with(1, 3)), of(with(1, 0)), []string{"ring " + web1 + " changing>stable"}},
		{"begins to fail", Status{}, Status{LastError: "set 2 reals: no"}, []string{"data_plane  as wanted>failing set 2 reals: no !"}},
		{"still fails", Status{LastError: "a"}, Status{LastError: "b"}, nil},
		{"succeeds again", Status{LastError: "a"}, Status{}, []string{"data_plane  failing>as wanted"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			for _, e := range changesOf(tc.before, tc.after) {
				got = append(got, told(e))
			}
			if strings.Join(got, "\n") != strings.Join(tc.want, "\n") {
				t.Errorf("it tells\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
			}
		})
	}
}

// TestEventsAreBounded: a first start with very many backends tells as many as are kept, and how many
// there were beside them.
func TestEventsAreBounded(t *testing.T) {
	var after Status
	v := VIPStatus{VIPEntry: lb.VIPEntry{VIP: lb.VIP{Addr: netip.MustParseAddr("192.0.2.1"), Port: 80, Protocol: lb.TCP}}}
	for i := range 2 * event.Kept {
		v.Reals = append(v.Reals, RealStatus{Real: lb.Real{ID: lb.RealID(i + 1), Backend: lb.Backend{Addr: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}}})
	}
	after.Services = []ServiceStatus{{Name: "web", VIPs: []VIPStatus{v}}}
	log := event.NewLog(nil)
	(&Engine{sink: log}).emit(Status{}, after)
	events, lost := log.After(0)
	if len(events) != event.Kept || lost != 0 {
		t.Fatalf("%d events, %d lost", len(events), lost)
	}
	if last := events[event.Kept-1].Cause; last != fmt.Sprintf("%d more backends, rings and VIPs changed", 2*event.Kept+1-(event.Kept-1)) {
		t.Errorf("the last says %q", last)
	}
}
