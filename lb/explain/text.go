// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// labelLen is the width of the names of steps.
const labelLen = 13

// printer writes aligned lines, and keeps the first error.
type printer struct {
	out io.Writer
	err error
}

// line writes a text behind a name; without a name it goes on with the one before.
func (p *printer) line(name, format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.out, "%-*s %s\n", labelLen, name, fmt.Sprintf(format, args...))
	}
}

// Print writes the report for people.
func (r *Report) Print(out io.Writer) error {
	p := &printer{out: out}
	p.line("packet", "%s", r.Packet)
	for _, s := range r.Steps {
		if s.Name == "end" {
			continue // is the verdict
		}
		p.line(s.Name, "%s", s.Text)
		switch s.Name {
		case "vip":
			r.printVIP(p)
		case "ring":
			r.printSlot(p)
		}
	}
	r.printReal(p)
	r.printSent(p)
	p.line("verdict", "%s, %s", r.Verdict, r.Reason)
	p.line("why", "%s", r.Why)
	r.Check.print(p, r)
	return p.err
}

func (r *Report) printVIP(p *printer) {
	if r.VIP != nil {
		p.line("", "service %s", r.VIP.Service)
	}
	for _, n := range r.Nearest {
		p.line("", "near: %s, but %s", n.VIP, n.Missed)
	}
}

func (r *Report) printSlot(p *printer) {
	s, f := r.Slot, r.Flow
	if s == nil {
		return
	}
	if s.Previous != nil {
		p.line("", "%s: from %s to %s", s.State, s.Previous, s.Current)
	} else {
		p.line("", "%s at %s", s.State, s.Current)
	}
	switch {
	case !f.Asked:
		p.line("flow table", "not asked")
	case f.Found:
		p.line("flow table", "%s", f)
	case f.Full:
		p.line("flow table", "no entry, and no place for one")
	default:
		p.line("flow table", "no entry")
	}
}

// String is an entry for people.
func (f *Flow) String() string {
	parts := []string{"at " + f.Real.String(), fmt.Sprintf("generation %d", f.Generation)}
	if !f.Present {
		parts = append(parts, "which the real has no more")
	}
	parts = append(parts, fmt.Sprintf("last packet %s ago", f.Idle.Round(time.Second)))
	if f.Seen {
		return strings.Join(append(parts, "seen again"), ", ")
	}
	return strings.Join(append(parts, "not seen again"), ", ")
}

func (r *Report) printReal(p *printer) {
	real := r.Real
	if real == nil {
		return
	}
	p.line("to", "%s, weight %d, %s, generation %d", &real.RealName, real.Weight, real.Use, real.Generation)
	p.line("health", "%s", real.Health)
	switch {
	case real.NextHopProblem != "":
		p.line("next hop", "none: %s", real.NextHopProblem)
	case real.NextHop != "":
		stale := "confirmed"
		if real.NextHopStale {
			stale = "stale: not confirmed lately"
		}
		p.line("next hop", "%s, %s", real.NextHop, stale)
		fits := "fits"
		if !real.Fits {
			fits = "does not fit"
		}
		p.line("mtu", "%d less %d of outer headers is %d; the packet has %d: it %s", real.MTU, real.MTU-real.Room, real.Room, real.Length, fits)
	}
}

func (r *Report) printSent(p *printer) {
	switch {
	case r.Sent == nil:
	case r.Sent.Outer != "":
		p.line("outer", "%s", r.Sent.Text)
		p.line("", "%s", r.Sent.Outer)
	default:
		p.line("sent", "%s", r.Sent.Text)
	}
}

// print writes the outcome of the comparison, if there was one.
func (c *Check) print(p *printer, r *Report) {
	switch {
	case c == nil:
		return
	case c.OtherProgram:
		p.line("check", "the instance runs the program of another version; this one's is compared")
	}
	if c.Agrees {
		p.line("check", "the loaded program agrees")
		return
	}
	p.line("check", "the loaded program does NOT agree")
	p.line("", "explained: %s, %s", r.Verdict, r.Reason)
	if r.Sent != nil {
		p.line("", "           %s", r.Sent.Frame)
	}
	p.line("", "program:   %s, %s", c.Verdict, c.Reason)
	p.line("", "           %s", c.Frame)
}
