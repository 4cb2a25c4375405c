// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/model"
	"github.com/remora-lb/remora/test/frames"
)

const router4, router6 = "192.0.2.77", "2001:db8:7::77"

// icmpError is an error from a router to the VIP of a family with the quote.
func icmpError(v6 bool, quote []byte) frames.Packet {
	if v6 {
		return packet(router6, vip6, frames.ICMP{Type: frames.TooBig6, Rest: 1280, Data: quote})
	}
	return packet(router4, vip4, frames.ICMP{Type: frames.Unreachable, Code: 4, Rest: 1280, Data: quote})
}

// sentBy is a packet that a server sends to the client as an answer to the payload.
func sentBy(v6 bool, payload frames.Payload) frames.Packet {
	if v6 {
		return packet(vip6, client6, frames.Reversed(payload))
	}
	return packet(vip4, client4, frames.Reversed(payload))
}

// quoted is the least that is quoted of the answer to a TCP segment, with bytes of it overwritten.
func quoted(v6 bool, at int, value ...byte) []byte {
	b := frames.Quote(sentBy(v6, tcp), frames.QuotedLen)
	copy(b[at:], value)
	return b
}

// about is a frame with an error that quotes this.
func about(v6 bool, quote []byte) []byte { return frame(icmpError(v6, quote)).Bytes() }

