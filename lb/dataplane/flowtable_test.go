// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/remora-lb/remora/lb"
)

// entries lists a table's entries by tag.
func entries(t flowTable) map[uint64]flowEntry {
	all := make(map[uint64]flowEntry)
	t.each(func(e flowEntry) { all[e.tag>>flowTagShift] = e })
	return all
}

func TestFlowBits(t *testing.T) {
	for flows, want := range map[int]int{
		1: 0, 4: 0, 5: 1, 8: 1, 9: 2, 16: 2, 17: 3, 4096: 10, 4097: 11, DefaultFlows: 18, MaxFlows: 24,
	} {
		if got := flowBits(flows); got != want {
			t.Errorf("%d flows: %d bits, want %d", flows, got, want)
		}
	}
}

func TestFlowWords(t *testing.T) {
	const tick = 1024 * time.Millisecond
	for _, tt := range []struct {
		name string
		flow lb.Flow
		now  uint32
	}{
		{"least", lb.Flow{Tag: 1, Real: 1}, 0},
		{"most", lb.Flow{Tag: 1<<55 - 1, Real: lb.MaxRealID, Generation: 255, Slot: lb.MaxRingSize - 1, Idle: tick, Seen: true}, 1000},
		{"ticks have begun again", lb.Flow{Tag: 5, Real: 6, Generation: 7, Slot: 8, Idle: 12 * tick}, 3},
		{"longest pause", lb.Flow{Tag: 5, Real: 6, Idle: flowTickMask / 2 * tick}, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			clock := flowClock{now: tt.now, tick: tick}
			tag, value := clock.words(tt.flow)
			wantEqual(t, "flow", clock.flow(flowEntry{tag: tag, value: value}), tt.flow)
		})
	}
}

// Pauses that no entry can hold.
func TestFlowWordsClampIdle(t *testing.T) {
	clock := flowClock{now: 3, tick: time.Second}
	for idle, want := range map[time.Duration]time.Duration{
		-time.Second:                       0,
		time.Second - 1:                    0,
		90 * time.Minute:                   90 * time.Minute,
		(flowTickMask/2 + 1) * time.Second: flowTickMask / 2 * time.Second,
		1<<63 - 1:                          flowTickMask / 2 * time.Second,
	} {
		tag, value := clock.words(lb.Flow{Tag: 1, Real: 1, Idle: idle})
		if got := clock.flow(flowEntry{tag: tag, value: value}).Idle; got != want {
			t.Errorf("idle for %v is taken for %v, want %v", idle, got, want)
		}
	}
}

// A packet may meet its flow after the clock was read.
func TestIdleOfTheNextTick(t *testing.T) {
	for _, now := range []uint32{0, 7, flowTickMask} {
		clock := flowClock{now: now, tick: time.Second}
		if idle := clock.idle((now + 1) & flowTickMask); idle != 0 {
			t.Errorf("tick after %d: idle for %v, want 0", now, idle)
		}
	}
}

func TestFlowTableAdd(t *testing.T) {
	table := make(flowTable, 16)
	const tag = 0x12_3456_789a_bcde
	buckets := table.buckets(tag)
	if buckets[0] == buckets[1] {
		t.Fatal("the tag has but one bucket")
	}
	for i := range 2 * flowPerBucket {
		// Other tags with the same buckets: bits that lead to no bucket differ.
		word := (tag + uint64(i)<<4) << flowTagShift
		if got := table.buckets(word >> flowTagShift); got != buckets {
			t.Fatalf("tag %d has other buckets", i)
		}
		if !table.add(word, uint64(i)) {
			t.Fatalf("flow %d found no place", i)
		}
		bucket, place := buckets[i/flowPerBucket], i%flowPerBucket
		if bucket.Tag[place] != word || bucket.Value[place] != uint64(i) {
			t.Errorf("flow %d is not in place %d of its bucket %d: %x", i, place, i/flowPerBucket, bucket)
		}
		if !table.has(word >> flowTagShift) {
			t.Errorf("flow %d is not there", i)
		}
	}
	before := fmt.Sprintf("%x", table)
	if table.add((tag+9<<4)<<flowTagShift, 77) || fmt.Sprintf("%x", table) != before {
		t.Error("something gave way to a flow without a place")
	}
}

