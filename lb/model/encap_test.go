// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/frames"
)

// TestEntropy has a client and a port whose bytes all differ.
func TestEntropy(t *testing.T) {
	const (
		c4, c6 = "198.51.100.7", "2001:db8::1122:3344" // c6336407; ...11223344
		sport  = 0xa1b2
	)
	cases := []struct {
		name   string
		encap  lb.Encap
		client string
		real   string
		want   string // outer source of IPIP, outer source port of GUE
	}{
		{"ipip, IPv4 in IPv4", lb.IPIP, c4, "10.0.0.1", "ac10 d6a6"},
		{"ipip, IPv6 in IPv4", lb.IPIP, c6, "10.0.0.1", "ac10 81e5"},
		{"ipip, IPv4 in IPv6", lb.IPIP, c4, "fc00::1", "010000000000000000000000 67816407"},
		{"ipip, IPv6 in IPv6", lb.IPIP, c6, "fc00::1", "010000000000000000000000 b0903344"},
		{"gue, IPv4 in IPv4", lb.GUE, c4, "10.0.0.1", "d6a6"},
		{"gue, IPv6 in IPv4", lb.GUE, c6, "10.0.0.1", "81e5"},
		{"gue, IPv4 in IPv6", lb.GUE, c4, "fc00::1", "c5b5"},
		{"gue, IPv6 in IPv6", lb.GUE, c6, "fc00::1", "b090"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			v := lb.VIP{Addr: addr(vip4), Protocol: lb.TCP}
			if addr(c.client).Is6() {
				v.Addr = addr(vip6)
			}
			tables := oneReal(t, v.String(), tunnelTo(t, c.encap, false, c.real))
			in := frame(packet(c.client, v.Addr.String(), frames.TCP{SrcPort: sport})).Bytes()
			outer := process(t, tables, in).Frame[14:]
			from, to := 12, 16
			if addr(c.real).Is6() {
				from, to = 8, 24
			}
			if c.encap == lb.GUE {
				from = 2*to - from // behind the destination
				to = from + 2
			}
			if want := fromHex(t, c.want); !bytes.Equal(outer[from:to], want) {
				t.Errorf("got %x, want %x", outer[from:to], want)
			}
		})
	}
}

// TestTagsAndTrailer compares whole frames: what is around the IP packet stays around it.
func TestTagsAndTrailer(t *testing.T) {
	tables := oneReal(t, vip4+":443/tcp", tunnelTo(t, lb.IPIP, false, "fc00::1"))
	inner := to(false, tcp)
	in := frame(inner)
	in.Tags = []frames.Tag{
		{EtherType: frames.EtherTypeSTag, Control: 0x6064},
		{EtherType: frames.EtherTypeTag, Control: 0x0fff},
	}
	in.Trailer = []byte("trailer")
	res := process(t, tables, in.Bytes())

	outer := fromHex(t, `6b900000 002d 04 40 010000000000000000000000 05636407 fc000000000000000000000000000001`)
	want := in
	want.Dst, want.Src, want.EtherType = nextHopMAC, balancerMAC, frames.EtherTypeIPv6
	want.Packet = frames.Raw{Data: append(outer, inner.Bytes()...)}
	if !bytes.Equal(res.Frame, want.Bytes()) || res.Bytes != 45 {
		t.Errorf("%d bytes counted\ngot  %x\nwant %x", res.Bytes, res.Frame, want.Bytes())
	}
}

