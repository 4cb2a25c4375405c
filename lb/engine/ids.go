// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"time"

	"github.com/remora-lb/remora/lb"
)

// ids gives reals and rings their ids and keeps them: the same real, and the ring of the same VIP,
// have one id for as long as they are wanted or in the data plane.
type ids struct {
	quarantine time.Duration
	reals      map[realKey]lb.RealID
	rings      map[lb.VIP]lb.RingID
	realPool   *pool[lb.RealID, realKey]
	ringPool   *pool[lb.RingID, lb.VIP]
	// generations count how often each id was given to a real, modulo 256.
	generations map[lb.RealID]uint8
}

func newIDs(quarantine time.Duration) *ids {
	return &ids{
		quarantine: quarantine,
		reals:      make(map[realKey]lb.RealID),
		rings:      make(map[lb.VIP]lb.RingID),
		// 0 in a slot means that no real has it.
		realPool: newPool[lb.RealID, realKey](1, lb.MaxRealID),
		ringPool: newPool[lb.RingID, lb.VIP](0, 1<<30),

		generations: make(map[lb.RealID]uint8),
	}
}

// adopt keeps the ids of a previous run. Unused ids below the greatest may be those of reals that
// it deleted a moment before it ended, so they rest too.
func (a *ids) adopt(s state, now time.Time) {
	var greatest lb.RealID
	for _, r := range sortedReals(s.reals) {
		key := keyOf(r)
		a.realPool.claim(r.ID, key)
		a.generations[r.ID] = r.Generation
		if _, twice := a.reals[key]; !twice { // the lowest id stays, the others go when all is settled
			a.reals[key] = r.ID
		}
		greatest = max(greatest, r.ID)
	}
	for _, v := range s.vips {
		a.ringPool.claim(v.RingID, v.VIP)
		a.rings[v.VIP] = v.RingID
	}
	a.realPool.restBelow(greatest, now.Add(a.quarantine))
}

// real is the id of a real; ok is false if there is none left.
func (a *ids) real(k realKey) (id lb.RealID, ok bool) {
	if id, ok = a.reals[k]; ok {
		return id, true
	}
	if id, ok = a.realPool.take(k); ok {
		a.reals[k] = id
		a.generations[id]++
	}
	return id, ok
}

// meet takes note of a remembered flow that names a real which is not there: a previous run deleted that
// a moment before it ended. Its id rests as if it had been deleted now, and the next holder is of another
// generation.
func (a *ids) meet(id lb.RealID, generation uint8, now time.Time) {
	if id == 0 {
		return // garbage
	}
	a.generations[id] = generation
	a.realPool.release(id, now.Add(a.quarantine))
}

// generation tells the present holder of an id from earlier ones. It starts anew for ids that rested
// when the daemon did, but those of which flows are remembered.
func (a *ids) generation(id lb.RealID) uint8 { return a.generations[id] }

// ring is the id of a VIP's ring; ok is false if there is none left.
func (a *ids) ring(v lb.VIP) (id lb.RingID, ok bool) {
	if id, ok = a.rings[v]; ok {
		return id, true
	}
	if id, ok = a.ringPool.take(v); ok {
		a.rings[v] = id
	}
	return id, ok
}

// release takes back what is neither in the data plane nor wanted. Ids of reals rest first; those
// of rings need not, since nothing but a VIP names a ring.
func (a *ids) release(have, want state, now time.Time) {
	for id, key := range a.realPool.taken {
		if _, ok := have.reals[id]; ok {
			continue
		}
		if _, ok := want.reals[id]; ok {
			continue
		}
		a.realPool.release(id, now.Add(a.quarantine))
		if a.reals[key] == id {
			delete(a.reals, key)
		}
	}
	for id, vip := range a.ringPool.taken {
		if have.rings[id] == nil && want.rings[id] == nil {
			a.ringPool.release(id, now)
			delete(a.rings, vip)
		}
	}
	a.ringPool.expire(now)
}

// expire makes ids that have rested free again.
func (a *ids) expire(now time.Time) { a.realPool.expire(now) }

// pool hands out the lowest free id. An id is taken, or resting, or free.
type pool[ID ~uint32, Owner any] struct {
	first, last ID
	lowest      ID // no id below it is free
	taken       map[ID]Owner
	resting     map[ID]time.Time // until when
	// All ids below the adopted greatest that are not taken rest until gapsUntil.
	gapsUntil time.Time
}

func newPool[ID ~uint32, Owner any](first, last ID) *pool[ID, Owner] {
	return &pool[ID, Owner]{
		first: first, last: last, lowest: first,
		taken:   make(map[ID]Owner),
		resting: make(map[ID]time.Time),
	}
}

// claim takes a certain id.
func (p *pool[ID, Owner]) claim(id ID, o Owner) { p.taken[id] = o }

// restBelow lets all ids below id rest that are not taken. It must come before the first take, and
// until must not be later than that of any id released afterwards.
func (p *pool[ID, Owner]) restBelow(id ID, until time.Time) {
	p.lowest = max(p.lowest, id)
	p.gapsUntil = until
}

// take hands out the lowest free id; ok is false if there is none.
func (p *pool[ID, Owner]) take(o Owner) (id ID, ok bool) {
	for ; p.lowest <= p.last; p.lowest++ {
		if _, taken := p.taken[p.lowest]; taken {
			continue
		}
		if _, rests := p.resting[p.lowest]; rests {
			continue
		}
		p.taken[p.lowest] = o
		return p.lowest, true
	}
	return 0, false
}

// release lets an id rest until a time.
func (p *pool[ID, Owner]) release(id ID, until time.Time) {
	delete(p.taken, id)
	p.resting[id] = until
}

// expire frees the ids whose rest is over.
func (p *pool[ID, Owner]) expire(now time.Time) {
	if !p.gapsUntil.IsZero() && !now.Before(p.gapsUntil) {
		p.gapsUntil = time.Time{}
		p.lowest = p.first
	}
	for id, until := range p.resting {
		if !now.Before(until) {
			delete(p.resting, id)
			p.lowest = min(p.lowest, id)
		}
	}
}
