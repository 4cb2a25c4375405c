// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/model"
	"github.com/remora-lb/remora/test/frames"
)

func newWorldGenerator(world *model.Tables, seed uint64) *frames.Generator {
	return frames.NewWorldGenerator(rand.New(rand.NewPCG(seed, 2)), world)
}

func newWorldMaker(world *model.Tables, seed uint64) *sequenceMaker {
	return &sequenceMaker{generator: newWorldGenerator(world, seed), tables: copyOf(world)}
}

// optionCase is what an option did with a frame, and how the frame ended.
type optionCase struct {
	what string
	end  end
}

func (c optionCase) String() string { return c.what + ", " + string(c.end) }

type end string

const (
	sent    end = "forwarded"
	dropped end = "dropped"
	ended   end = "any end" // of what decides the end itself
)

// Every option that is looked for in a packet, and what may come of it.
var (
	waysToLead    = []string{"TCP id", "UDP id", "connection id (Katran)", "connection id (QUIC-LB)"}
	leadOutcomes  = []string{"none", "leads nowhere", "leads"}
	routeOutcomes = []string{"none", "leads nowhere", "leads"}
)

// allOptionCases is all that there are.
func allOptionCases() []optionCase {
	var all []optionCase
	both := func(what string) { all = append(all, optionCase{what, sent}, optionCase{what, dropped}) }
	one := func(what string) { all = append(all, optionCase{what, ended}) }
	for _, way := range waysToLead {
		for _, outcome := range leadOutcomes {
			both(way + ": " + outcome)
		}
	}
	for _, outcome := range routeOutcomes {
		both("source route: " + outcome)
	}
	for _, family := range []string{"IPv4", "IPv6"} {
		for n := range 1 << 3 {
			both(family + hashName(lb.HashInput{NoSourcePort: n&1 != 0, KeepDestinationPort: n&2 != 0, DestinationPortOnly: n&4 != 0}))
		}
		for _, vip := range []string{"exact", "prefix"} {
			both(family + ", " + vip + " VIP of one port")
			both(family + ", " + vip + " VIP of all ports")
		}
		both(family + ", whole packet by client")
		both(family + ", fragment by client")
		both(family + ", ICMP error to a prefix")
		for _, reason := range []lb.Reason{
			lb.ReasonFragment, lb.ReasonFragmentPassed, lb.ReasonLocal, lb.ReasonTooBig, lb.ReasonTooBigTold, lb.ReasonTTLExpired,
		} {
			one(family + ", " + reason.String())
		}
		for _, tunnel := range []lb.Encap{lb.IPIP, lb.GUE} {
			for _, outer := range []string{"IPv4", "IPv6"} {
				for action := lb.DecapBalance; action <= lb.DecapHost; action++ {
					one(decapName(family, tunnel, outer, action))
				}
			}
		}
		both(family + ", decapsulated and balanced")
	}
	one("repaired")
	one("tunnelled, and left so")
	return all
}

func hashName(h lb.HashInput) string { return fmt.Sprintf(", hash inputs %+v", h) }

func decapName(inner string, tunnel lb.Encap, outer string, action lb.DecapAction) string {
	return fmt.Sprintf("%s by %s over %s, action %s", inner, tunnel, outer, action)
}

// optionCoverage adds to coverage what frames of worlds met. What was looked for it learns from the
// model's trace, how the frame ended from the result.
type optionCoverage struct {
	coverage *coverage
	found    []string // for the frame that is processed
	fragment bool
}

// note is told what the model's steps found.
func (c *optionCoverage) note(step, text string) {
	switch step {
	case "parse":
		c.fragment = strings.HasPrefix(text, "a fragment")
	case "server id":
		for _, way := range waysToLead {
			if strings.Contains(text, way) {
				c.found = append(c.found, way+": "+outcomeOf(text))
			}
		}
	case "source route":
		c.found = append(c.found, "source route: "+outcomeOf(text))
	case "icmp":
		if strings.Contains(text, "about") {
			c.found = append(c.found, "ICMP error")
		}
	}
}