func TestICMPErrors(t *testing.T) {
	const forwarded, icmp = lb.ReasonForwarded, lb.ReasonICMP
	reply := sentBy(false, tcp).(frames.IPv4)
	withOptions := func(n int) frames.IPv4 {
		p := reply
		p.Options = slices.Repeat([]byte{1}, n)
		return p
	}
	fragment := func(field uint16) []byte {
		return about(false, quoted(false, 6, byte(field>>8), byte(field)))
	}
	optionsAround := icmpError(false, quoted(false, 0)).(frames.IPv4)
	optionsAround.Options = []byte{1}
	around := func(chain ...frames.Extension) []byte {
		p := icmpError(true, quoted(true, 0)).(frames.IPv6)
		p.Extensions = chain
		return frame(p).Bytes()
	}
	fragmentAround := icmpError(false, quoted(false, 0)).(frames.IPv4)
	fragmentAround.Fragment = frames.MoreFragments
	extended := sentBy(true, tcp).(frames.IPv6)
	extended.Extensions = []frames.Extension{frames.DestinationOptions(0)}
	wrongChecksum := about(false, quoted(false, 0))
	wrongChecksum[14+20+2] ^= 0x55
	runReasons(t, bothFamilies(t), []reasonCase{
		{"IPv4, TCP", about(false, quoted(false, 0)), forwarded},
		{"IPv4, UDP", about(false, frames.Quote(sentBy(false, udp), 8)), forwarded},
		{"IPv6, TCP", about(true, quoted(true, 0)), forwarded},
		{"IPv6, UDP", about(true, frames.Quote(sentBy(true, udp), 8)), forwarded},
		{"IPv4, quoted as a whole", about(false, reply.Bytes()), forwarded},
		{"IPv6, quoted as a whole", about(true, sentBy(true, tcp).Bytes()), forwarded},
		{"IPv4, nothing quoted", about(false, nil), icmp},
		{"IPv6, nothing quoted", about(true, nil), icmp},
		{"IPv4, wrong ICMP checksum", wrongChecksum, forwarded},
		{"IPv4, wrong checksum of the quoted header", about(false, quoted(false, 10, 0, 0)), forwarded},
		{"IPv4, quoted total length 0", about(false, quoted(false, 2, 0, 0)), forwarded},
		{"IPv4, greatest quoted total length", about(false, quoted(false, 2, 0xff, 0xff)), forwarded},
		{"IPv6, quoted payload length 0", about(true, quoted(true, 4, 0, 0)), forwarded},
		{"IPv6, quoted traffic class and flow label", about(true, quoted(true, 0, 0x6f, 0xff, 0xff, 0xff)), forwarded},

		{"IPv4, quoted version 6", about(false, quoted(false, 0, 0x65)), icmp},
		{"IPv4, quoted version 5", about(false, quoted(false, 0, 0x55)), icmp},
		{"IPv6, quoted version 4", about(true, quoted(true, 0, 0x40)), icmp},
		{"IPv6, quoted version 7", about(true, quoted(true, 0, 0x70)), icmp},
		{"IPv4, a quoted packet of IPv6", about(false, quoted(true, 0)), icmp},
		{"IPv4, a quoted packet of IPv6 from the mapped address", about(false,
			frames.Quote(packet("::ffff:"+vip4, client6, frames.Reversed(tcp)), 8)), icmp},
		{"IPv6, a quoted packet of IPv4", about(true, frames.Quote(reply, 60)), icmp},
		{"IPv4, quoted header length 16", about(false, quoted(false, 0, 0x44)), icmp},
		{"IPv4, quoted header length 0", about(false, quoted(false, 0, 0x40)), icmp},
		{"IPv4, quoted header longer than the quote", about(false, quoted(false, 0, 0x4f)), icmp},
		{"IPv4, quoted header that leaves 4 bytes", about(false, quoted(false, 0, 0x46)), icmp},
		{"IPv4, quoted options of 4 bytes", about(false, frames.Quote(withOptions(4), 8)), forwarded},
		{"IPv4, quoted options of 40 bytes", about(false, frames.Quote(withOptions(40), 8)), forwarded},
		{"IPv4, quoted options of 40 bytes, and 7 behind", about(false, frames.Quote(withOptions(40), 7)), icmp},
		{"IPv4, quoted options of 40 bytes, cut", about(false, frames.Quote(withOptions(40), 0)[:59]), icmp},

		{"IPv4, quoted don't fragment", fragment(frames.DontFragment), forwarded},
		{"IPv4, quoted reserved bit", fragment(0x8000), forwarded},
		{"IPv4, quoted first fragment", fragment(frames.MoreFragments), forwarded},
		{"IPv4, quoted last fragment", fragment(1), icmp},
		{"IPv4, quoted middle fragment", fragment(frames.MoreFragments | 0x0100), icmp},
		{"IPv4, quoted greatest bit of the offset", fragment(0x1000), icmp},
		{"IPv6, quoted extension header", about(true, extended.Bytes()), icmp},
		{"IPv6, quoted fragment header", about(true, quoted(true, 6, 44)), icmp},

		{"IPv4, quoted ICMP", about(false, quoted(false, 9, 1)), icmp},
		{"IPv4, quoted SCTP", about(false, quoted(false, 9, 132)), icmp},
		{"IPv4, quoted protocol 0", about(false, quoted(false, 9, 0)), icmp},
		{"IPv6, quoted ICMPv6", about(true, quoted(true, 6, 58)), icmp},
		{"IPv6, quoted no next header", about(true, quoted(true, 6, 59)), icmp},

		{"IPv4, quoted source is another", about(false, quoted(false, 15, 11)), icmp},
		{"IPv4, quoted source differs in the first bit", about(false, quoted(false, 12, 203^0x80)), icmp},
		{"IPv6, quoted source differs in the first byte", about(true, quoted(true, 8, 0x21)), icmp},
		{"IPv6, quoted source differs in the last byte", about(true, quoted(true, 23, 0x11)), icmp},
		{"IPv4, about the client's packet", about(false, to(false, tcp).Bytes()), icmp},
		{"IPv4, to an address without a VIP, quoted so", func() []byte {
			p := icmpError(false, quoted(false, 15, 9)).(frames.IPv4)
			p.Dst = addr("203.0.113.9")
			return frame(p).Bytes()
		}(), lb.ReasonNotVIP},

		{"IPv4, options around", frame(optionsAround).Bytes(), forwarded},
		{"IPv4, fragment", frame(fragmentAround).Bytes(), lb.ReasonFragment},
		{"IPv6, extension headers around", around(frames.HopByHop(0), frames.DestinationOptions(1)), forwarded},
		{"IPv6, whole packet with a fragment header around", around(frames.FragmentHeader(0, 1)), forwarded},
		{"IPv6, fragment", around(frames.FragmentHeader(1, 1)), lb.ReasonFragment},
		{"IPv6, routing header not used up around", around(frames.Routing(0, 1)), lb.ReasonIPv6Extension},
	})
}

