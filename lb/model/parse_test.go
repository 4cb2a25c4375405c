// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/model"
	"github.com/remora-lb/remora/test/frames"
)

const (
	client4, vip4 = "198.51.100.7", "203.0.113.10"
	client6, vip6 = "2001:db8:1::7", "2001:db8::10"
)

// bothFamilies has TCP and UDP VIPs of all ports at vip4 and vip6, with one real each.
func bothFamilies(t testing.TB) *model.Tables {
	t.Helper()
	tables := oneReal(t, vip4+":0/tcp", tunnelTo(t, lb.IPIP, false, "10.0.0.1"))
	for v, entry := range tables.VIPs {
		tables.VIPs[lb.VIP{Addr: v.Addr, Protocol: lb.UDP}] = entry
		tables.VIPs[lb.VIP{Addr: addr(vip6), Protocol: lb.TCP}] = entry
		tables.VIPs[lb.VIP{Addr: addr(vip6), Protocol: lb.UDP}] = entry
	}
	return tables
}

// to is a packet to the VIP of a family.
func to(v6 bool, payload frames.Payload) frames.Packet {
	if v6 {
		return packet(client6, vip6, payload)
	}
	return packet(client4, vip4, payload)
}

var (
	tcp    = frames.TCP{SrcPort: 50000, DstPort: 443, Data: []byte("hello")}
	udp    = frames.UDP{SrcPort: 50000, DstPort: 53, Data: []byte("hello")}
	nobody = frames.Raw{Protocol: 59}
)

// v4 is a packet to the IPv4 VIP after a change.
func v4(change func(p *frames.IPv4)) []byte {
	p := to(false, tcp).(frames.IPv4)
	change(&p)
	return frame(p).Bytes()
}

// v6 is a packet to the IPv6 VIP with these extension headers.
func v6(payload frames.Payload, chain ...frames.Extension) []byte {
	p := to(true, payload).(frames.IPv6)
	p.Extensions = chain
	return frame(p).Bytes()
}

// patch is b with two bytes of its IP packet, untagged, overwritten.
func patch(b []byte, at int, value uint16) []byte {
	binary.BigEndian.PutUint16(b[14+at:], value)
	return b
}

type reasonCase struct {
	name  string
	frame []byte
	want  lb.Reason
}

func runReasons(t *testing.T, tables *model.Tables, cases []reasonCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := process(t, tables, c.frame).Reason; got != c.want {
				t.Errorf("%s, want %s\nframe %x", got, c.want, c.frame)
			}
		})
	}
}

func TestEthernet(t *testing.T) {
	tagged := func(etherTypes ...uint16) []byte {
		f := frame(to(false, tcp))
		for _, e := range etherTypes {
			f.Tags = append(f.Tags, frames.Tag{EtherType: e, Control: 0x0064})
		}
		return f.Bytes()
	}
	bare := func(etherType uint16, more ...byte) []byte {
		return append(frames.Frame{Dst: balancerMAC, Src: routerMAC, EtherType: etherType}.Bytes(), more...)
	}
	runReasons(t, bothFamilies(t), []reasonCase{
		{"nothing", nil, lb.ReasonTruncated},
		{"13 bytes", bare(frames.EtherTypeARP)[:13], lb.ReasonTruncated},
		{"header alone, not IP", bare(frames.EtherTypeARP), lb.ReasonNotIP},
		{"header alone, IPv4", bare(frames.EtherTypeIPv4), lb.ReasonTruncated},
		{"header alone, IPv6", bare(frames.EtherTypeIPv6), lb.ReasonTruncated},
		{"a length instead of an EtherType", bare(46, make([]byte, 46)...), lb.ReasonNotIP},
		{"no tag", tagged(), lb.ReasonForwarded},
		{"one tag", tagged(frames.EtherTypeTag), lb.ReasonForwarded},
		{"one service tag", tagged(frames.EtherTypeSTag), lb.ReasonForwarded},
		{"service tag, then tag", tagged(frames.EtherTypeSTag, frames.EtherTypeTag), lb.ReasonForwarded},
		{"tag, then service tag", tagged(frames.EtherTypeTag, frames.EtherTypeSTag), lb.ReasonForwarded},
		{"three tags", tagged(frames.EtherTypeTag, frames.EtherTypeTag, frames.EtherTypeTag), lb.ReasonNotIP},
		{"a tag of another kind", tagged(0x9100), lb.ReasonNotIP},
		{"tag without its 4 bytes", bare(frames.EtherTypeTag, 0, 1, 8), lb.ReasonTruncated},
		{"tag and nothing behind", bare(frames.EtherTypeTag, 0, 1, 8, 0), lb.ReasonTruncated},
		{"tag, and ARP behind", bare(frames.EtherTypeTag, 0, 1, 8, 6), lb.ReasonNotIP},
		{"second tag without its 4 bytes", bare(frames.EtherTypeTag, 0, 1, 0x81, 0, 0, 1, 8), lb.ReasonTruncated},
		{"two tags, and a third that is not there", bare(frames.EtherTypeTag, 0, 1, 0x81, 0, 0, 1, 0x81, 0), lb.ReasonNotIP},
	})
}

