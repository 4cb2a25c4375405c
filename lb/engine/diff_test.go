// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/maglev"
)

func TestDiff(t *testing.T) {
	tests := []struct {
		name string
		have func(t *testing.T) realised
		want func(t *testing.T) state
		all  bool
		// steps in order; "~" marks one that only repeats.
		steps string
	}{
		{
			name: "nothing to nothing",
			have: empty, want: stateOf(),
		},
		{
			name: "in: room, reals, rings, VIPs",
			have: empty, want: stateOf("0 192.0.2.10:80/tcp 7 1,2", "1 [2001:db8::10]:80/tcp 5"),
			steps: `
				reserve vips4=1 vips6=1 reals=2 slots=12
				set reals 1 2
				set ring 0 size=7 members=2
				set ring 1 size=5 members=0
				set vips 192.0.2.10:80/tcp=0 [2001:db8::10]:80/tcp=1`,
		},
		{
			name: "out: VIPs, rings, reals",
			have: done("0 192.0.2.10:80/tcp 7 1,2", "1 192.0.2.11:80/tcp 5 3"), want: stateOf(),
			steps: `
				set vips
				delete ring 0
				delete ring 1
				delete reals 1 2 3`,
		},
		{
			name: "unchanged",
			have: done("0 192.0.2.10:80/tcp 7 1,2"), want: stateOf("0 192.0.2.10:80/tcp 7 1,2"),
		},
		{
			name: "another real needs its record before the ring; the old one is retired before, and goes after",
			have: done("0 192.0.2.10:80/tcp 7 1,2"), want: stateOf("0 192.0.2.10:80/tcp 7 1,3"),
			steps: `
				reserve vips4=1 vips6=0 reals=3 slots=7
				set reals 2 3
				set ring 0 size=7 members=2
				delete reals 2`,
		},
		{
			name: "the last real leaves an empty ring",
			have: done("0 192.0.2.10:80/tcp 7 1"), want: stateOf("0 192.0.2.10:80/tcp 7"),
			steps: `
				set reals 1
				set ring 0 size=7 members=0
				delete reals 1`,
		},
		{
			name: "a next hop changes a record only",
			have: done("0 192.0.2.10:80/tcp 7 1,2"),
			want: func(t *testing.T) state {
				s := stateOf("0 192.0.2.10:80/tcp 7 1,2")(t)
				r := s.reals[2]
				r.NextHop.MTU = 9000
				s.reals[2] = r
				return s
			},
			steps: `set reals 2`,
		},
		{
			name: "another length: the VIP is set again, and there is room for both",
			have: done("0 192.0.2.10:80/tcp 7 1"), want: stateOf("0 192.0.2.10:80/tcp 11 1"),
			steps: `
				reserve vips4=1 vips6=0 reals=1 slots=18
				set ring 0 size=11 members=1
				set vips 192.0.2.10:80/tcp=0`,
		},
		{
			name: "one VIP for another: the old ring goes after the VIPs",
			have: done("0 192.0.2.10:80/tcp 7 1"), want: stateOf("1 192.0.2.11:80/tcp 7 2"),
			steps: `
				reserve vips4=1 vips6=0 reals=2 slots=14
				set reals 2
				set ring 1 size=7 members=1
				set vips 192.0.2.11:80/tcp=1
				delete ring 0
				delete reals 1`,
		},
		{
			name: "all: everything is repeated",
			have: done("0 192.0.2.10:80/tcp 7 1,2"), want: stateOf("0 192.0.2.10:80/tcp 7 1,2"), all: true,
			steps: `
				~reserve vips4=1 vips6=0 reals=2 slots=7
				~set reals 1 2
				~set ring 0 size=7 members=2
				~set vips 192.0.2.10:80/tcp=0`,
		},
		{
			name: "a record in doubt is written",
			have: doubt(func(h *realised) { h.doubtReals[1] = true }, "0 192.0.2.10:80/tcp 7 1,2"),
			want: stateOf("0 192.0.2.10:80/tcp 7 1,2"), steps: `set reals 1`,
		},
		{
			name: "a ring in doubt may have moved",
			have: doubt(func(h *realised) { h.doubtRings[0] = true }, "0 192.0.2.10:80/tcp 7 1"),
			want: stateOf("0 192.0.2.10:80/tcp 7 1"),
			steps: `
				set ring 0 size=7 members=1
				set vips 192.0.2.10:80/tcp=0`,
		},
		{
			name: "VIPs in doubt are set before their rings go",
			have: doubt(func(h *realised) { clear(h.vips); h.doubtVIPs = true }, "0 192.0.2.10:80/tcp 7 1"),
			want: stateOf(),
			steps: `
				set vips
				delete ring 0
				delete reals 1`,
		},
		{
			name: "a ring held from a previous run is not written, even to repair",
			have: doubt(func(h *realised) { h.rings[0].slots = nil }, "0 192.0.2.10:80/tcp 7 1"),
			want: func(t *testing.T) state {
				s := stateOf("0 192.0.2.10:80/tcp 7 1")(t)
				s.rings[0].slots = nil
				return s
			},
			all: true,
			steps: `
				~reserve vips4=1 vips6=0 reals=1 slots=7
				~set reals 1
				~set vips 192.0.2.10:80/tcp=0`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			have, want := tt.have(t), tt.want(t)
			shareRings(have.state, want)
			var lines []string
			for _, s := range diff(&have, want, tt.all) {
				line := s.String()
				if s.repeats() {
					line = "~" + line
				}
				lines = append(lines, line)
			}
			if diff := cmp.Diff(unindent(tt.steps), strings.Join(lines, "\n")); diff != "" {
				t.Errorf("steps (-want +got):\n%s", diff)
			}
		})
	}
}