// TestICMPTypes has each type with a quote that can be told.
func TestICMPTypes(t *testing.T) {
	tables := bothFamilies(t)
	want := map[bool]map[int]lb.Reason{
		false: {3: lb.ReasonForwarded, 11: lb.ReasonForwarded, 12: lb.ReasonForwarded, 8: lb.ReasonEchoAnswered},
		true: {
			1: lb.ReasonForwarded, 2: lb.ReasonForwarded, 3: lb.ReasonForwarded, 4: lb.ReasonForwarded,
			128: lb.ReasonEchoAnswered,
		},
	}
	for _, v6 := range []bool{false, true} {
		for icmpType := range 256 {
			reason, ok := want[v6][icmpType]
			if !ok {
				reason = lb.ReasonICMP
			}
			f := frame(to(v6, frames.ICMP{Type: uint8(icmpType), Code: 13, Data: quoted(v6, 0)})).Bytes()
			if got := process(t, tables, f).Reason; got != reason {
				t.Errorf("IPv6 %t, type %d: %s, want %s", v6, icmpType, got, reason)
			}
		}
	}
}

// TestICMPErrorCut ends the message at every byte. What follows it in the frame is a trailer.
func TestICMPErrorCut(t *testing.T) {
	options := sentBy(false, udp).(frames.IPv4)
	options.Options = []byte{1, 1, 1, 1, 1}
	cases := []struct {
		name  string
		sent  frames.Packet
		least int // of the message
	}{
		{"IPv4", sentBy(false, udp), 8 + 20 + 8},
		{"IPv4, quoted options", options, 8 + 28 + 8},
		{"IPv6", sentBy(true, udp), 8 + 40 + 8},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, v6 := c.sent.(frames.IPv6)
			whole := about(v6, c.sent.Bytes())
			headerLen, lengthAt, base := 20, 2, 20
			if v6 {
				headerLen, lengthAt, base = 40, 4, 0
			}
			tables := bothFamilies(t)
			for n := range len(whole) - 14 - headerLen + 1 {
				want := lb.ReasonForwarded
				if n < 8 {
					want = lb.ReasonTruncated
				} else if n < c.least {
					want = lb.ReasonICMP
				}
				withTrailer := patch(slices.Clone(whole), lengthAt, uint16(base+n))
				for _, f := range [][]byte{withTrailer, withTrailer[:14+headerLen+n]} {
					if got := process(t, tables, f).Reason; got != want {
						t.Errorf("a message of %d bytes in a frame of %d: %s, want %s", n, len(f), got, want)
					}
				}
				if n > 0 {
					if got := process(t, tables, withTrailer[:14+headerLen+n-1]).Reason; got != lb.ReasonTruncated {
						t.Errorf("a message of %d bytes that ends one early: %s", n, got)
					}
				}
			}
		})
	}
}

// TestICMPErrorFindsVIP: it is the quoted source port and protocol that count.
func TestICMPErrorFindsVIP(t *testing.T) {
	tables := oneReal(t, vip4+":443/tcp", tunnelTo(t, lb.IPIP, false, "10.0.0.1"))
	tables.VIPs[lb.VIP{Addr: addr(vip4), Protocol: lb.UDP}] = model.VIP{Ring: model.Ring{lb.StableSlot(2)}}
	cases := []struct {
		name string
		sent frames.Payload
		want lb.Reason
		real lb.RealID
	}{
		{"the VIP's port", frames.TCP{SrcPort: 443, DstPort: 50000}, lb.ReasonForwarded, 1},
		{"another port", frames.TCP{SrcPort: 444, DstPort: 443}, lb.ReasonNotVIP, 0},
		{"any port of the other protocol", frames.UDP{SrcPort: 444, DstPort: 50000}, lb.ReasonRealUnknown, 2},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			quote := frames.Quote(packet(vip4, client4, c.sent), frames.QuotedLen)
			if res := process(t, tables, about(false, quote)); res.Reason != c.want || res.Real != c.real {
				t.Errorf("%s, real %d, want %s, real %d", res.Reason, res.Real, c.want, c.real)
			}
		})
	}
}

