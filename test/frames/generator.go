// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package frames

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/model"
)

// MaxLen is the length of the longest frame that a Generator makes. The kernel's test run of a
// packet program without fragments takes a page less headroom (256 bytes) and skb_shared_info
// (320 bytes); see bpf_prog_test_run_xdp in net/bpf/test_run.c.
const MaxLen = 4096 - 256 - 320

// Generator makes frames of all kinds at random, good and bad, and changes of the tables between
// them: the same in the same order for the same seed, targets and tables. Most frames are of few
// flows, which change slowly, so that flows are met again. It belongs to one goroutine.
type Generator struct {
	rng     *rand.Rand
	targets []lb.VIP
	kinds   []kind
	weights int // the sum of all kinds'

	// The few that the usual frames are of, which are most.
	usual              bool          // of the frame that is being made
	world              *model.Tables // nil without options
	busy               []lb.VIP
	clients4, clients6 []netip.Addr
	ports              []uint16
}

// Generated is one frame of a Generator.
type Generated struct {
	// Kind says for people how the frame was made, not what becomes of it.
	Kind string
	// Bytes is the frame, from HeaderLen to MaxLen bytes; the caller's to keep.
	Bytes []byte
}

// NewGenerator takes the VIPs that a good share of the frames is for, in an order that is always
// the same; there must be at least one of IPv4 and one of IPv6. The Generator owns rng from then
// on.
func NewGenerator(rng *rand.Rand, targets ...lb.VIP) *Generator {
	g := &Generator{rng: rng, targets: targets, kinds: kinds()}
	for _, k := range g.kinds {
		g.weights += k.weight
	}
	g.meetOthers()
	return g
}

// NewWorldGenerator makes frames for the tables of World, which it only reads. Beside those of
// NewGenerator there are packets that name servers, packets in packets and more fragments.
func NewWorldGenerator(rng *rand.Rand, world *model.Tables) *Generator {
	g := &Generator{rng: rng, targets: Targets(world), world: world, kinds: append(kinds(), worldKinds()...)}
	for _, k := range g.kinds {
		g.weights += k.weight
	}
	g.meetOthers()
	return g
}

// Next makes the next frame.
func (g *Generator) Next() Generated {
	if g.rng.IntN(64) == 0 {
		g.meetAnother()
	}
	g.usual = g.rng.IntN(5) > 0
	n := g.rng.IntN(g.weights)
	for _, k := range g.kinds {
		if n -= k.weight; n < 0 {
			b := k.bytes(g)
			return Generated{Kind: k.name, Bytes: b[:min(len(b), MaxLen)]}
		}
	}
	panic("the weights do not add up to their sum")
}

// kind is one way of making a frame; the weights are relative to one another.
type kind struct {
	name   string
	weight int
	bytes  func(*Generator) []byte
}

func kinds() []kind {
	return []kind{
		{"to a VIP", 90, (*Generator).hit},
		{"near the MTU", 5, (*Generator).nearMTU},
		{"to another port, protocol or address", 6, (*Generator).miss},
		{"with IPv4 options or IPv6 extension headers", 8, (*Generator).extended},
		{"fragment", 5, (*Generator).fragment},
		{"echo request", 8, (*Generator).echo},
		{"ICMP error", 20, (*Generator).icmpError},
		{"ICMP error, not about a flow", 8, (*Generator).strayError},
		{"ICMP error, cut", 6, (*Generator).cutError},
		{"other ICMP", 4, (*Generator).icmp},
		{"other protocol", 4, (*Generator).otherProtocol},
		{"not IP", 4, (*Generator).notIP},
		{"truncated", 8, (*Generator).truncated},
		{"mutated", 12, (*Generator).mutated},
		{"wrong length", 8, (*Generator).wrongLength},
		{"noise", 3, (*Generator).noise},
	}
}

func worldKinds() []kind {
	return []kind{
		{"naming a server", 70, (*Generator).named},
		{"tunnelled", 50, (*Generator).tunnelled},
		{"fragment of a client", 25, (*Generator).partOfClient},
	}
}

// hit is a packet that a target takes.
func (g *Generator) hit() []byte {
	vip := g.target()
	return g.frame(g.packet(vip.Addr, g.flow(vip, g.data())))
}

