// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package katran

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/config"
)

// Kind is what a difference does.
type Kind string

// The kinds, the worst first.
const (
	// KindChoice: some packets get another server than in Katran, so connections that move between the
	// two may break.
	KindChoice Kind = "choice"
	// KindPacket: the same server, but other outer headers, for which servers and network must be ready.
	KindPacket Kind = "packet"
	// KindBuild: the same, if Katran is built or configured so as well.
	KindBuild Kind = "build"
	// KindBehaviour: the same while all is well; otherwise, or for other packets, not.
	KindBehaviour Kind = "behaviour"
)

// rank orders the kinds.
func (k Kind) rank() int {
	return slices.Index([]Kind{KindChoice, KindPacket, KindBuild, KindBehaviour}, k)
}

// Breaks tells whether a fleet of both must not be run like that.
func (k Kind) Breaks() bool { return k == KindChoice || k == KindPacket }

// Difference is something that remora, with a configuration, would do otherwise than Katran.
type Difference struct {
	Kind Kind
	// Where is a VIP, or a field of the configuration.
	Where string
	// What is the difference, and Consequence what comes of it.
	What, Consequence string
}

func (d Difference) String() string {
	return fmt.Sprintf("%s: %s: %s: %s", d.Kind, d.Where, d.What, d.Consequence)
}

// Compat tells what would differ from Katran, the worst first, else in the order of the configuration. The Katran that is
// meant has its defaults (RingSize, MaxVIPs, GUEPort) and any of its build options; KindBuild says
// which. Backends of dynamic sources are not known here, and nothing is said of them.
func Compat(c *config.Config) []Difference {
	p := &comparer{config: c, ids: map[uint32]netip.Addr{}, reals: map[netip.Addr]bool{}, encaps: map[lb.Encap]string{}}
	p.whole()
	for _, s := range c.Services {
		p.service(s)
	}
	p.fleet()
	slices.SortStableFunc(p.found, func(a, b Difference) int { return cmp.Compare(a.Kind.rank(), b.Kind.rank()) })
	return p.found
}

type comparer struct {
	config *config.Config
	found  []Difference
	// vips is how many there are, and reals are all backends.
	vips  int
	reals map[netip.Addr]bool
	// ids has the first address of each server id, and encaps the first VIP of each encapsulation.
	ids    map[uint32]netip.Addr
	encaps map[lb.Encap]string
}

func (p *comparer) add(k Kind, where, what, consequence string) {
	p.found = append(p.found, Difference{k, where, what, consequence})
}

// whole compares what is not of one service.
func (p *comparer) whole() {
	p.tunnelled()
	if len(p.config.SourceRoutes) > 0 {
		p.add(KindBuild, "source_routes", "Katran has them as a build option", "without it the ring chooses there")
	}
	if p.config.Decap.Enabled() {
		p.decap(p.config.Decap)
	}
	p.add(KindBehaviour, "mtu", "a packet is too big if it does not fit in the next hop's MTU with its outer headers, and its sender is told that length",
		"Katran goes by the length of the frame alone, and says 1500 where 1480 or less would arrive")
	p.add(KindBehaviour, "icmp", fmt.Sprintf("echo requests are answered for VIPs only, %d a second and CPU", p.config.AnswersPerSecond),
		"Katran answers for every address, and without limit")
	p.add(KindBehaviour, "fragments", "fragments and IPv4 options of packets that are for no VIP go to the host", "Katran drops them")
}

// tunnelled compares outer headers, as far as a VIP has them.
func (p *comparer) tunnelled() {
	used := map[lb.Encap]lb.TunnelSources{}
	for _, s := range p.config.Services {
		for _, v := range s.VIPs {
			used[v.Encap] = v.Tunnel
		}
	}
	def := lb.DefaultTunnelSources()
	if t, ok := used[lb.IPIP]; ok {
		const consequence = "servers and routers must accept both sources"
		if t.IPIP4 != def.IPIP4 {
			p.add(KindPacket, "encapsulation.ipip.source4", fmt.Sprintf("%s, and not %s", t.IPIP4, def.IPIP4), consequence)
		}
		if t.IPIP6 != def.IPIP6 {
			p.add(KindPacket, "encapsulation.ipip.source6", fmt.Sprintf("%s, and not %s", t.IPIP6, def.IPIP6), consequence)
		}
	}
	if t, ok := used[lb.GUE]; ok {
		p.gue(t)
	}
}

func (p *comparer) gue(t lb.TunnelSources) {
	if t.GUEPort != GUEPort {
		p.add(KindBuild, "encapsulation.gue.port", fmt.Sprintf("%d, and not %d", t.GUEPort, GUEPort),
			"Katran must be built with this port, or servers unwrap the packets of one of the two only")
	}
	if !t.GUEChecksum {
		p.add(KindPacket, "encapsulation.gue.checksum", "zero, and not katran",
			"servers get outer UDP checksums from Katran and none from remora, which over IPv6 they refuse unless told otherwise")
	}
}

func (p *comparer) decap(d lb.Decap) {
	const where = "decapsulation"
	p.add(KindBuild, where, "Katran has it as a build option", "without it the packets go to the host as they are")
	if len(d.Destinations) > maxDecapDestinations {
		p.add(KindBehaviour, where, fmt.Sprintf("%d destinations", len(d.Destinations)), fmt.Sprintf("Katran has room for %d", maxDecapDestinations))
	}
	if d.Others != lb.DecapHost {
		p.add(KindBehaviour, where, fmt.Sprintf("others: %s", d.Others), "Katran unwraps packets to all other addresses for the host, unless it is built to be strict")
	}
	for _, action := range d.Destinations {
		if action == lb.DecapHost {
			p.add(KindBehaviour, where, "action host for a destination", "Katran has none: what it lists is balanced or sent back")
			return
		}
	}
}

// fleet compares what is only known when all services have been seen.
func (p *comparer) fleet() {
	if p.vips > MaxVIPs {
		p.add(KindChoice, "services", fmt.Sprintf("%d VIPs, and Katran has room for %d", p.vips, MaxVIPs),
			"a Katran that is built for more has another seed of its hash, and other servers for nearly all packets")
	}
	if n := len(p.reals); n >= MaxReals {
		p.add(KindChoice, "services", fmt.Sprintf("%d servers, and Katran has room for %d", n, MaxReals-1), "it drops packets to the others")
	}
	if p.encaps[lb.IPIP] != "" && p.encaps[lb.GUE] != "" {
		p.add(KindPacket, "encapsulation", fmt.Sprintf("ipip for %s, gue for %s", p.encaps[lb.IPIP], p.encaps[lb.GUE]),
			"Katran is built for one of them: its packets to some servers are wrapped otherwise")
	}
}