func TestIPv4(t *testing.T) {
	raw := func(protocol uint8, n int) []byte {
		return v4(func(p *frames.IPv4) { p.Payload = frames.Raw{Protocol: protocol, Data: make([]byte, n)} })
	}
	options := func(n int) func(*frames.IPv4) {
		return func(p *frames.IPv4) { p.Options = slices.Repeat([]byte{1}, n) }
	}
	fragment := func(field uint16) []byte { return v4(func(p *frames.IPv4) { p.Fragment = field }) }
	ok := func() []byte { return frame(to(false, tcp)).Bytes() } // 45 bytes of IP
	runReasons(t, bothFamilies(t), []reasonCase{
		{"whole", ok(), lb.ReasonForwarded},
		{"room of 19 bytes", ok()[:14+19], lb.ReasonTruncated},
		{"room of 19 bytes, and a wrong version", patch(ok(), 0, 0x6500)[:14+19], lb.ReasonTruncated},
		{"version 6", patch(ok(), 0, 0x6500), lb.ReasonMalformed},
		{"version 5", patch(ok(), 0, 0x5500), lb.ReasonMalformed},
		{"header length 16", patch(ok(), 0, 0x4400), lb.ReasonMalformed},
		{"header length 0", patch(ok(), 0, 0x4000), lb.ReasonMalformed},
		{"header longer than the room", patch(ok(), 0, 0x4c00), lb.ReasonTruncated},
		{"header longer than the room and the total length", patch(patch(ok(), 0, 0x4f00), 2, 20), lb.ReasonTruncated},
		{"header longer than the total length", patch(ok(), 2, 19), lb.ReasonMalformed},
		{"total length 0", patch(ok(), 2, 0), lb.ReasonMalformed},
		{"header and nothing else", patch(ok(), 2, 20), lb.ReasonTruncated},
		{"total length of the room", patch(ok(), 2, 45), lb.ReasonForwarded},
		{"total length over the room by one", patch(ok(), 2, 46), lb.ReasonTruncated},
		{"total length that leaves a trailer", patch(ok(), 2, 40), lb.ReasonForwarded},
		{"total length that cuts the TCP header", patch(ok(), 2, 39), lb.ReasonTruncated},
		{"wrong header checksum", patch(ok(), 10, 0), lb.ReasonForwarded},
		{"options of 4 bytes", v4(options(4)), lb.ReasonForwarded},
		{"options of 40 bytes", v4(options(40)), lb.ReasonForwarded},
		{"fragment, first", fragment(frames.MoreFragments), lb.ReasonFragment},
		{"fragment, middle", fragment(frames.MoreFragments | 10), lb.ReasonFragment},
		{"fragment, last", fragment(1), lb.ReasonFragment},
		{"fragment, at the greatest offset", fragment(0x1000), lb.ReasonFragment},
		{"reserved bit", fragment(0x8000), lb.ReasonForwarded},
		{"don't fragment", fragment(frames.DontFragment), lb.ReasonForwarded},
		{"fragment without payload", v4(func(p *frames.IPv4) {
			p.Fragment, p.Payload = 1, frames.Raw{Protocol: 6}
		}), lb.ReasonFragment},
		{"fragment of ICMP", v4(func(p *frames.IPv4) { p.Fragment, p.Payload = 1, frames.ICMP{Type: 8} }), lb.ReasonFragment},
		{"fragment of another protocol", v4(func(p *frames.IPv4) { p.Fragment, p.Payload = 1, nobody }), lb.ReasonFragment},
		{"fragment to another address", v4(func(p *frames.IPv4) { p.Fragment, p.Dst = 1, addr("203.0.113.9") }), lb.ReasonNotVIP},
		{"TCP of 19 bytes", raw(6, 19), lb.ReasonTruncated},
		{"TCP of 20 bytes", raw(6, 20), lb.ReasonForwarded},
		{"UDP of 7 bytes", raw(17, 7), lb.ReasonTruncated},
		{"UDP of 8 bytes", raw(17, 8), lb.ReasonForwarded},
		{"TCP of 19 bytes to another address", v4(func(p *frames.IPv4) {
			p.Payload, p.Dst = frames.Raw{Protocol: 6, Data: make([]byte, 19)}, addr("203.0.113.9")
		}), lb.ReasonTruncated},
		{"ICMPv6", raw(58, 8), lb.ReasonOtherProtocol},
		{"hop-by-hop is no extension header", raw(0, 64), lb.ReasonOtherProtocol},
		{"authentication header", raw(51, 64), lb.ReasonOtherProtocol},
		{"IPv4 in IPv4", v4(func(p *frames.IPv4) { p.Payload = to(false, tcp).(frames.IPv4) }), lb.ReasonOtherProtocol},
		{"another protocol without payload", raw(47, 0), lb.ReasonOtherProtocol},
	})
}

