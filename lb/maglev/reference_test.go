// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package maglev

import (
	"bytes"
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"testing"

	"github.com/remora-lb/remora/lb"
)

// reference is a ring by the definition and nothing else: round by round, candidate by candidate,
// each computed anew in 32 bits. ok is false if it gave up after maxTries candidates of one turn;
// some rings it would never finish.
func reference(ring lb.Ring, members []Member, maxTries int) (slots []lb.Slot, ok bool) {
	var order []Member
	var greatest uint64
	for _, m := range members {
		if m.Weight > 0 {
			order = append(order, m)
			greatest = max(greatest, uint64(m.Weight))
		}
	}
	slices.SortFunc(order, func(a, b Member) int {
		// Different addresses may share their hash; the address decides then.
		return cmp.Or(cmp.Compare(AddrHash(a.Addr), AddrHash(b.Addr)), a.Addr.Compare(b.Addr))
	})
	slots = make([]lb.Slot, ring.Size)
	next := make([]uint32, len(order))
	sums := make([]uint64, len(order))
	left := int(ring.Size)
	for round := 0; left > 0 && len(order) > 0; round++ {
		for i, m := range order {
			turns := 1
			if ring.Hash == lb.MaglevV1 && round == 0 {
				turns = int(m.Weight)
			}
			if ring.Hash == lb.MaglevV2 {
				sums[i] += uint64(m.Weight)
				if sums[i] < greatest {
					continue
				}
				sums[i] -= greatest
			}
			for ; turns > 0 && left > 0; turns-- {
				if !referenceTake(slots, m, &next[i], maxTries) {
					return nil, false
				}
				left--
			}
		}
	}
	return slots, true
}

func referenceTake(slots []lb.Slot, m Member, j *uint32, maxTries int) bool {
	size, hash := uint32(len(slots)), AddrHash(m.Addr)
	offset := uint32(murmur(hash, 42, 0) % uint64(size))
	skip := uint32(murmur(hash, 2718281828, 2307)%uint64(size-1)) + 1
	for range maxTries {
		pos := (offset + *j*skip) % size
		*j++
		if slots[pos] == 0 {
			slots[pos] = lb.StableSlot(m.ID)
			return true
		}
	}
	return false
}

// wantReference compares a ring with the reference's.
func wantReference(t interface {
	Helper()
	Fatalf(string, ...any)
}, ring lb.Ring, members []Member) {
	t.Helper()
	got, err := Build(ring, members)
	if err != nil {
		t.Fatalf("Build: %v", err)
	}
	want, ok := reference(ring, members, 1<<24)
	if !ok {
		t.Fatalf("%s of %d slots, %d members: the reference gave up", ring.Hash, ring.Size, len(members))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("%s of %d slots, %d members: slot %d is %#x, want %#x",
				ring.Hash, ring.Size, len(members), i, got[i], want[i])
		}
	}
}

func build(t *testing.T, ring lb.Ring, members []Member) []lb.Slot {
	t.Helper()
	slots, err := Build(ring, members)
	if err != nil {
		t.Fatal(err)
	}
	if len(slots) != int(ring.Size) {
		t.Fatalf("%d slots, want %d", len(slots), ring.Size)
	}
	return slots
}

// share counts the slots of each id.
func share(slots []lb.Slot) map[lb.RealID]int {
	n := map[lb.RealID]int{}
	for _, s := range slots {
		n[s.Cur()]++
	}
	return n
}

// differing counts the slots in which two rings differ.
func differing(a, b []lb.Slot) (n int) {
	for i := range a {
		if a[i] != b[i] {
			n++
		}
	}
	return n
}

// numbered are members with ids from 1 on, with these weights and the addresses that follow base.
func numbered(base string, weights ...uint32) []Member {
	addr := netip.MustParseAddr(base)
	members := make([]Member, len(weights))
	for i, w := range weights {
		addr = addr.Next()
		members[i] = Member{ID: lb.RealID(i + 1), Addr: addr, Weight: w}
	}
	return members
}

// equal are n weights of w.
func equal(n int, w uint32) []uint32 { return slices.Repeat([]uint32{w}, n) }

// text writes slots as ids with blanks between.
func text(slots []lb.Slot) string {
	var b bytes.Buffer
	for i, s := range slots {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(strconv.Itoa(int(s.Cur())))
	}
	return b.String()
}
