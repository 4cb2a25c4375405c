// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/model"
)

// ErrNoReal is wrapped by errors of Real that say that there is no such backend.
var ErrNoReal = errors.New("no such real")

// MaxExamples bounds how many examples are looked for on each VIP.
const MaxExamples = 1000

// RealReport is which flows reach a backend, on each of its VIPs.
type RealReport struct {
	Address string     `json:"address"`
	VIPs    []RealOnIt `json:"vips"`
}

// RealOnIt is a backend's part of one VIP.
type RealOnIt struct {
	Real
	RingSize uint32 `json:"ring_size"`
	// Slots counts those that give the real new connections, by state; PreviousSlots the moving ones from
	// which it still has older ones.
	Slots         map[string]int `json:"slots"`
	PreviousSlots int            `json:"previous_slots"`
	// Flows counts the remembered flows that name the real.
	Flows int `json:"flows"`
	// Examples are packets that reach the real, of clients that are made up, for ParsePacket.
	Examples []string `json:"examples"`
}

// Real says which flows reach a backend: on one VIP, or, if that is zero, on all. It gives up to so many
// examples on each.
func (w *World) Real(addr netip.Addr, vip lb.VIP, examples int) (*RealReport, error) {
	if examples < 0 || examples > MaxExamples {
		return nil, fmt.Errorf("explain real: %d examples, not 0 to %d", examples, MaxExamples)
	}
	reals := slices.DeleteFunc(slices.Clone(w.Reals), func(r lb.Real) bool {
		return r.Backend.Addr != addr || vip != (lb.VIP{}) && r.VIP != vip
	})
	if len(reals) == 0 {
		return nil, w.noReal(addr, vip)
	}
	slices.SortFunc(reals, func(a, b lb.Real) int { return cmp.Or(a.VIP.Compare(b.VIP), cmp.Compare(a.ID, b.ID)) })
	flows := w.flowsByReal()
	report := &RealReport{Address: addr.String()}
	for _, real := range reals {
		one, err := w.realOnIt(real, flows[holder{real.ID, real.Generation}], examples)
		if err != nil {
			return nil, err
		}
		report.VIPs = append(report.VIPs, *one)
	}
	return report, nil
}

// noReal says what there is in place of a real that is not there.
func (w *World) noReal(addr netip.Addr, vip lb.VIP) error {
	var has []string
	for _, r := range w.Reals {
		if text := r.Backend.Addr.String(); (vip == lb.VIP{} || r.VIP == vip) && !slices.Contains(has, text) {
			has = append(has, text)
		}
	}
	slices.Sort(has)
	const most = 10
	if len(has) > most {
		has = append(has[:most], "...")
	}
	what := addr.String()
	if vip != (lb.VIP{}) {
		what += " of " + vip.String()
	}
	if len(has) == 0 {
		return fmt.Errorf("%w: %s, nor any other", ErrNoReal, what)
	}
	return fmt.Errorf("%w: %s; there are %s", ErrNoReal, what, strings.Join(has, ", "))
}

// holder is a real as remembered flows name it.
type holder struct {
	id         lb.RealID
	generation uint8
}

// flowsByReal counts the remembered flows.
func (w *World) flowsByReal() map[holder]int {
	n := make(map[holder]int)
	w.Tables.Flows(func(f lb.Flow) { n[holder{f.Real, f.Generation}]++ })
	return n
}

func (w *World) realOnIt(real lb.Real, flows, examples int) (*RealOnIt, error) {
	v := w.entry(real.VIP)
	one := &RealOnIt{Real: *w.describeReal(real, 0), RingSize: v.Ring.Size, Slots: make(map[string]int), Flows: flows, Examples: []string{}}
	for _, s := range w.Tables.Slots(v.RingID) {
		if s.Cur() == real.ID {
			one.Slots[s.State().String()]++
		}
		if s.State() == lb.SlotMoving && s.Prev() == real.ID {
			one.PreviousSlots++
		}
	}
	var err error
	if len(one.Slots) > 0 {
		one.Examples, err = w.examples(real, flagSYN, examples)
	} else if one.PreviousSlots > 0 {
		one.Examples, err = w.examples(real, flagACK, examples)
	}
	return one, err
}

// The clients of examples: 254 of a network that is kept for documentation (RFC 5737, RFC 3849), each from
// so many ports.
const (
	exampleHosts = 254
	examplePorts = 100
	firstPort    = 40000
)

// examples are packets that reach the real: it looks where the model sends those of made-up clients.
func (w *World) examples(real lb.Real, flags byte, most int) ([]string, error) {
	found := []string{}
	to := w.exampleDestination(real.VIP)
	var tables *model.Tables // but for flows and source routes, which few examples meet
	for n := 0; n < exampleHosts*examplePorts && len(found) < most; n++ {
		p := packetSpec{protocol: real.VIP.Protocol, src: exampleClient(to.Addr().Is6(), n), dst: to}
		if p.protocol == lb.TCP {
			p.flags = flags
		}
		p.bytes = p.headersLen()
		frame := p.frame()
		if tables == nil {
			var err error
			if tables, err = w.modelTables(frame); err != nil {
				return nil, err
			}
		}
		if tables.Process(frame, nil).Real != real.ID {
			continue
		}
		whole, err := w.process(frame)
		if err != nil {
			return nil, err
		}
		if whole.result.Real == real.ID {
			found = append(found, p.String())
		}
	}
	return found, nil
}

// exampleClient is the nth made-up client.
func exampleClient(v6 bool, n int) netip.AddrPort {
	host, port := byte(1+n%exampleHosts), uint16(firstPort+n/exampleHosts)
	if v6 {
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: host}), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, host}), port)
}

// exampleDestination is an address and port of the VIP that no more exact VIP has, if there is one near
// its beginning.
func (w *World) exampleDestination(v lb.VIP) netip.AddrPort {
	at := lb.VIP{Addr: v.Addr, Port: v.Port, Protocol: v.Protocol}
	if v.IsPrefix() {
		at.Addr = v.Addr.Next()
	}
	for port := uint16(80); v.Port == 0 && port < 1000; port++ {
		at.Port = port
		if w.entry(at).Ring.Size == 0 {
			break
		}
	}
	return netip.AddrPortFrom(at.Addr, at.Port)
}

// Print writes the report for people.
func (r *RealReport) Print(out io.Writer) error {
	p := &printer{out: out}
	for i, v := range r.VIPs {
		if i > 0 {
			p.line("", "")
		}
		v.print(p)
	}
	return p.err
}

func (v *RealOnIt) print(p *printer) {
	p.line("real", "%s of %s, weight %d, %s, generation %d", &v.RealName, v.VIP, v.Weight, v.Use, v.Generation)
	p.line("health", "%s", v.Health)
	if v.NextHopProblem != "" {
		p.line("next hop", "none: %s", v.NextHopProblem)
	}
	total := 0
	var states []string
	for state := range lb.SlotStateLen {
		if n := v.Slots[state.String()]; n > 0 {
			total += n
			states = append(states, fmt.Sprintf("%d %s", n, state))
		}
	}
	p.line("slots", "%d of %d (%.2f %%)", total, v.RingSize, 100*float64(total)/float64(max(v.RingSize, 1)))
	if len(states) > 0 {
		p.line("", "%s", strings.Join(states, ", "))
	}
	if v.PreviousSlots > 0 {
		p.line("", "and older connections of %d moving slots", v.PreviousSlots)
	}
	p.line("flows", "%d remembered", v.Flows)
	for i, e := range v.Examples {
		if i == 0 {
			p.line("examples", "made up, not seen:")
		}
		p.line("", "%s", e)
	}
}
