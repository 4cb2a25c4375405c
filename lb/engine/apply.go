// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"
)

// apply does the steps in their order and stops at the first that fails, since the later ones rely
// on it, or when ctx ends. The next pass begins with a fresh diff.
func (e *Engine) apply(ctx context.Context, steps []step) error {
	for _, s := range steps {
		if ctx.Err() != nil {
			return fmt.Errorf("apply changes: %v", context.Cause(ctx))
		}
		e.log.Debug("apply", "step", s)
		if err := s.apply(e); err != nil {
			return err
		}
	}
	return nil
}

// Each apply below puts what it touches in doubt, calls the verb, and ends the doubt if that
// succeeded.

func (s reserve) apply(e *Engine) error {
	if err := e.dp.Reserve(s.capacity); err != nil {
		return fmt.Errorf("reserve room for %d reals and %d ring slots: %v", s.capacity.Reals, s.capacity.RingSlots, err)
	}
	e.have.reserved = s.capacity
	return nil
}

func (s setReals) apply(e *Engine) error {
	for _, r := range s.reals {
		e.have.reals[r.ID] = r
		e.have.doubtReals[r.ID] = true
	}
	if err := e.dp.SetReals(s.reals); err != nil {
		return fmt.Errorf("set %d reals: %v", len(s.reals), err)
	}
	for _, r := range s.reals {
		delete(e.have.doubtReals, r.ID)
	}
	return nil
}

func (s setRing) apply(e *Engine) error {
	e.have.doubtVIPs = e.have.doubtVIPs || e.have.moves(s.id, s.ring)
	e.have.doubtRings[s.id] = true
	e.have.rings[s.id] = s.ring
	written, err := e.dp.SetRing(s.id, s.ring.slots)
	if err != nil {
		return fmt.Errorf("set ring %d of VIP %s: %v", s.id, s.ring.vip, err)
	}
	delete(e.have.doubtRings, s.id)
	if s.repeat && written > 0 {
		e.log.Warn("repaired a ring that was not as it was written", "vip", s.ring.vip, "slots", written)
	}
	return nil
}

func (s setVIPs) apply(e *Engine) error {
	e.have.doubtVIPs = true
	if err := e.dp.SetVIPs(s.vips); err != nil {
		return fmt.Errorf("set %d VIPs: %v", len(s.vips), err)
	}
	clear(e.have.vips)
	for _, v := range s.vips {
		e.have.vips[v.VIP] = v
	}
	e.have.doubtVIPs = false
	return nil
}

func (s deleteRing) apply(e *Engine) error {
	e.have.doubtRings[s.id] = true
	if err := e.dp.DeleteRing(s.id); err != nil {
		return fmt.Errorf("delete ring %d: %v", s.id, err)
	}
	delete(e.have.doubtRings, s.id)
	delete(e.have.rings, s.id)
	return nil
}

func (s deleteReals) apply(e *Engine) error {
	for _, id := range s.ids {
		e.have.doubtReals[id] = true
	}
	if err := e.dp.DeleteReals(s.ids); err != nil {
		return fmt.Errorf("delete %d reals: %v", len(s.ids), err)
	}
	for _, id := range s.ids {
		delete(e.have.doubtReals, id)
		delete(e.have.reals, id)
	}
	return nil
}