// TestICMPErrorFollowsFlow compares errors with packets of the flow that they are about, for VIPs
// and reals of all kinds: the same end, the same real, and the same entropy in the outer headers.
func TestICMPErrorFollowsFlow(t *testing.T) {
	const seed = 30
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	tables := frames.Tables(seed)
	targets := frames.Targets(tables)
	forwarded := map[string]int{}
	for range 20_000 {
		vip := targets[rng.IntN(len(targets))]
		packetOf, errorOf := flowAndError(rng, vip)
		own, of := process(t, tables, packetOf.Bytes()), process(t, tables, errorOf.Bytes())
		if own.Reason == lb.ReasonTooBig || of.Reason == lb.ReasonTooBig { // the two are not equally long
			continue
		}
		if own.Reason != of.Reason || own.Real != of.Real {
			t.Fatalf("%s, real %d, and the error %s, real %d\n%x\n%x",
				own.Reason, own.Real, of.Reason, of.Real, packetOf.Bytes(), errorOf.Bytes())
		}
		if own.Reason != lb.ReasonForwarded {
			continue
		}
		tunnel := tables.Reals[own.Real].Tunnel
		if a, b := entropy(own.Frame, tunnel), entropy(of.Frame, tunnel); !bytes.Equal(a, b) {
			t.Fatalf("entropy %x, and of the error %x", a, b)
		}
		forwarded[fmt.Sprintf("IPv6 %t, port 0 %t, %d slots, %s, outer IPv6 %t", vip.Addr.Is6(), vip.Port == 0,
			len(tables.VIPs[vip].Ring), tunnel.Encap, tunnel.Destination.Is6())]++
	}
	if len(forwarded) != 2*2*2*2*2 {
		t.Errorf("%d combinations were forwarded, want 32: %v", len(forwarded), forwarded)
	}
}

// flowAndError is a packet of a random flow to the VIP, and an error about an answer to it.
func flowAndError(rng *rand.Rand, vip lb.VIP) (own, about frames.Frame) {
	random := func() netip.Addr {
		b := vip.Addr.AsSlice()
		for i := range b {
			b[i] = byte(rng.UintN(256))
		}
		addr, _ := netip.AddrFromSlice(b)
		return addr
	}
	port := vip.Port
	if port == 0 {
		port = uint16(rng.UintN(1 << 16))
	}
	client := random().String()
	var payload frames.Payload = frames.TCP{SrcPort: uint16(rng.UintN(1 << 16)), DstPort: port}
	if vip.Protocol == lb.UDP {
		payload = frames.UDP{SrcPort: uint16(rng.UintN(1 << 16)), DstPort: port}
	}
	types := frames.ErrorTypes(vip.Addr.Is6())
	sent := packet(vip.Addr.String(), client, frames.Reversed(payload))
	message := frames.ICMP{Type: types[rng.IntN(len(types))], Data: frames.Quote(sent, frames.QuotedLen)}
	own = frame(packet(client, vip.Addr.String(), payload))
	return own, frame(packet(random().String(), vip.Addr.String(), message))
}

// entropy is the outer source address of IPIP, the outer source port of GUE.
func entropy(frame []byte, tunnel lb.Tunnel) []byte {
	outer := frame[14:]
	if tunnel.Encap == lb.GUE {
		return outer[tunnel.OuterLen()-8:][:2]
	}
	src, _ := ipAddrs(outer)
	return src.AsSlice()
}