// nearMTU is a hit that is about as long as a link of 1500 bytes takes with the outer headers.
func (g *Generator) nearMTU() []byte {
	vip := g.target()
	headers := 28 // the shortest: IPv4 and UDP
	if vip.Addr.Is6() {
		headers += 20
	}
	if vip.Protocol == lb.TCP {
		headers += 12
	}
	return g.frame(g.packet(vip.Addr, g.flow(vip, g.bytes(g.between(1440, 1485)-headers))))
}

// miss differs from a hit in one part of the VIP.
func (g *Generator) miss() []byte {
	vip := g.target()
	switch g.rng.IntN(3) {
	case 0:
		vip.Port += uint16(1 + g.rng.IntN(3))
	case 1:
		vip.Protocol = lb.TCP + lb.UDP - vip.Protocol
	default:
		vip.Addr = g.nearby(vip.Addr)
	}
	return g.frame(g.packet(vip.Addr, g.flow(vip, g.data())))
}

func (g *Generator) otherProtocol() []byte {
	vip := g.target()
	var payload Payload
	switch g.rng.IntN(4) {
	case 0: // IPv4 in IP
		inner := g.targetOf(false)
		payload = g.ipv4(inner.Addr, g.flow(inner, g.data()))
	case 1: // IPv6 in IP
		inner := g.targetOf(true)
		payload = g.ipv6(inner.Addr, g.flow(inner, g.data()))
	case 2: // the other family's ICMP
		payload = Raw{Protocol: map[bool]uint8{false: 58, true: 1}[vip.Addr.Is6()], Data: g.data()}
	default: // IGMP, GRE, ESP, nothing, PIM, SCTP, UDP-Lite, reserved
		payload = Raw{Protocol: pick(g, []uint8{2, 47, 50, 59, 103, 132, 136, 255}), Data: g.data()}
	}
	return g.frame(g.packet(vip.Addr, payload))
}

func (g *Generator) notIP() []byte {
	f := g.link()
	f.Packet = Raw{Data: g.data()}
	switch g.rng.IntN(4) {
	case 0:
		f.EtherType, f.MinLen = EtherTypeARP, 60
	case 1:
		f.EtherType = uint16(g.rng.IntN(1501)) // a length (IEEE 802.3)
	case 2:
		f.EtherType = pick(g, []uint16{0x8847, 0x88cc, 0x9100, 0x8863, 0xffff})
	default: // an IP packet behind more tags than are read
		vip := g.target()
		f.Packet = g.packet(vip.Addr, g.flow(vip, g.data()))
		f.Tags = []Tag{g.tag(), g.tag(), g.tag()}
	}
	return f.Bytes()
}

// frame puts a packet in a frame with any tags and any trailer.
func (g *Generator) frame(p Packet) []byte {
	f := g.link()
	f.Packet = p
	switch g.rng.IntN(4) {
	case 0:
		f.Trailer = g.bytes(g.between(1, 50))
	case 1:
		f.MinLen = 60
	}
	return f.Bytes()
}

// link is a frame without a packet.
func (g *Generator) link() Frame {
	f := Frame{
		Dst: [6]byte{2, 0, 0, 0, 0, byte(g.rng.IntN(256))},
		Src: [6]byte{2, 0, 0, 0, 9, byte(g.rng.IntN(256))},
	}
	switch g.rng.IntN(6) {
	case 0:
		f.Tags = []Tag{g.tag()}
	case 1:
		f.Tags = []Tag{g.tag(), g.tag()}
	}
	return f
}

func (g *Generator) tag() Tag {
	return Tag{EtherType: pick(g, []uint16{EtherTypeTag, EtherTypeSTag}), Control: uint16(g.rng.IntN(1 << 16))}
}

// packet is an IP packet to dst, of its family.
func (g *Generator) packet(dst netip.Addr, payload Payload) Packet {
	if dst.Is6() {
		return g.ipv6(dst, payload)
	}
	return g.ipv4(dst, payload)
}

func (g *Generator) ipv4(dst netip.Addr, payload Payload) IPv4 {
	return IPv4{
		TOS: g.byte(), TTL: g.byte(), ID: uint16(g.rng.IntN(1 << 16)),
		Fragment: pick(g, []uint16{0, DontFragment, 0x8000}),
		Src:      g.source(false), Dst: dst, Payload: payload,
	}
}