// shareRings makes rings of equal content one, as the planner does.
func shareRings(have, want state) {
	for id, w := range want.rings {
		if h := have.rings[id]; w.slots != nil && h.chosenBy(w.vip, w.spec, w.members) {
			want.rings[id] = h
		}
	}
}

// TestCapacityOfOptions: the program looks at the fragments of VIPs that let them pass without the room for options.
func TestCapacityOfOptions(t *testing.T) {
	for name, tc := range map[string]struct {
		options lb.Options
		want    bool
	}{
		"none":                {lb.Options{}, false},
		"fragments pass":      {lb.Options{Fragments: lb.FragmentsPass}, false},
		"they go by client":   {lb.Options{Fragments: lb.FragmentsByClient}, true},
		"pass and server ids": {lb.Options{Fragments: lb.FragmentsPass, TCPIDs: true}, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := stateOf("0 192.0.2.10:80/tcp 7 1,2")(t)
			for vip, v := range s.vips {
				v.Options = tc.options
				s.vips[vip] = v
			}
			if got := capacity(newState(), s).Options; got != tc.want {
				t.Errorf("room for options: %v, want %v", got, tc.want)
			}
		})
	}
}

func empty(*testing.T) realised { return newRealised() }

// stateOf makes a state of lines "RING-ID VIP RING-SIZE REAL-ID,REAL-ID".
func stateOf(lines ...string) func(t *testing.T) state {
	return func(t *testing.T) state {
		t.Helper()
		s := newState()
		for _, line := range lines {
			addLine(t, s, strings.Fields(line))
		}
		return s
	}
}

func addLine(t *testing.T, s state, f []string) {
	t.Helper()
	v := serviceVIP(t, f[1])
	id, spec := lb.RingID(number(t, f[0])), lb.Ring{Size: number(t, f[2])}
	var members []maglev.Member
	if len(f) > 3 {
		for _, one := range strings.Split(f[3], ",") {
			n := number(t, one)
			addr := netip.AddrFrom4([4]byte{10, 0, 0, byte(n)})
			tunnel, err := v.Tunnel.Tunnel(lb.IPIP, addr)
			if err != nil {
				t.Fatal(err)
			}
			s.reals[lb.RealID(n)] = lb.Real{ID: lb.RealID(n), VIP: v.VIP, Backend: lb.Backend{Addr: addr, Weight: 1}, Tunnel: tunnel}
			members = append(members, maglev.Member{ID: lb.RealID(n), Addr: addr, Weight: 1})
		}
	}
	choice, err := maglev.Build(spec, members)
	if err != nil {
		t.Fatal(err)
	}
	s.rings[id] = newRing(v.VIP, spec, members, choice, choice)
	s.vips[v.VIP] = lb.VIPEntry{VIP: v.VIP, RingID: id, Ring: spec}
}

func number(t *testing.T, s string) uint32 {
	t.Helper()
	var n uint32
	for _, c := range s {
		if c < '0' || c > '9' {
			t.Fatalf("%q is not a number", s)
		}
		n = 10*n + uint32(c-'0')
	}
	return n
}

// done is the lines' state, realised, with room for just that.
func done(lines ...string) func(t *testing.T) realised {
	return func(t *testing.T) realised {
		t.Helper()
		h := newRealised()
		h.state = stateOf(lines...)(t)
		h.reserved = capacity(h.state, h.state)
		return h
	}
}

// doubt is the lines' state, realised and then changed.
func doubt(change func(*realised), lines ...string) func(t *testing.T) realised {
	return func(t *testing.T) realised {
		t.Helper()
		h := done(lines...)(t)
		change(&h)
		return h
	}
}