// TestICMPErrorOnItsWay has outer headers that tell length and traffic class of the error, not of
// the quote, and the entropy of the client and not of the router.
func TestICMPErrorOnItsWay(t *testing.T) {
	sent := sentBy(false, tcp).(frames.IPv4)
	sent.TOS = 0x11
	e := icmpError(false, frames.Quote(sent, frames.QuotedLen)) // 20 + 8 + 20 + 8 bytes
	cases := []struct {
		name  string
		encap lb.Encap
		want  string
	}{
		{"ipip", lb.IPIP, "45b9004c 00000000 4004 0000 ac1034c4 0a000001"},
		{"gue", lb.GUE, "45b90054 00000000 4011 0000 c0000201 0a000001 34c4 269e 0040 0000"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			tables := oneReal(t, vip4+":443/tcp", tunnelTo(t, c.encap, false, "10.0.0.1"))
			res := process(t, tables, frame(e).Bytes())
			outer := fromHex(t, c.want)
			binary.BigEndian.PutUint16(outer[10:], frames.Checksum(outer[:20]))
			want := slices.Concat(nextHopMAC[:], balancerMAC[:], []byte{8, 0}, outer, e.Bytes())
			if res.Reason != lb.ReasonForwarded || res.Bytes != 56 || !bytes.Equal(res.Frame, want) {
				t.Errorf("%s, %d bytes counted\ngot  %x\nwant %x", res.Reason, res.Bytes, res.Frame, want)
			}
		})
	}
}

// TestICMPErrorTooBig: its own length counts, though the quoted packet is longer.
func TestICMPErrorTooBig(t *testing.T) {
	tables := bothFamilies(t)
	long := frames.TCP{SrcPort: 50000, DstPort: 443, Data: make([]byte, 1400)}
	short, whole := about(false, frames.Quote(sentBy(false, long), 8)), about(false, sentBy(false, long).Bytes())
	for mtu, want := range map[int][2]lb.Reason{
		56 + 20 - 1:   {lb.ReasonTooBig, lb.ReasonTooBig},
		56 + 20:       {lb.ReasonForwarded, lb.ReasonTooBig},
		1468 + 20 - 1: {lb.ReasonForwarded, lb.ReasonTooBig},
		1468 + 20:     {lb.ReasonForwarded, lb.ReasonForwarded},
	} {
		r := tables.Reals[1]
		r.NextHop.MTU = mtu
		tables.Reals[1] = r
		if got := [2]lb.Reason{process(t, tables, short).Reason, process(t, tables, whole).Reason}; got != want {
			t.Errorf("MTU %d: %s, want %s", mtu, got, want)
		}
	}
}

// TestGUEChecksumOfICMPError recomputes the checksum over everything. A quoted datagram without
// checksum says nothing about the error's own.
func TestGUEChecksumOfICMPError(t *testing.T) {
	unchecked := udp
	unchecked.NoChecksum = true
	for _, v6 := range []bool{false, true} {
		extended := icmpError(v6, quoted(v6, 0))
		switch p := extended.(type) {
		case frames.IPv4:
			p.Options = []byte{1}
			extended = p
		case frames.IPv6:
			p.Extensions = []frames.Extension{frames.HopByHop(0)}
			extended = p
		}
		zeros := to(v6, frames.ICMP{Type: 3, Data: frames.Quote(sentBy(v6, udp), 8)})
		family := map[bool]string{false: "IPv4 ", true: "IPv6 "}[v6]
		runChecksums(t, []checksumCase{
			{family + "TCP", icmpError(v6, quoted(v6, 0)), verifies},
			{family + "UDP", icmpError(v6, frames.Quote(sentBy(v6, udp), 8)), verifies},
			{family + "UDP without checksum", icmpError(v6, frames.Quote(sentBy(v6, unchecked), 8)), verifies},
			{family + "UDP, zeros where a datagram has its checksum", zeros, verifies},
			{family + "an odd length", icmpError(v6, frames.Quote(sentBy(v6, udp), 11)), verifies},
			{family + "options or extension header around", extended, absent},
		})
	}
}

func TestTraceOfICMPError(t *testing.T) {
	tables := bothFamilies(t)
	var steps, texts []string
	tables.Trace = func(step, text string) { steps, texts = append(steps, step), append(texts, text) }
	process(t, tables, about(false, quoted(false, 0)))
	if want := []string{"parse", "icmp", "vip", "ring", "real", "encapsulate", "end"}; !slices.Equal(steps, want) {
		t.Fatalf("steps %q, want %q", steps, want)
	}
	if want := "type 3, about 198.51.100.7:50000 to 203.0.113.10:443, tcp"; texts[1] != want {
		t.Errorf("%q, want %q", texts[1], want)
	}
}