func (g *Generator) ipv6(dst netip.Addr, payload Payload) IPv6 {
	return IPv6{
		TrafficClass: g.byte(), HopLimit: g.byte(), FlowLabel: g.rng.Uint32N(1 << 20),
		Src: g.source(true), Dst: dst, Payload: payload,
	}
}

// flow is a TCP segment or UDP datagram to the VIP from any port. Random data begins with each type
// of QUIC packet often enough.
func (g *Generator) flow(vip lb.VIP, data []byte) Payload {
	sport, dport := g.port(), vip.Port
	if dport == 0 {
		dport = pick(g, []uint16{0, 443, 443, 443})
		if !g.usual {
			dport = uint16(g.rng.IntN(1 << 16))
		}
	}
	if vip.Protocol == lb.UDP {
		return UDP{SrcPort: sport, DstPort: dport, NoChecksum: g.rng.IntN(5) == 0, Data: data}
	}
	tcp := TCP{
		SrcPort: sport, DstPort: dport, Seq: g.rng.Uint32(), Ack: g.rng.Uint32(),
		Flags: pick(g, tcpFlags), Window: uint16(g.rng.IntN(1 << 16)),
		Data: data,
	}
	if g.rng.IntN(3) == 0 {
		tcp.Options = g.bytes(g.rng.IntN(41))
	}
	return tcp
}

// tcpFlags are those of all segments that matter, the common ones more than once.
var tcpFlags = []uint8{
	SYN, SYN, SYN, SYN | ACK, SYN | RST, ACK, ACK, ACK, ACK | PSH, ACK | PSH, FIN | ACK, FIN | ACK, RST, RST | ACK, 0,
}

// targetOf is any of the targets of a family.
func (g *Generator) targetOf(v6 bool) lb.VIP {
	for {
		if vip := pick(g, g.targets); vip.Addr.Is6() == v6 {
			return g.somewhere(vip)
		}
	}
}

// anyAddr is any client address, and now and then one that no client has.
func (g *Generator) anyAddr(v6 bool) netip.Addr {
	if routed, ok := g.routedClient(v6); ok {
		return routed
	}
	odd := g.rng.IntN(20) == 0
	b := g.bytes(16)
	switch {
	case !v6 && odd:
		return pick(g, []netip.Addr{netip.IPv4Unspecified(), netip.AddrFrom4([4]byte{255, 255, 255, 255})})
	case !v6:
		return netip.AddrFrom4([4]byte(b))
	case odd: // IPv4-mapped
		copy(b, []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff})
		return netip.AddrFrom16([16]byte(b))
	default:
		copy(b, []byte{0x20, 0x01, 0x0d, 0xb8})
		return netip.AddrFrom16([16]byte(b))
	}
}

// nearby is an address that differs in one bit, which no target should have.
func (g *Generator) nearby(addr netip.Addr) netip.Addr {
	b := addr.AsSlice()
	b[g.rng.IntN(len(b)-1)] ^= 1 << g.rng.IntN(8)
	near, _ := netip.AddrFromSlice(b)
	return near
}

// data is application data: mostly little, at times much, now and then more than a link takes.
func (g *Generator) data() []byte {
	switch g.rng.IntN(12) {
	case 0:
		return nil
	case 1, 2:
		return g.bytes(g.rng.IntN(1400))
	case 3:
		return g.bytes(g.rng.IntN(MaxLen - 400)) // room for all headers and any trailer
	}
	return g.bytes(g.rng.IntN(48))
}

func (g *Generator) bytes(n int) []byte {
	b := make([]byte, 0, n+8)
	for len(b) < n {
		b = binary.LittleEndian.AppendUint64(b, g.rng.Uint64())
	}
	return b[:n:n]
}

func (g *Generator) byte() byte { return byte(g.rng.UintN(256)) }

// between is from low to high, both included.
func (g *Generator) between(low, high int) int { return low + g.rng.IntN(high-low+1) }

func pick[T any](g *Generator, from []T) T { return from[g.rng.IntN(len(from))] }