func TestFlowTableEachSkips(t *testing.T) {
	table := flowTable{
		{Tag: [4]uint64{0, flowClaimed, 5 << flowTagShift, 0}, Value: [4]uint64{1, 2, 3, 4}},
		{},
		{Tag: [4]uint64{0, 0, 0, 6<<flowTagShift | flowSeen}, Value: [4]uint64{5, 6, 7, 8}},
	}
	got := make(map[uint64]uint64)
	table.each(func(e flowEntry) { got[e.tag] = e.value })
	wantEqual(t, "entries", got, map[uint64]uint64{5 << flowTagShift: 3, 6<<flowTagShift | flowSeen: 8})
}

func TestForget(t *testing.T) {
	const tag = 5 << flowTagShift
	for _, tt := range []struct {
		name     string
		met      func(b *nativeFlowBucket)
		tag      uint64
		describe string
	}{
		{"not met since", func(*nativeFlowBucket) {}, 0, "is forgotten"},
		{"met later", func(b *nativeFlowBucket) { b.Value[2]++ }, tag, "stays"},
		{"met after it began", func(b *nativeFlowBucket) { b.Tag[2] |= flowSeen }, tag | flowSeen, "stays"},
		{"another flow's by now", func(b *nativeFlowBucket) { b.Tag[2] = 6 << flowTagShift }, 6 << flowTagShift, "stays"},
		{"being written", func(b *nativeFlowBucket) { b.Tag[2] = flowClaimed }, flowClaimed, "stays"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := nativeFlowBucket{Tag: [4]uint64{0, 0, tag}, Value: [4]uint64{0, 0, 3}}
			e, ok := readEntry(&b, 2)
			if !ok {
				t.Fatal("not found")
			}
			tt.met(&b)
			e.forget()
			if b.Tag[2] != tt.tag {
				t.Errorf("tag word %x, want %x: the entry %s", b.Tag[2], tt.tag, tt.describe)
			}
		})
	}
}

func TestFlowTableCopy(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	from := make(flowTable, 64)
	for range 100 {
		from.add(random.Uint64()|1<<flowTagShift, random.Uint64())
	}
	want := entries(from)
	for _, size := range []int{128, 1024} {
		to := make(flowTable, size)
		if lost := to.copyFrom(from); lost != 0 {
			t.Errorf("%d buckets: %d flows lost", size, lost)
		}
		if lost := to.copyFrom(from); lost != 0 || len(entries(to)) != len(want) {
			t.Errorf("%d buckets: %d flows lost by copying twice, %d there", size, lost, len(entries(to)))
		}
		for tag, e := range entries(to) {
			if e.tag != want[tag].tag || e.value != want[tag].value {
				t.Errorf("%d buckets: tag %x has %x, %x; want %x, %x", size, tag, e.tag, e.value, want[tag].tag, want[tag].value)
			}
		}
	}
	if lost := make(flowTable, 1).copyFrom(from); lost != len(want)-flowPerBucket {
		t.Errorf("1 bucket: %d flows lost, want %d", lost, len(want)-flowPerBucket)
	}
}

func BenchmarkSweep(b *testing.B) {
	for _, flows := range []int{0, 1000, 1 << 20} {
		b.Run(fmt.Sprintf("flows=%d", flows), func(b *testing.B) {
			table := make(flowTable, 1<<18)
			for i := range flows {
				bucket := &table[i%len(table)]
				bucket.Tag[i/len(table)] = uint64(i+1) << flowTagShift
			}
			clock, n := flowClock{tick: time.Second}, 0
			for b.Loop() {
				table.each(func(e flowEntry) {
					if f := clock.flow(e); f.Idle == 0 {
						n++
					}
				})
			}
			if n != flows*b.N {
				b.Errorf("%d entries, want %d times %d", n, b.N, flows)
			}
		})
	}
}