func TestIPv6(t *testing.T) {
	raw := func(protocol uint8, n int) frames.Raw { return frames.Raw{Protocol: protocol, Data: make([]byte, n)} }
	ok := func() []byte { return v6(tcp) } // 25 bytes of payload
	mapped := packet("::ffff:198.51.100.7", "::ffff:203.0.113.10", tcp)
	runReasons(t, bothFamilies(t), []reasonCase{
		{"whole", ok(), lb.ReasonForwarded},
		{"room of 39 bytes", ok()[:14+39], lb.ReasonTruncated},
		{"room of 39 bytes, and a wrong version", patch(ok(), 0, 0x4000)[:14+39], lb.ReasonTruncated},
		{"version 4", patch(ok(), 0, 0x4500), lb.ReasonMalformed},
		{"version 7", patch(ok(), 0, 0x7000), lb.ReasonMalformed},
		{"wrong version and payload length", patch(patch(ok(), 0, 0x4500), 4, 1000), lb.ReasonMalformed},
		{"payload length of the room", patch(ok(), 4, 25), lb.ReasonForwarded},
		{"payload length over the room by one", patch(ok(), 4, 26), lb.ReasonTruncated},
		{"payload length that leaves a trailer", patch(ok(), 4, 20), lb.ReasonForwarded},
		{"payload length that cuts the TCP header", patch(ok(), 4, 19), lb.ReasonTruncated},
		{"payload length 0", patch(ok(), 4, 0), lb.ReasonTruncated},
		{"payload length 65535", patch(ok(), 4, 0xffff), lb.ReasonTruncated},
		{"TCP of 20 bytes", v6(raw(6, 20)), lb.ReasonForwarded},
		{"UDP of 7 bytes", v6(raw(17, 7)), lb.ReasonTruncated},
		{"UDP of 8 bytes", v6(raw(17, 8)), lb.ReasonForwarded},
		{"ICMP of IPv4", v6(raw(1, 8)), lb.ReasonOtherProtocol},
		{"no next header", v6(nobody), lb.ReasonOtherProtocol},
		{"IPv6 in IPv6", v6(to(true, tcp).(frames.IPv6)), lb.ReasonOtherProtocol},
		{"IPv4-mapped address of an IPv4 VIP", frame(mapped).Bytes(), lb.ReasonNotVIP},
	})
}

