// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/binary"
	"math/rand/v2"
	"time"
)

const tcpFIN = 0x01

// flowState is what the next packet of a flow is.
type flowState uint8

const (
	flowBegins flowState = iota
	flowGoesOn
	flowEnds
)

// flow is one connection of a client; after its end another one takes its place. Times are since the
// beginning of the run.
type flow struct {
	began  burst
	last   time.Duration
	server int32 // that of its first packet; -1 before it
	left   uint16
	port   uint16
	state  flowState
	tries  uint8 // of the present packet that did not come back
	age    Age   // when a balancer was lost; empty for those that began later
}

// Flows live for at most this many packets, and this many tries of one.
const (
	shortFlow = 20
	longFlow  = 60_000 // longer than a run
	maxTries  = 4
)

// churnTick is the grain of pauses.
const churnTick = 10 * time.Millisecond

// clients are all flows, and when each sends its next packet. One goroutine uses them.
type clients struct {
	rng   *rand.Rand
	flows []flow
	// wheel has the numbers of flows by the tick in which they send, modulo its length.
	wheel [][]uint32
	tick  int64 // the first that was not taken out yet
	pause time.Duration
}

// newClients has n flows that begin within the given time, and never pause for longer than the
// given one.
func newClients(rng *rand.Rand, n int, within, pause time.Duration) *clients {
	c := &clients{rng: rng, flows: make([]flow, n), pause: pause}
	c.wheel = make([][]uint32, max(pause, within)/churnTick+2)
	for i := range c.flows {
		c.flows[i].port = uint16(1024 + rng.IntN(1<<15))
		c.begin(uint32(i), time.Duration(rng.Int64N(int64(within))))
	}
	return c
}

// begin has a new flow at a number; half of them outlive the run.
func (c *clients) begin(number uint32, at time.Duration) {
	f := &c.flows[number]
	port := 1024 + (f.port-1024+1)%(1<<15) // another one than that of the last
	*f = flow{server: -1, port: port, left: longFlow}
	if c.rng.IntN(2) == 0 {
		f.left = uint16(1 + c.rng.IntN(shortFlow))
	}
	c.at(number, at)
}

// at has the flow send at that time.
func (c *clients) at(number uint32, at time.Duration) {
	tick := max(int64(at/churnTick), c.tick)
	tick = min(tick, c.tick+int64(len(c.wheel))-1)
	slot := &c.wheel[tick%int64(len(c.wheel))]
	*slot = append(*slot, number)
}

// goOn has the flow send its next packet after a pause: soon after its first one, as a handshake
// goes on, later mostly within a tenth of the longest pause, and now and then after up to all of it.
func (c *clients) goOn(number uint32, now time.Duration) {
	f := &c.flows[number]
	pause := c.pause/10 + time.Duration(c.rng.Int64N(int64(c.pause/2)))
	switch {
	case f.state == flowBegins:
		pause = 50*time.Millisecond + time.Duration(c.rng.Int64N(int64(150*time.Millisecond)))
	case c.rng.IntN(8) == 0:
		pause = time.Duration(c.rng.Int64N(int64(c.pause)))
	}
	f.state = flowGoesOn
	if f.left--; f.left == 0 {
		f.state = flowEnds
	}
	c.at(number, now+pause)
}

// due takes out the flows that send until now, at most n, in a random order of paths.
func (c *clients) due(now time.Duration, n int) (numbers []uint32) {
	for ; c.tick <= int64(now/churnTick) && len(numbers) < n; c.tick++ {
		slot := &c.wheel[c.tick%int64(len(c.wheel))]
		taken := min(len(*slot), n-len(numbers))
		numbers = append(numbers, (*slot)[:taken]...)
		if taken < len(*slot) {
			*slot = append((*slot)[:0], (*slot)[taken:]...)
			break
		}
		*slot = (*slot)[:0]
	}
	return numbers
}

// order is the flow's next packet.
func (c *clients) order(number uint32) order {
	f := c.flows[number]
	o := order{port: f.port, flags: tcpACK}
	binary.BigEndian.PutUint32(o.source[:], 10<<24|number)
	switch f.state {
	case flowBegins:
		o.flags = tcpSYN
	case flowEnds:
		o.flags = tcpACK | tcpFIN
	}
	return o
}

// path is one of churnPaths, the choice of the router for the packet, by its source.
func (o order) path() int {
	hash := binary.BigEndian.Uint32(o.source[:])*0x9e3779b1 ^ uint32(o.port)*0x85ebca6b
	return int(hash >> 24)
}

// churnPaths is how many ways the router spreads flows over: those of the upper byte of a hash.
const churnPaths = 256