// outcomeOf is what a note says came of looking for something.
func outcomeOf(text string) string {
	switch {
	case strings.HasPrefix(text, "no"):
		return "none"
	case strings.Contains(text, " no "):
		return "leads nowhere"
	}
	return "leads"
}

// add counts what the frame met.
func (c *optionCoverage) add(tables *model.Tables, frame []byte, res *model.Result) {
	c.coverage.add(tables, frame, res)
	for _, what := range append(c.found, c.ofResult(tables, frame, res)...) {
		c.coverage.options[optionCase{what, ended}]++
		switch {
		case res.Reason == lb.ReasonForwarded:
			c.coverage.options[optionCase{what, sent}]++
		case res.Verdict == lb.Drop:
			c.coverage.options[optionCase{what, dropped}]++
		}
	}
	c.found, c.fragment = c.found[:0], false
}

// ofResult is what can be told from the result, the frame and the VIP of the real.
func (c *optionCoverage) ofResult(tables *model.Tables, frame []byte, res *model.Result) []string {
	if res.Decapsulated == 0 && (res.Reason == lb.ReasonNotIP || res.Reason == lb.ReasonTruncated) {
		return nil
	}
	family := "IPv4"
	if at := frames.HeaderLen + 4*tags(frame); len(frame) > at && frame[at]>>4 == 6 {
		family = "IPv6"
	}
	var met []string
	if res.Decapsulated != 0 {
		return append(met, c.ofTunnelled(tables, frame, res, family)...)
	}
	met = append(met, family+", "+res.Reason.String())
	if res.Reason == lb.ReasonOtherProtocol && isTunnel(frame, family) {
		met = append(met, "tunnelled, and left so")
	}
	for _, e := range res.Flow.Events {
		if e == lb.FlowRepaired {
			met = append(met, "repaired")
		}
	}
	real, ok := tables.Reals[res.Real]
	if !ok {
		return met
	}
	options := tables.VIPs[real.VIP].Options
	met = append(met, family+hashName(options.Hash), family+", "+vipName(real.VIP))
	switch isError := len(c.found) > 0 && c.found[0] == "ICMP error"; {
	case options.Fragments == lb.FragmentsByClient && c.fragment:
		met = append(met, family+", fragment by client")
	case options.Fragments == lb.FragmentsByClient && !isError:
		met = append(met, family+", whole packet by client")
	case isError && real.VIP.IsPrefix():
		met = append(met, family+", ICMP error to a prefix")
	}
	return met
}

func vipName(vip lb.VIP) string {
	kind, ports := "exact", "one port"
	if vip.IsPrefix() {
		kind = "prefix"
	}
	if vip.Port == 0 {
		ports = "all ports"
	}
	return kind + " VIP of " + ports
}

// ofTunnelled is the same of a packet that was decapsulated.
func (c *optionCoverage) ofTunnelled(tables *model.Tables, frame []byte, res *model.Result, outer string) []string {
	packet := frame[frames.HeaderLen+4*tags(frame):]
	dst, _ := netip.AddrFromSlice(packet[16:20])
	if outer == "IPv6" {
		dst, _ = netip.AddrFromSlice(packet[24:40])
	}
	tunnel := lb.GUE
	if isTunnel(frame, outer) {
		tunnel = lb.IPIP
	}
	action, ok := tables.Decap.Destinations[dst]
	if !ok {
		action = tables.Decap.Others
	}
	inner := fmt.Sprintf("IPv%d", res.Decapsulated)
	return []string{decapName(inner, tunnel, outer, action), inner + ", decapsulated and balanced"}
}

// isTunnel tells whether the packet of a sound frame carries a packet.
func isTunnel(frame []byte, family string) bool {
	packet := frame[frames.HeaderLen+4*tags(frame):]
	protocol := packet[9]
	if family == "IPv6" {
		protocol, _ = behindIPv6(packet)
	}
	return protocol == 4 || protocol == 41
}
