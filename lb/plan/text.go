// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"io"
	"strings"
)

// Print writes the plan for people: what changes of VIPs, one after the other.
func (p *Plan) Print(out io.Writer) error {
	var b strings.Builder
	if !p.Changes {
		b.WriteString("no VIP changes\n")
	}
	for i := range p.VIPs {
		p.VIPs[i].print(&b)
	}
	for _, n := range p.Notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func (v *VIP) print(b *strings.Builder) {
	if v.Change == Same {
		return
	}
	fmt.Fprintf(b, "%s (service %s): %s\n", v.VIP, v.Service, v.Change)
	for _, d := range v.Details {
		fmt.Fprintf(b, "  %s\n", d)
	}
	for _, backend := range v.Backends {
		fmt.Fprintf(b, "  backend %s: %s", backend.Address, backend.Change)
		if backend.Detail != "" {
			fmt.Fprintf(b, ", %s", backend.Detail)
		}
		b.WriteByte('\n')
	}
	if v.Active == 0 && v.Change != Removed {
		b.WriteString("  no backend gets new connections: packets end as ring_empty\n")
	}
	if v.Change == Added {
		return
	}
	v.printSlots(b)
	v.printFlows(b)
}

func (v *VIP) printSlots(b *strings.Builder) {
	if v.Change == Removed {
		return
	}
	about, least := "", fmt.Sprintf("; %d at least, for the new shares", v.Slots.Unavoidable)
	if v.Slots.Estimated {
		about, least = "about ", ""
	}
	fmt.Fprintf(b, "  slots: %s%d of %d move (%.2f %%)%s\n", about, v.Slots.Moved, v.Slots.Total,
		100*float64(v.Slots.Moved)/float64(max(v.Slots.Total, 1)), least)
}

func (v *VIP) printFlows(b *strings.Builder) {
	fmt.Fprintf(b, "  remembered connections: %d, %d of them on slots that move; %d break\n", v.Flows.Remembered, v.Flows.OnMoved, v.Flows.Broken)
	fmt.Fprintf(b, "  other connections: %s\n", v.Flows.Others.text())
}

// text is for people.
func (o Others) text() string {
	switch o {
	case BreakOnMoved:
		return "those on slots that move break"
	case BreakOfRemoved:
		return "those of backends that go at once break, others stay"
	case Break:
		return "all break"
	case None:
		return "there are none"
	}
	return "all stay"
}
