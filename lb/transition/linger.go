// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package transition

import "slices"

// Mark is a moment in the life of one History: it tells the slots that linger by then from those
// that begin to linger later.
type Mark uint32

// lingering is a slot of which flows may be remembered that are elsewhere than at its real.
type lingering struct {
	slot  uint32
	since Mark
}

// Mark is the present moment.
func (h *History) Mark() Mark { return h.mark }

// Linger makes the slots linger for which where is true: the flow table may hold flows of theirs
// that this History knows nothing of, since they were remembered before it began or elsewhere. A
// slot that changed within the window lingers after it, as always.
func (h *History) Linger(where func(slot uint32) bool) {
	var slots []uint32
	for i := range h.choice {
		if where(uint32(i)) {
			slots = append(slots, uint32(i))
		}
	}
	h.mark++
	h.lingering = merge(h.lingering, slots, h.mark)
}

// Prove ends the lingering of slots of which no flow is remembered elsewhere, and tells whether
// there were any. It is to be called after a look over the whole flow table, whose result elsewhere
// gives. The mark is of when the slots were derived that had been written as the look began: of
// those that linger only since then, it proves nothing, since flows may have been remembered behind
// the look's back.
func (h *History) Prove(mark Mark, elsewhere func(slot uint32) bool) bool {
	n := len(h.lingering)
	left := slices.DeleteFunc(h.lingering, func(l lingering) bool {
		return l.since <= mark && !elsewhere(l.slot)
	})
	h.lingering = slices.Clone(left) // without the room of those that went
	return len(h.lingering) < n
}

// merge adds slots, which are ascending, to those that linger. One that lingers already does so
// anew.
func merge(old []lingering, slots []uint32, since Mark) []lingering {
	all := make([]lingering, 0, len(old)+len(slots))
	for _, slot := range slots {
		for len(old) > 0 && old[0].slot < slot {
			all = append(all, old[0])
			old = old[1:]
		}
		if len(old) > 0 && old[0].slot == slot {
			old = old[1:]
		}
		all = append(all, lingering{slot: slot, since: since})
	}
	return append(all, old...)
}
