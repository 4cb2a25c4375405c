// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/rig"
)

const (
	// extraServices is the number of services that come and go; each has extraAddresses addresses
	// of either family, and up to extraPorts VIPs beside that on port 80.
	extraServices, extraAddresses, extraPorts = 8, 2, 12
)

// crashService is a service of a configuration.
type crashService struct {
	name     string
	vips     []lb.VIP
	ringSize uint32
	// weights are those of the servers by their index; 0 is a backend without weight, -1 none.
	weights []int
	// pick chooses the outer family.
	pick func(*rig.Node) netip.Addr
}

// crashConfig is a whole configuration.
type crashConfig []crashService

func (c crashConfig) yaml(servers []*rig.Node) string {
	var b strings.Builder
	fmt.Fprintf(&b, "interface: %s\nservices:\n", rig.BalancerInterface)
	for _, s := range c {
		fmt.Fprintf(&b, "  - name: %s\n    ring: {size: %d}\n    vips:\n", s.name, s.ringSize)
		for _, v := range s.vips {
			fmt.Fprintf(&b, "      - %q\n", v)
		}
		fmt.Fprintf(&b, "    backends:\n")
		for i, w := range s.weights {
			if w >= 0 {
				fmt.Fprintf(&b, "      - {address: %q, weight: %d}\n", s.pick(servers[i]), w)
			}
		}
	}
	return b.String()
}

// lines are what the configuration demands of the status: one line for each VIP, sorted.
func (c crashConfig) lines(servers []*rig.Node) []string {
	var lines []string
	for _, s := range c {
		var reals []string
		for i, w := range s.weights {
			if w >= 0 {
				reals = append(reals, realLine(s.pick(servers[i]).String(), w))
			}
		}
		for _, v := range s.vips {
			lines = append(lines, vipLine(v.String(), s.name, s.ringSize, reals))
		}
	}
	slices.Sort(lines)
	return lines
}

func realLine(addr string, weight int) string {
	state := "ok"
	if weight == 0 {
		state = "no weight"
	}
	return fmt.Sprintf("%s weight %d %s", addr, weight, state)
}

func vipLine(vip, service string, ringSize uint32, reals []string) string {
	reals = slices.Sorted(slices.Values(reals))
	return fmt.Sprintf("%s %s ring %d maglev-v2: %s", service, vip, ringSize, strings.Join(reals, ", "))
}

// takers are the names of the servers that new connections to each address (on port 80) may reach.
func (c crashConfig) takers(servers []*rig.Node) map[netip.Addr][]string {
	takers := make(map[netip.Addr][]string)
	for _, s := range c {
		var names []string
		for i, w := range s.weights {
			if w > 0 {
				names = append(names, servers[i].Name)
			}
		}
		for _, v := range s.vips {
			if v.Port == 80 {
				takers[v.Addr] = names
			}
		}
	}
	return takers
}

// crashVIP is the address of a service and family; 0 is the anchor, 1 the service that always is
// there but changes, and others come and go.
func crashVIP(service, i int, six bool) netip.Addr {
	if six {
		return netip.MustParseAddr(fmt.Sprintf("2001:db8:ff::%x", 0x100*(i+1)+service))
	}
	return netip.AddrFrom4([4]byte{192, 0, byte(2 + i), byte(10 + service)})
}

// crashVIPs are all addresses that a configuration can have.
func crashVIPs() []netip.Addr {
	var vips []netip.Addr
	for service := range 2 + extraServices {
		for i := range extraAddresses {
			vips = append(vips, crashVIP(service, i, false), crashVIP(service, i, true))
		}
	}
	return vips
}

// anchor is the service that never changes.
func anchor() crashService {
	return crashService{
		name:     "anchor",
		vips:     []lb.VIP{tcp80(crashVIP(0, 0, false)), tcp80(crashVIP(0, 0, true))},
		ringSize: lb.DefaultRingSize,
		weights:  []int{1, 1, 1},
		pick:     ipv4,
	}
}

func tcp80(a netip.Addr) lb.VIP { return lb.VIP{Addr: a, Port: 80, Protocol: lb.TCP} }

// randomConfig is the anchor, a service that changes, and some that come and go. A VIP can move from
// one service to another, since services change their names.
func randomConfig(r *rand.Rand) crashConfig {
	changing := randomService(r, 1)
	changing.vips = []lb.VIP{tcp80(crashVIP(1, 0, false)), tcp80(crashVIP(1, 0, true))}
	c := crashConfig{anchor(), changing}
	for i := range extraServices {
		if r.IntN(2) == 0 {
			c = append(c, randomService(r, 2+i))
		}
	}
	r.Shuffle(len(c), func(i, j int) { c[i], c[j] = c[j], c[i] })
	return c
}

func randomService(r *rand.Rand, number int) crashService {
	s := crashService{
		name:     fmt.Sprintf("%s-%d", []string{"web", "shop"}[r.IntN(2)], number),
		ringSize: []uint32{4093, 4093, lb.DefaultRingSize}[r.IntN(3)],
		weights:  []int{r.IntN(5) - 1, r.IntN(5) - 1, r.IntN(5) - 1},
		pick:     []func(*rig.Node) netip.Addr{ipv4, ipv6}[r.IntN(2)],
	}
	s.weights[r.IntN(len(s.weights))] = 1 + r.IntN(3) // somebody has to answer
	for i := range extraAddresses {
		s.vips = append(s.vips, tcp80(crashVIP(number, i, false)), tcp80(crashVIP(number, i, true)))
	}
	for port := range r.IntN(extraPorts) {
		a := crashVIP(number, r.IntN(extraAddresses), r.IntN(2) == 0)
		s.vips = append(s.vips, lb.VIP{Addr: a, Port: uint16(1000 + port), Protocol: lb.UDP})
	}
	return s
}
