// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"encoding/binary"
	"fmt"
	"iter"
	"maps"
	"slices"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/model"
	"github.com/remora-lb/remora/test/frames"
)

// combination is what matters of a forwarded frame and its way.
type combination struct {
	inner6, outer6 bool
	encap          lb.Encap
	checksum       bool // GUE's
	defaultRing    bool // of lb.DefaultRingSize slots
	tags           int  // VLAN tags
}

// combinations is all that there are.
func combinations() []combination {
	var all []combination
	for n := range 2 * 2 * 2 * 3 {
		c := combination{inner6: n&1 != 0, outer6: n&2 != 0, defaultRing: n&4 != 0, tags: n / 8}
		gue, gueChecksum := c, c
		gue.encap = lb.GUE
		gueChecksum.encap, gueChecksum.checksum = lb.GUE, true
		all = append(all, c, gue, gueChecksum)
	}
	return all
}

// coverage counts what frames met.
type coverage struct {
	reasons   [lb.ReasonLen]int
	forwarded map[combination]int
	// Of the forwarded, those that are ICMP errors: by their way and by what they are.
	errorWays map[combination]int
	errors    map[steered]int
	// Of those that meet the flow table.
	flows  map[flowCase]int
	events [lb.FlowEventLen]int
	// Of worlds.
	options map[optionCase]int
}

func newCoverage() *coverage {
	return &coverage{
		forwarded: map[combination]int{}, errorWays: map[combination]int{}, errors: map[steered]int{},
		flows: map[flowCase]int{}, options: map[optionCase]int{},
	}
}

func (c *coverage) add(tables *model.Tables, frame []byte, res *model.Result) {
	c.reasons[res.Reason]++
	for _, e := range res.Flow.Events {
		c.events[e]++
	}
	if res.Decapsulated != 0 || isByClient(tables, res) {
		return // what is read below is of whole frames that were not changed before
	}
	if res.Flow.Flow != (model.Flow{}) {
		c.flows[flowCaseOf(tables, frame, res.Flow)]++
	}
	if res.Reason != lb.ReasonForwarded {
		return
	}
	real := tables.Reals[res.Real]
	way := combination{
		inner6:      real.VIP.Addr.Is6(),
		outer6:      real.Tunnel.Destination.Is6(),
		encap:       real.Tunnel.Encap,
		checksum:    real.Tunnel.Checksum,
		defaultRing: len(tables.VIPs[real.VIP].Ring) == lb.DefaultRingSize,
		tags:        tags(frame),
	}
	c.forwarded[way]++
	if kind, ok := steeredError(frame, real.VIP); ok {
		c.errorWays[way]++
		c.errors[kind]++
	}
}

// isByClient tells whether the packet is one of a VIP whose fragments go by client.
func isByClient(tables *model.Tables, res *model.Result) bool {
	if real, ok := tables.Reals[res.Real]; ok {
		return tables.VIPs[real.VIP].Options.Fragments == lb.FragmentsByClient
	}
	for name, vip := range tables.VIPs {
		if name.Addr == res.Flow.Flow.Dst && name.Protocol == res.Flow.Flow.Protocol && vip.Options.Fragments == lb.FragmentsByClient {
			return true
		}
	}
	return false
}

// String is the least of everything that was met.
func (c *coverage) String() string {
	least := func(counts iter.Seq[int]) int { return slices.Min(slices.Collect(counts)) }
	return fmt.Sprintf("reasons %v; flow events %v; of each way at least %d frames and %d ICMP errors, of each kind of error at least %d; "+
		"of each case at the flow table at least %d, of each of an option at least %d", c.reasons, c.events, least(maps.Values(c.forwarded)), least(maps.Values(c.errorWays)),
		least(maps.Values(c.errors)), least(func(yield func(int) bool) {
			for _, of := range allFlowCases() {
				if !yield(c.flows[of]) {
					return
				}
			}
		}), least(func(yield func(int) bool) {
			for _, of := range allOptionCases() {
				if !yield(c.options[of]) {
					return
				}
			}
		}))
}

// tags counts the VLAN tags of a frame that was forwarded.
func tags(frame []byte) int {
	n := 0
	for at := frames.HeaderLen; ; at += 4 {
		etherType := binary.BigEndian.Uint16(frame[at-2:])
		if etherType != frames.EtherTypeTag && etherType != frames.EtherTypeSTag {
			return n
		}
		n++
	}
}

// lacks names what was met less often than it should be. The model never gives no_room, and echo_limited
// only where answers are limited.
func (c *coverage) lacks(leastReason, leastCombination, leastErrors, leastFlowCase int) []string {
	var lacks []string
	for i, n := range c.reasons {
		if r := lb.Reason(i); n < leastReason && r != lb.ReasonNoRoom && r != lb.ReasonEchoLimited {
			lacks = append(lacks, fmt.Sprintf("%s: %d frames", r, n))
		}
	}
	for _, of := range combinations() {
		if n := c.forwarded[of]; n < leastCombination {
			lacks = append(lacks, fmt.Sprintf("forwarded with %+v: %d frames", of, n))
		}
	}
	for _, of := range combinations() {
		if n := c.errorWays[of]; n < leastErrors {
			lacks = append(lacks, fmt.Sprintf("ICMP errors forwarded with %+v: %d frames", of, n))
		}
	}
	for _, of := range allFlowCases() {
		if n := c.flows[of]; n < leastFlowCase {
			lacks = append(lacks, fmt.Sprintf("at the flow table %s: %d frames", of, n))
		}
	}
	for _, of := range allOptionCases() {
		if n := c.options[of]; n < leastFlowCase {
			lacks = append(lacks, fmt.Sprintf("%s: %d frames", of, n))
		}
	}
	for _, of := range allSteered() {
		if n := c.errors[of]; n < leastErrors {
			lacks = append(lacks, fmt.Sprintf("ICMP errors forwarded that are %+v: %d frames", of, n))
		}
	}
	return lacks
}

func TestCoverageIsJudged(t *testing.T) {
	c := newCoverage()
	if got, want := len(c.lacks(1, 1, 1, 1)), int(lb.ReasonLen)-2+2*(2*2*3*2*3)+(32+16)+len(allFlowCases())+len(allOptionCases()); got != want {
		t.Errorf("no frames lack %d kinds of coverage, want %d", got, want)
	}
	for i := range c.reasons {
		c.reasons[i] = 7
	}
	for _, of := range combinations() {
		c.forwarded[of], c.errorWays[of] = 3, 2
	}
	for _, of := range allSteered() {
		c.errors[of] = 2
	}
	for _, of := range allFlowCases() {
		c.flows[of] = 1
	}
	for _, of := range allOptionCases() {
		c.options[of] = 1
	}
	if lacks := c.lacks(7, 3, 2, 1); len(lacks) != 0 {
		t.Errorf("enough frames lack %q", lacks)
	}
	c.reasons[lb.ReasonICMP]--
	c.forwarded[combination{outer6: true, tags: 2}]--
	c.errorWays[combination{inner6: true, tags: 1}]--
	c.errors[steered{udp: true}]--
	delete(c.flows, flowCase{lb.FlowQUIC, lb.SlotMoving, packetInitial, model.ChangeRemember})
	delete(c.options, optionCase{"repaired", ended})
	if lacks := c.lacks(7, 3, 2, 1); len(lacks) != 6 {
		t.Errorf("six kinds of frames too few lack %q", lacks)
	}
}
