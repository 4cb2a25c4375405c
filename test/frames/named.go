// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package frames

import (
	"maps"
	"slices"

	"github.com/remora-lb/remora/lb"
)

// named is a packet that names a server, to a VIP that may look at that. Most names are sound and of a
// server of the VIP.
func (g *Generator) named() []byte {
	vip := g.vip()
	number := g.serverNumber(vip)
	to := g.somewhere(vip)
	if vip.Protocol == lb.TCP {
		tcp := g.flow(to, g.data()).(TCP)
		tcp.Options = g.tcpOptions(number)
		b := g.frame(g.packet(to.Addr, tcp))
		if g.rng.IntN(16) == 0 { // the header is longer than it says, or shorter
			at := transportAt(b)
			b[at+12] = b[at+12]&0x0f | g.byte()&0xf0
		}
		return b
	}
	data := g.namingData(vip, number)
	if g.rng.IntN(8) == 0 {
		data = data[:g.rng.IntN(len(data)+1)]
	}
	udp := g.flow(to, append(data, g.bytes(g.rng.IntN(3)*g.rng.IntN(30))...))
	p := g.packet(to.Addr, udp)
	if g.rng.IntN(8) == 0 { // what is missing may be in the trailer, where it does not count
		f := g.link()
		f.Packet, f.Trailer = p, g.bytes(g.rng.IntN(20))
		return f.Bytes()
	}
	return g.frame(p)
}

// serverNumber is the number of one of the VIP's servers, or at times another or none.
func (g *Generator) serverNumber(vip lb.VIP) uint32 {
	numbers := slices.Sorted(maps.Keys(g.world.VIPs[vip].Servers))
	switch {
	case len(numbers) == 0, g.rng.IntN(6) == 0:
		return pick(g, []uint32{0, 1, 255, 1 << 31, g.rng.Uint32(), g.rng.Uint32() >> 8, g.rng.Uint32() >> 16})
	}
	return pick(g, numbers)
}

// namingData is the beginning of a datagram that names the server by one of the ways that the VIP reads,
// or by another.
func (g *Generator) namingData(vip lb.VIP, number uint32) []byte {
	options := g.world.VIPs[vip].Options
	var ways []int
	if options.ConnectionIDs != lb.ConnectionIDsOff {
		ways = append(ways, int(options.ConnectionIDs), int(options.ConnectionIDs))
	}
	const byUDPID = 3
	if options.UDPIDs {
		ways = append(ways, byUDPID)
	}
	way := g.rng.IntN(4)
	if len(ways) > 0 && g.rng.IntN(8) > 0 {
		way = pick(g, ways)
	}
	switch way {
	case int(lb.ConnectionIDsKatran):
		return g.quic(KatranID(uint8(g.rng.IntN(4)), number, [8]byte(g.bytes(8))))
	case int(lb.ConnectionIDsQUICLB):
		form := g.world.QUICLB
		form.ServerIDBytes = max(form.ServerIDBytes, 1)
		if g.rng.IntN(8) == 0 {
			form.ConfigID = uint8(g.rng.IntN(8))
		}
		return g.quic(QUICLBID(form, number, [4]byte(g.bytes(4))))
	case byUDPID:
		b := UDPID(number)
		if g.rng.IntN(8) == 0 {
			b[0] = pick(g, []byte{0x50, 0x51, 0x53, 0xd2, g.byte()})
		}
		return b
	}
	return g.bytes(g.rng.IntN(24))
}

// quic is the beginning of a QUIC packet of any type. At times the length of the id is wrong.
func (g *Generator) quic(id []byte) []byte {
	if g.rng.IntN(2) == 0 {
		return QUICShort(id)
	}
	b := QUICLong(pick(g, []uint8{QUICHandshake, QUICHandshake, QUICHandshake, QUICRetry, QUICInitial, QUICZeroRTT}), id)
	if g.rng.IntN(6) == 0 {
		b[5] = byte(int(b[5]) + g.between(-2, 2))
	}
	return append(b, g.bytes(g.rng.IntN(8))...)
}

// tcpOptions are options with the number at any place among others, and now and then something that
// ends them before.
func (g *Generator) tcpOptions(number uint32) []byte {
	var before []byte
	for range g.rng.IntN(4) {
		before = append(before, g.tcpOption()...)
	}
	if g.rng.IntN(4) == 0 { // around the greatest number of options
		before = slices.Repeat([]byte{TCPOptionNOP}, g.between(12, 17))
	}
	id := TCPID(number)
	switch g.rng.IntN(16) {
	case 0:
		id[1] = byte(g.rng.IntN(10))
	case 1:
		id = append(id, TCPID(g.rng.Uint32())...)
	case 2:
		id = append(TCPOption(TCPOptionServerID, g.bytes(g.rng.IntN(6))...), id...)
	}
	all := append(before, id...)
	if g.rng.IntN(2) == 0 {
		all = append(all, g.tcpOption()...)
	}
	return all[:min(len(all), 40)]
}

// tcpOption is one other option, mostly a sound one.
func (g *Generator) tcpOption() []byte {
	switch g.rng.IntN(12) {
	case 0:
		return []byte{TCPOptionEnd}
	case 1:
		return []byte{g.byte(), byte(g.rng.IntN(3))}
	case 2:
		return []byte{g.byte(), g.byte()}
	case 3, 4, 5:
		return []byte{TCPOptionNOP}
	}
	return TCPOption(pick(g, []uint8{2, 3, 4, 5, 8, 0xb6, 0xb8, 0xfe}), g.bytes(g.rng.IntN(9))...)
}

// transportAt is where the header of TCP begins in a frame that frame made without options or extension
// headers.
func transportAt(b []byte) int {
	at := HeaderLen
	for b[at-2] != 0x08 && b[at-2] != 0x86 || b[at-1] != 0x00 && b[at-1] != 0xdd {
		at += 4
	}
	if b[at]>>4 == 6 {
		return at + 40
	}
	return at + 20
}
