// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package frames

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
)

var (
	client4 = netip.MustParseAddr("198.51.100.7")
	server4 = netip.MustParseAddr("203.0.113.10")
	client6 = netip.MustParseAddr("2001:db8:1::7")
	server6 = netip.MustParseAddr("2001:db8::10")
)

// TestBytes compares whole frames with bytes written by hand; their checksums were computed
// apart from this package.
func TestBytes(t *testing.T) {
	macs := Frame{Dst: [6]byte{2, 0, 0, 0, 0, 1}, Src: [6]byte{2, 0, 0, 0, 0, 2}}
	with := func(p Packet) Frame {
		f := macs
		f.Packet = p
		return f
	}
	tagged := with(Raw{Data: []byte{1, 2, 3}})
	tagged.Tags = []Tag{{EtherTypeSTag, 0x0064}, {EtherTypeTag, 0x2001}}
	tagged.EtherType, tagged.Trailer, tagged.MinLen = EtherTypeARP, []byte{9}, 30

	cases := []struct {
		name  string
		frame Frame
		want  string
	}{
		{"Ethernet header alone", macs, "020000000001 020000000002 0000"},
		{"tags, trailer and padding", tagged, "020000000001 020000000002 88a8 0064 8100 2001 0806 010203 09 0000 0000"},
		{
			"IPv4 with an option and UDP without checksum",
			with(IPv4{
				TOS: 0xb9, TTL: 61, ID: 0x1234, Fragment: DontFragment, Src: client4, Dst: server4, Options: []byte{1},
				Payload: UDP{SrcPort: 50000, DstPort: 53, NoChecksum: true, Data: []byte("a")},
			}),
			`020000000001 020000000002 0800
			46b9 0021 1234 4000 3d11 c299 c6336407 cb00710a 01000000
			c350 0035 0009 0000 61`,
		},
		{
			"IPv6 with extension headers around a fragment header",
			with(IPv6{
				TrafficClass: 0xb9, FlowLabel: 0x54321, HopLimit: 61, Src: client6, Dst: server6,
				Extensions: []Extension{
					HopByHop(0), Routing(0, 1), FragmentHeader(0x0008|MoreFragments6, 7), Authentication(1), DestinationOptions(1),
				},
				Payload: Raw{Protocol: 59},
			}),
			`020000000001 020000000002 86dd
			6b954321 0034 00 3d 20010db8000100000000000000000007 20010db8000000000000000000000010
			2b00000000000000 2c00fd0100000000 3300000900000007 3c0100000000000000000000 3b01000000000000 0000000000000000`,
		},
		{
			"ICMP echo in IPv4",
			with(IPv4{TTL: 64, Src: client4, Dst: server4, Payload: ICMP{Type: EchoRequest, Rest: 0x00010002}}),
			`020000000001 020000000002 0800
			4500 001c 0000 0000 4001 149c c6336407 cb00710a
			0800 f7fc 00010002`,
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			want, err := hex.DecodeString(strings.Join(strings.Fields(c.want), ""))
			if err != nil {
				t.Fatal(err)
			}
			if got := c.frame.Bytes(); !bytes.Equal(got, want) {
				t.Errorf("got  %x\nwant %x", got, want)
			}
		})
	}
}

func TestChecksumsVerify(t *testing.T) {
	payloads := []struct {
		name    string
		payload Payload
	}{
		{"tcp", TCP{SrcPort: 50000, DstPort: 443, Flags: SYN, Data: []byte("odd")}},
		{"tcp with options", TCP{SrcPort: 1, DstPort: 2, Options: []byte{2, 4, 5, 0xb4, 1}}},
		{"udp", UDP{SrcPort: 50000, DstPort: 53, Data: []byte("even")}},
		{"icmp", ICMP{Type: EchoRequest6, Data: []byte("ping")}},
	}
	for _, c := range payloads {
		t.Run(c.name, func(t *testing.T) {
			ip4 := IPv4{TTL: 64, Src: client4, Dst: server4, Options: []byte{1, 1, 1}, Payload: c.payload}.Bytes()
			if sum := Checksum(ip4[:24]); sum != 0 {
				t.Errorf("IPv4 header checksum is off by %#x", sum)
			}
			segment := ip4[24:]
			sum := TransportChecksum(client4, server4, ip4[9], segment)
			if ip4[9] == 1 {
				sum = Checksum(segment) // ICMP covers no pseudo header
			}
			if sum != 0 {
				t.Errorf("checksum in IPv4 is off by %#x", sum)
			}
			ip6 := IPv6{Src: client6, Dst: server6, Payload: c.payload}.Bytes()
			if sum := TransportChecksum(client6, server6, ip6[6], ip6[40:]); sum != 0 {
				t.Errorf("checksum in IPv6 is off by %#x", sum)
			}
		})
	}
}

func TestUDPChecksumIsNeverZero(t *testing.T) {
	for n := range 1 << 16 {
		_, b := UDP{SrcPort: uint16(n), DstPort: 53}.segment(client4, server4)
		if b[6] == 0 && b[7] == 0 {
			t.Fatalf("source port %d: the checksum says that there is none", n)
		}
	}
}

func TestPacketInPacket(t *testing.T) {
	inner := IPv6{HopLimit: 9, Src: client6, Dst: server6, Payload: UDP{Data: []byte("x")}}
	outer := IPv4{TTL: 64, Src: client4, Dst: server4, Payload: inner}.Bytes()
	if outer[9] != 41 || !bytes.Equal(outer[20:], inner.Bytes()) {
		t.Errorf("protocol %d, inner packet %x", outer[9], outer[20:])
	}
}
