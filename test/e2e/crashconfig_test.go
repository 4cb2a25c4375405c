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
	// The numbers of services: those that come and go lie in between.
	anchorNumber, changingNumber, movingNumber = 0, 1, 2 + extraServices
)

// crashService is a service of a configuration.
type crashService struct {
	name     string
	vips     []lb.VIP
	ringSize uint32
	// weights are those of the servers by their index; 0 is a backend without weight, -1 none.
	weights []int
	// drained tells that the operator drains the last server, for the first VIP.
	drained bool
	// drain is how long a server that is taken away keeps its connections; empty for the default.
	drain string
	// pick chooses the outer family.
	pick func(*rig.Node) netip.Addr
}

// crashConfig is a whole configuration.
type crashConfig []crashService

func (c crashConfig) yaml(servers []*rig.Node) string {
	var b strings.Builder
	fmt.Fprintf(&b, "interface: %s\nservices:\n", rig.BalancerInterface)
	for _, s := range c {
		fmt.Fprintf(&b, "  - name: %s\n    ring: {size: %d}\n", s.name, s.ringSize)
		if s.drain != "" {
			fmt.Fprintf(&b, "    flows: {drain: %s}\n", s.drain)
		}
		fmt.Fprintf(&b, "    vips:\n")
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

// takes tells whether a server gets new connections to a VIP.
func (s crashService) takes(v lb.VIP, server int) bool {
	return s.weights[server] > 0 && !(s.drained && v == s.vips[0] && server == len(s.weights)-1)
}

// lines are what the configuration demands of the status: one line for each VIP, sorted, with the
// servers that get new connections.
func (c crashConfig) lines(servers []*rig.Node) []string {
	var lines []string
	for _, s := range c {
		for _, v := range s.vips {
			var reals []string
			for i, w := range s.weights {
				if s.takes(v, i) {
					reals = append(reals, realLine(s.pick(servers[i]).String(), w))
				}
			}
			lines = append(lines, vipLine(v.String(), s.name, s.ringSize, reals))
		}
	}
	slices.Sort(lines)
	return lines
}

func realLine(addr string, weight int) string { return fmt.Sprintf("%s weight %d", addr, weight) }

func vipLine(vip, service string, ringSize uint32, reals []string) string {
	reals = slices.Sorted(slices.Values(reals))
	return fmt.Sprintf("%s %s ring %d maglev-v2: %s", service, vip, ringSize, strings.Join(reals, ", "))
}

// takers are the names of the servers that new connections to each address (on port 80) may reach.
func (c crashConfig) takers(servers []*rig.Node) map[netip.Addr][]string {
	takers := make(map[netip.Addr][]string)
	for _, s := range c {
		for _, v := range s.vips {
			for i := range s.weights {
				if v.Port == 80 && s.takes(v, i) {
					takers[v.Addr] = append(takers[v.Addr], servers[i].Name)
				}
			}
		}
	}
	return takers
}

// crashVIP is an address of a service and family.
func crashVIP(service, i int, six bool) netip.Addr {
	if six {
		return netip.MustParseAddr(fmt.Sprintf("2001:db8:ff::%x", 0x100*(i+1)+service))
	}
	return netip.AddrFrom4([4]byte{192, 0, byte(2 + i), byte(10 + service)})
}

// crashVIPs are all addresses that a configuration can have.
func crashVIPs() []netip.Addr {
	var vips []netip.Addr
	for service := range movingNumber + 1 {
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
		vips:     []lb.VIP{tcp80(crashVIP(anchorNumber, 0, false)), tcp80(crashVIP(anchorNumber, 0, true))},
		ringSize: lb.DefaultRingSize,
		weights:  []int{1, 1, 1},
		pick:     ipv4,
	}
}

func tcp80(a netip.Addr) lb.VIP { return lb.VIP{Addr: a, Port: 80, Protocol: lb.TCP} }

// moving is the service whose servers change, but neither its ring's size nor how long servers keep
// their connections: no connection to it may break. The last server is always in the file, and may be
// drained.
func moving(drained bool, weights ...int) crashService {
	return crashService{
		name:     "moving",
		vips:     []lb.VIP{tcp80(crashVIP(movingNumber, 0, false)), tcp80(crashVIP(movingNumber, 0, true))},
		ringSize: 4093,
		weights:  weights,
		drained:  drained,
		pick:     ipv4,
	}
}

// withDrain is the configuration with another state of the moving service's drain.
func (c crashConfig) withDrain(drained bool) crashConfig {
	c = slices.Clone(c)
	for i := range c {
		if c[i].name == "moving" {
			c[i].drained = drained
		}
	}
	return c
}

// randomConfig is the anchor, the moving service, one that changes in every way, and some that come and
// go. A VIP can move from one service to another, since services change their names.
func randomConfig(r *rand.Rand, drained bool) crashConfig {
	changing := randomService(r, changingNumber)
	changing.vips = []lb.VIP{tcp80(crashVIP(changingNumber, 0, false)), tcp80(crashVIP(changingNumber, 0, true))}
	c := crashConfig{anchor(), moving(drained, 1+r.IntN(3), r.IntN(5)-1, 1+r.IntN(3)), changing}
	for i := range extraServices {
		if r.IntN(2) == 0 {
			c = append(c, randomService(r, changingNumber+1+i))
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
		drain:    []string{"", "0s", "1s"}[r.IntN(3)],
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
