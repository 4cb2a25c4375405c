// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package transition

import (
	"slices"
	"testing"
)

// these is true for the slots named.
func these(slots ...uint32) func(uint32) bool {
	return func(slot uint32) bool { return slices.Contains(slots, slot) }
}

func TestProve(t *testing.T) {
	h := New(choice(1, 1, 1, 1))
	h.Change(at(1), choice(1, 2, 2, 2))
	h.Change(at(2), choice(1, 2, 2, 3))
	if h.Prove(h.Mark(), noSlot) {
		t.Error("a slot was proven that does not linger")
	}
	h.Forget(at(1))
	wantSlots(t, h, anyReal, "stable 1, lingering 2, lingering 2, moving 3 from 2")
	if h.Prove(h.Mark(), these(1, 2, 3)) {
		t.Error("a slot was proven that has flows elsewhere")
	}
	if !h.Prove(h.Mark(), these(2)) {
		t.Error("no slot was proven")
	}
	wantSlots(t, h, anyReal, "stable 1, stable 2, lingering 2, moving 3 from 2")
	h.Forget(at(2))
	wantSlots(t, h, anyReal, "stable 1, stable 2, lingering 2, lingering 3")
	h.Prove(h.Mark(), noSlot)
	wantSlots(t, h, anyReal, "stable 1, stable 2, stable 2, stable 3")
}

// A look proves nothing of slots that begin to linger while it lasts.
func TestProveLooksBeforeMark(t *testing.T) {
	h := New(choice(1, 1, 1))
	h.Change(at(1), choice(2, 2, 1))
	h.Change(at(2), choice(2, 3, 1))
	h.Forget(at(1))
	mark := h.Mark()
	wantSlots(t, h, anyReal, "lingering 2, moving 3 from 2, stable 1")
	h.Change(at(3), choice(2, 3, 4))
	h.Forget(at(2))
	wantSlots(t, h, anyReal, "lingering 2, lingering 3, moving 4 from 1")
	h.Prove(mark, noSlot)
	wantSlots(t, h, anyReal, "stable 2, lingering 3, moving 4 from 1")
}

// Nor of a slot that lingered, changed and lingers again.
func TestProveLooksAtLastTime(t *testing.T) {
	h := changes(1, 2)
	h.Forget(at(1))
	mark := h.Mark()
	h.Change(at(2), choice(3))
	h.Forget(at(2))
	if h.Prove(mark, noSlot) {
		t.Error("a slot was proven that lingers anew")
	}
	wantSlots(t, h, anyReal, "lingering 3")
	h.Prove(h.Mark(), noSlot)
	wantSlots(t, h, anyReal, "stable 3")
}

// A proof while the slot changes again is no proof of what it does after.
func TestProveWhileSlotMoves(t *testing.T) {
	h := changes(1, 2)
	h.Forget(at(1))
	h.Change(at(2), choice(3))
	h.Prove(h.Mark(), noSlot)
	wantSlots(t, h, anyReal, "moving 3 from 2")
	h.Forget(at(2))
	wantSlots(t, h, anyReal, "lingering 3")
}

func TestLinger(t *testing.T) {
	h := New(choice(1, 1, 1, 1))
	h.Change(at(1), choice(1, 1, 1, 2))
	mark := h.Mark()
	h.Linger(these(0, 2, 3))
	wantSlots(t, h, anyReal, "lingering 1, stable 1, lingering 1, moving 2 from 1")
	if h.Prove(mark, noSlot) {
		t.Error("an earlier look proved a slot")
	}
	mark = h.Mark()
	h.Linger(these(1, 2))
	h.Prove(mark, noSlot)
	wantSlots(t, h, anyReal, "stable 1, lingering 1, lingering 1, moving 2 from 1")
}
