// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/remora-lb/remora/test/rig"
)

// TestStateMoves moves all packets from one balancer to another in the middle of changes, after the
// second one took over what the first one remembers; no connection breaks.
func TestStateMoves(t *testing.T) {
	b := newBed(t, rig.Config{Balancers: 2})
	b.startServers(t, ipv4)
	second := newBalancer(t, b.Lab, b.Balancers[1])
	both := []*bed{b, second}
	change := func(weights ...int) {
		t.Helper()
		var active []*rig.Node
		for i, w := range weights {
			if w > 0 {
				active = append(active, b.Servers[i])
			}
		}
		for _, lb := range both {
			lb.weights(t, weights...)
			if lb.daemon == nil {
				lb.startDaemon(t)
			} else {
				lb.hup(t)
			}
		}
		for _, lb := range both {
			lb.awaitActive(t, "change", active)
		}
	}
	change(1, 1, 1)
	if err := b.RouteVIPs(b.Balancers[0]); err != nil {
		t.Fatal(err)
	}
	files := b.newTransfers(t)
	for _, weights := range [][]int{{1, -1, 1}, {1, 1, 1}, {0, 1, 3}, {2, 1, -1}} {
		change(weights...)
		files.begin(t)
		files.move(t)
	}

	remembered := b.remembered(t)
	if remembered == 0 || second.remembered(t) != 0 {
		t.Fatalf("%d flows are remembered where all packets are, and %d where none is", remembered, second.remembered(t))
	}
	document := filepath.Join(b.Dir, "state.json")
	b.control(t, "state", "export", document)
	var got struct{ Rings, Flows int }
	if err := json.Unmarshal([]byte(second.control(t, "state", "import", document, "-o", "json")), &got); err != nil {
		t.Fatal(err)
	}
	if now := second.remembered(t); got.Rings != 2 || got.Flows < len(files.all) || now != got.Flows {
		t.Errorf("%d rings and %d flows were taken over of %d, and %d are remembered; there are %d connections",
			got.Rings, got.Flows, remembered, now, len(files.all))
	}
	if err := b.RouteVIPs(b.Balancers[1]); err != nil {
		t.Fatal(err)
	}
	files.move(t)
	second.killDaemon(t)
	second.startDaemon(t)
	for _, weights := range [][]int{{1, 1, -1}, {1, 1, 1}} {
		change(weights...)
		files.begin(t)
		files.move(t)
	}
	files.finish(t)
}

// remembered is how many flows the balancer remembers.
func (b *bed) remembered(t *testing.T) int {
	t.Helper()
	s, err := b.status(within(t))
	if err != nil {
		t.Fatal(err)
	}
	return s.Flows.Used
}