func TestGUEChecksum(t *testing.T) {
	datagram := frames.UDP{SrcPort: 50000, DstPort: 53, Data: []byte("hello")}
	unchecked := datagram
	unchecked.NoChecksum = true
	options := to(false, datagram).(frames.IPv4)
	options.Options = []byte{7, 7, 4, 0x12, 0x34, 0x56, 0x78}
	extended := to(true, datagram).(frames.IPv6)
	extended.Extensions = []frames.Extension{frames.DestinationOptions(0)}
	wrongHeader := to(false, datagram).Bytes()
	wrongHeader[10] ^= 0x55

	runChecksums(t, []checksumCase{
		{"IPv4 UDP", to(false, datagram), verifies},
		{"IPv4 TCP", to(false, tcp), verifies},
		{"IPv4 options", options, absent},
		{"IPv4 wrong header checksum", frames.Raw{Data: wrongHeader}, verifies},
		{"IPv4 UDP without checksum", to(false, unchecked), absent},
		{"IPv6 UDP", to(true, datagram), verifies},
		{"IPv6 TCP", to(true, tcp), verifies},
		{"IPv6 UDP without checksum", to(true, unchecked), absent},
		{"IPv6 extension header", extended, absent},
	})
}

const absent, verifies = false, true

type checksumCase struct {
	name   string
	packet frames.Packet
	want   bool // absent or verifies
}

// runChecksums recomputes GUE's checksum over everything, for reals of both families.
func runChecksums(t *testing.T, cases []checksumCase) {
	t.Helper()
	for _, c := range cases {
		for _, real := range []string{"10.0.0.1", "fc00::1"} {
			t.Run(c.name+" to "+real, func(t *testing.T) {
				tables := bothFamilies(t)
				r := tables.Reals[1]
				r.Tunnel = tunnelTo(t, lb.GUE, true, real)
				tables.Reals[1] = r
				f := frame(c.packet)
				if f.EtherType = frames.EtherTypeIPv4; c.packet.Bytes()[0]>>4 == 6 {
					f.EtherType = frames.EtherTypeIPv6
				}
				res := process(t, tables, f.Bytes())
				if res.Reason != lb.ReasonForwarded {
					t.Fatal(res.Reason)
				}
				out := res.Frame[14:]
				src, dst := ipAddrs(out)
				datagram := out[r.Tunnel.OuterLen()-8:]
				checksum := binary.BigEndian.Uint16(datagram[6:])
				if c.want == absent && checksum != 0 {
					t.Errorf("checksum %#x, want 0", checksum)
				}
				if c.want == verifies && (checksum == 0 || frames.TransportChecksum(src, dst, 17, datagram) != 0) {
					t.Errorf("checksum %#x does not verify", checksum)
				}
			})
		}
	}
}

// TestGUEChecksumZero has a computed checksum of 0, which is written as 0xffff: RFC 768. Here
// the source port comes into the sum once, so the checksum for port 0 is the port that gives 0.
func TestGUEChecksumZero(t *testing.T) {
	tables := bothFamilies(t)
	r := tables.Reals[1]
	r.Tunnel = tunnelTo(t, lb.GUE, true, "fc00::1")
	tables.Reals[1] = r
	checksum := func(sport uint16) uint16 {
		segment := frames.UDP{SrcPort: sport, DstPort: 53}
		return binary.BigEndian.Uint16(process(t, tables, frame(to(true, segment)).Bytes()).Frame[14+40+6:])
	}
	port := checksum(0)
	if before, zero := checksum(port-1), checksum(port); before != 1 || zero != 0xffff {
		t.Errorf("checksums %#x and %#x, want 0x1 and 0xffff", before, zero)
	}
}

// TestChecksumOff has the same packet with and without a computed checksum.
func TestChecksumOff(t *testing.T) {
	f := frame(to(false, tcp)).Bytes()
	on := process(t, oneReal(t, vip4+":443/tcp", tunnelTo(t, lb.GUE, true, "10.0.0.3")), f).Frame
	off := process(t, oneReal(t, vip4+":443/tcp", tunnelTo(t, lb.GUE, false, "10.0.0.3")), f).Frame
	const at = 14 + 20 + 6
	want := slices.Concat(on[:at], []byte{0, 0}, on[at+2:])
	if bytes.Equal(on, off) || !bytes.Equal(off, want) {
		t.Errorf("got  %x\nwant %x", off, want)
	}
}