func TestExtensionHeaders(t *testing.T) {
	hop, dst, auth := frames.HopByHop(0), frames.DestinationOptions(0), frames.Authentication(0)
	atomic, fragment := frames.FragmentHeader(0, 7), []frames.Extension{frames.FragmentHeader(8, 7)}
	seven := []frames.Extension{hop, dst, auth, hop, dst, auth, hop}
	elsewhere := to(true, tcp).(frames.IPv6)
	elsewhere.Dst, elsewhere.Extensions = addr("2001:db8::9"), fragment
	cut := func(at int, b []byte) []byte { // a payload length that ends at this byte of the payload
		return patch(b, 4, uint16(at))
	}
	runReasons(t, bothFamilies(t), []reasonCase{
		{"hop-by-hop", v6(tcp, hop), lb.ReasonForwarded},
		{"hop-by-hop behind another", v6(tcp, dst, hop), lb.ReasonForwarded},
		{"routing, used up", v6(tcp, frames.Routing(2, 0)), lb.ReasonForwarded},
		{"routing, one segment left", v6(tcp, frames.Routing(2, 1)), lb.ReasonIPv6Extension},
		{"routing, cut, one segment left", cut(23, v6(tcp, frames.Routing(2, 1))), lb.ReasonTruncated},
		{"authentication of 8 bytes", v6(tcp, auth), lb.ReasonForwarded},
		{"authentication of 12 bytes", v6(tcp, frames.Authentication(1)), lb.ReasonForwarded},
		{"authentication of 1028 bytes", v6(tcp, frames.Authentication(255)), lb.ReasonForwarded},
		{"destination options of 1024 bytes", v6(tcp, frames.DestinationOptions(127)), lb.ReasonForwarded},
		{"six", v6(tcp, seven[:6]...), lb.ReasonForwarded},
		{"seven", v6(tcp, seven...), lb.ReasonIPv6Extension},
		{"a seventh that is not there", cut(48, v6(tcp, seven...)), lb.ReasonIPv6Extension},
		{"a seventh that is a fragment header", v6(tcp, slices.Concat(seven[:6], fragment)...), lb.ReasonIPv6Extension},
		{"six and another protocol", v6(nobody, seven[:6]...), lb.ReasonOtherProtocol},
		{"whole packet with a fragment header", v6(tcp, atomic), lb.ReasonForwarded},
		{"reserved bits of a fragment header", v6(tcp, frames.FragmentHeader(0x0006, 7)), lb.ReasonForwarded},
		{"fragment, first", v6(tcp, frames.FragmentHeader(1, 7)), lb.ReasonFragment},
		{"fragment, last", v6(tcp, frames.FragmentHeader(8, 7)), lb.ReasonFragment},
		{"fragment, at the greatest offset", v6(tcp, frames.FragmentHeader(0xfff8, 7)), lb.ReasonFragment},
		{"fragment behind another extension header", v6(tcp, dst, frames.FragmentHeader(9, 7)), lb.ReasonFragment},
		{"fragment of ICMPv6", v6(frames.ICMP{Type: 128}, frames.FragmentHeader(9, 7)), lb.ReasonFragment},
		{"fragment to another address", frame(elsewhere).Bytes(), lb.ReasonNotVIP},
		{"fragment header's second byte is no length", v6(tcp, frames.Extension{
			Protocol: 44, Body: []byte{255, 0, 0, 0, 0, 0, 7},
		}), lb.ReasonForwarded},
		{"7 bytes of one", cut(7, v6(tcp, dst)), lb.ReasonTruncated},
		{"8 bytes of 16", cut(8, v6(tcp, frames.DestinationOptions(1))), lb.ReasonTruncated},
		{"15 bytes of 16", cut(15, v6(tcp, frames.DestinationOptions(1))), lb.ReasonTruncated},
		{"all of it and a TCP header", cut(36, v6(tcp, frames.DestinationOptions(1))), lb.ReasonForwarded},
		{"all of it and not quite a TCP header", cut(35, v6(tcp, frames.DestinationOptions(1))), lb.ReasonTruncated},
		{"11 bytes of an authentication header of 12", cut(11, v6(tcp, frames.Authentication(1))), lb.ReasonTruncated},
		{"7 bytes of a fragment header", cut(7, v6(tcp, frames.FragmentHeader(8, 7))), lb.ReasonTruncated},
	})
}

// TestEveryCut ends sound frames at every byte: only those that lose nothing but their trailer
// are sent on.
func TestEveryCut(t *testing.T) {
	chain := to(true, udp).(frames.IPv6)
	chain.Extensions = []frames.Extension{frames.HopByHop(1), frames.Authentication(1), frames.FragmentHeader(0, 1)}
	options := to(false, udp).(frames.IPv4)
	options.Options = slices.Repeat([]byte{1}, 12)
	packets := map[string]frames.Packet{
		"IPv4": to(false, tcp), "IPv4 options": options, "IPv6": to(true, tcp), "IPv6 extensions": chain,
		"IPv4 echo": to(false, frames.ICMP{Type: 8}), "IPv6 echo": to(true, frames.ICMP{Type: 128}),
	}
	tables := bothFamilies(t)
	for name, p := range packets {
		for tags := range 3 {
			t.Run(fmt.Sprintf("%s, %d tags", name, tags), func(t *testing.T) {
				f := frame(p)
				f.Tags = slices.Repeat([]frames.Tag{{EtherType: frames.EtherTypeTag, Control: 5}}, tags)
				f.Trailer = []byte("trailer")
				b := f.Bytes()
				for end := range len(b) + 1 {
					res := process(t, tables, b[:end])
					whole := end >= len(b)-len(f.Trailer)
					if (res.Verdict == lb.TX) != whole || !whole && res.Reason != lb.ReasonTruncated {
						t.Errorf("%d of %d bytes: %s", end, len(b), res.Reason)
					}
				}
			})
		}
	}
}
