// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"

	"github.com/remora-lb/remora/lb"
)

// SetTargets implements engine.Dataplane: where servers' numbers, and the backends of source routes, lead.
func (d *Dataplane) SetTargets(servers []lb.ServerTarget, routes []lb.RouteTarget) error {
	want := make(map[nativeTarget]uint32, len(servers)+len(routes))
	for _, s := range servers {
		if s.ServerID == 0 || s.Real == 0 || s.Real > lb.MaxRealID {
			return fmt.Errorf("set target: server %d of ring %d cannot lead to real %d", s.ServerID, s.Ring, s.Real)
		}
		want[nativeTarget{Ring: uint32(s.Ring), ServerId: s.ServerID}] = uint32(s.Real)
	}
	for _, r := range routes {
		if !r.Backend.IsValid() || r.Backend.IsUnspecified() || r.Real == 0 || r.Real > lb.MaxRealID {
			return fmt.Errorf("set target: backend %v of ring %d cannot lead to real %d", r.Backend, r.Ring, r.Real)
		}
		want[nativeTarget{Ring: uint32(r.Ring), Addr: addrKey(r.Backend)}] = uint32(r.Real)
	}
	have, err := entriesOf[nativeTarget, uint32](d.gen.maps["targets"])
	if err != nil {
		return fmt.Errorf("read targets: %v", err)
	}
	// What is gone goes first, so that there is room: its packets go by their slot already.
	err = deleteOthers(d.gen.maps["targets"], func(t nativeTarget, _ uint32) bool { return want[t] != 0 })
	if err != nil {
		return fmt.Errorf("clear target: %v", err)
	}
	if err := d.ensure(sizes{targets: len(want)}); err != nil {
		return err
	}
	for t, real := range want {
		if have[t] == real {
			delete(want, t)
		}
	}
	if err := putAll(d.gen.maps["targets"], want); err != nil {
		return fmt.Errorf("set target: %v", err)
	}
	return nil
}

// copyTargets carries targets over to a generation with room for another number of them.
func (g *generation) copyTargets(next *generation) error {
	if g.maps["targets"] == nil || g.capacity("targets") == next.capacity("targets") {
		return nil // of a schema without, or shared
	}
	targets, err := entriesOf[nativeTarget, uint32](g.maps["targets"])
	if err == nil {
		err = putAll(next.maps["targets"], targets)
	}
	if err != nil {
		return fmt.Errorf("copy targets: %v", err)
	}
	return nil
}
