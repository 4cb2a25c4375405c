// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package nexthop

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/remora-lb/remora/lb"
	events "github.com/remora-lb/remora/lb/event"
)

func TestEmit(t *testing.T) {
	type hops = map[netip.Addr]lb.NextHop
	addr := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, n}) }
	good := lb.NextHop{MAC: [6]byte{2, 0, 0, 0, 0, 1}, MTU: 1500}
	stale, bad := good, lb.NextHop{Problem: "no route"}
	stale.Stale = true
	all := func(h lb.NextHop, n int) hops {
		m := make(hops)
		for i := range n {
			m[addr(byte(i+1))] = h
		}
		return m
	}
	for _, tc := range []struct {
		name          string
		before, after hops
		want          string
	}{
		{"nothing", all(good, 2), all(good, 2), ""},
		{"found", nil, all(good, 1), "10.0.0.1 lan0 unresolved>resolved mac 02:00:00:00:00:01, mtu 1500"},
		{"lost", all(good, 1), all(bad, 1), "10.0.0.1 lan0 resolved>unresolved no route"},
		{"stale", all(good, 1), all(stale, 1), "10.0.0.1 lan0 resolved>stale mac 02:00:00:00:00:01, mtu 1500"},
		{"not wanted any more", all(good, 2), all(good, 1), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			log := events.NewLog(nil)
			s := session{cfg: Config{Interface: "lan0", Events: log}}
			s.emit(tc.before, tc.after)
			var got []string
			list, _ := log.After(0)
			for _, e := range list {
				got = append(got, fmt.Sprintf("%s %s>%s %s", e.Object(), e.From, e.To, e.Cause))
			}
			if text := strings.Join(got, "\n"); text != tc.want {
				t.Errorf("it tells %q, want %q", text, tc.want)
			}
		})
	}
	t.Run("many", func(t *testing.T) {
		log := events.NewLog(nil)
		(&session{cfg: Config{Events: log}}).emit(nil, all(good, maxEvents+5))
		list, _ := log.After(0)
		if n := len(list); n != maxEvents+1 || !strings.HasPrefix(list[n-1].Cause, "5 more") {
			t.Errorf("%d events, the last %+v", n, list[n-1])
		}
	})
}
