// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"strings"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/require"
)

func TestRoutes(t *testing.T) {
	w := newWorld(t)
	var first, next config
	first.service(1, lb.FlowTransitions, lb.DefaultLeave(), weighted(1, 1)...)
	first.service(2, lb.FlowTransitions, lb.DefaultLeave(), weighted(1, 1)...)
	first.service(3, lb.FlowTransitions, lb.DefaultLeave())
	w.apply(first)
	next.service(1, lb.FlowTransitions, lb.DefaultLeave(), weighted(1, 2)...)
	next.service(2, lb.FlowTransitions, lb.DefaultLeave())
	next.service(3, lb.FlowTransitions, lb.DefaultLeave(), weighted(1, 2)...)
	have := w.present()
	got := w.plan(have, next).Routes(have)
	if text := fmt.Sprint(got); text != "{[192.0.2.3/32] [192.0.2.2/32]}" {
		t.Errorf("routes %s", text)
	}
	if again := w.plan(have, first).Routes(have); len(again.Announce)+len(again.Withdraw) != 0 {
		t.Errorf("the same configuration changes routes: %+v", again)
	}
}

func TestCheck(t *testing.T) {
	var c config
	c.service(1, lb.FlowTransitions, lb.DefaultLeave(), weighted(1, 1)...)
	c.service(2, lb.FlowTransitions, lb.DefaultLeave())
	want := Wanted{Services: c.services, Backends: c.backends, Dynamic: map[string]bool{"service 2": true}}
	want.Drains = map[lb.Target]bool{{VIP: vipNumber(1), Backend: server(1)}: true, {VIP: vipNumber(2), Backend: server(9)}: true}
	require.NoError(t, want.Check())
	want.Weights = map[lb.Target]uint32{{VIP: vipNumber(1), Backend: server(2)}: 1, {VIP: vipNumber(3), Backend: server(1)}: 1}
	err := want.Check()
	require.ErrorSays(t, err, "192.0.2.1:80/tcp 10.20.0.2", "192.0.2.3:80/tcp 10.20.0.1")
	if n := strings.Count(err.Error(), "no backend"); n != 2 {
		t.Errorf("%d problems: %v", n, err)
	}
}
