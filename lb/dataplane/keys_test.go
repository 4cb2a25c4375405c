// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/require"
)

// memory is a value as the program sees it.
func memory(t *testing.T, v any) []byte {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, binary.Write(&b, binary.LittleEndian, v))
	return b.Bytes()
}

// Worked by hand from the layout of struct real in bpf/types.h: mac, fixed, dst, src, then sum,
// max_bytes, kind and gue_port, then a reserved word.
func TestRealRecord(t *testing.T) {
	const (
		mac  = "0200000000fe0000"
		vip4 = "203.0.113.10:443/tcp"
		vip6 = "[2001:db8::10]:443/tcp"
		// Addresses in their two words.
		real4, real6 = "0a000003 00000000 0000000000000000", "fc00000000000000 0000000000000001"
		ipip4, ipip6 = "ac100000 00000000 0000000000000000", "0100000000000000 0000000000000000"
		gue4, gue6   = "c0000201 00000000 0000000000000000", "20010db8ffff0000 0000000000000001"
	)
	for _, tt := range []struct {
		name, vip, backend string
		encap              lb.Encap
		plain              bool // without a computed checksum
		want               string
	}{
		// 4500 + 4004 + ac10 + 0a00 + 0003 = 3b18
		{"4 in IPv4", vip4, "10.0.0.3", lb.IPIP, false, mac + "0000000000004004" + real4 + ipip4 + "3b18 c805 0100 0000"},
		// 4500 + 4029 + ac10 + 0a00 + 0003 = 3b3d
		{"6 in IPv4", vip6, "10.0.0.3", lb.IPIP, false, mac + "0000000000004029" + real4 + ipip4 + "3b3d c805 0100 0000"},
		{"4 in IPv6", vip4, "fc00::1", lb.IPIP, false, mac + "0000000004400000" + real6 + ipip6 + "0000 b405 0200 0000"},
		{"6 in IPv6", vip6, "fc00::1", lb.IPIP, false, mac + "0000000029400000" + real6 + ipip6 + "0000 b405 0200 0000"},
		// 4500 + 4011 + c000 + 0a00 + 0003 = 4f15; the source's other half is added by the program.
		{"GUE in IPv4", vip4, "10.0.0.3", lb.GUE, false, mac + "0000000000004011" + real4 + gue4 + "4f15 c005 0500 269e"},
		{"GUE in IPv4 without checksum", vip6, "10.0.0.3", lb.GUE, true, mac + "0000000000004011" + real4 + gue4 + "4f15 c005 0300 269e"},
		{"GUE in IPv6", vip4, "fc00::1", lb.GUE, false, mac + "0000000011400000" + real6 + gue6 + "0000 ac05 0600 269e"},
		{"GUE in IPv6 without checksum", vip6, "fc00::1", lb.GUE, true, mac + "0000000011400000" + real6 + gue6 + "0000 ac05 0400 269e"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := testReal(t, 7, tt.vip, tt.encap, tt.backend)
			r.Tunnel.Checksum = r.Tunnel.Checksum && !tt.plain
			want := append(unhex(tt.want), make([]byte, 8)...)
			if got := memory(t, realRecord(r)); !bytes.Equal(got, want) {
				t.Errorf("record\n%x, want\n%x", got, want)
			}
		})
	}
}

func TestMaxInnerBytes(t *testing.T) {
	mac := [6]byte{2, 0, 0, 0, 0, 1}
	for _, tt := range []struct {
		name string
		hop  lb.NextHop
		want uint16
	}{
		{"ethernet", lb.NextHop{MAC: mac, MTU: 1500}, 1480},
		{"jumbo", lb.NextHop{MAC: mac, MTU: 9000}, 8980},
		{"longest packet", lb.NextHop{MAC: mac, MTU: 65535 + 20}, 65535},
		{"loopback", lb.NextHop{MAC: mac, MTU: 1 << 17}, 65535},
		{"outer headers only", lb.NextHop{MAC: mac, MTU: 20}, 0},
		{"less than the outer headers", lb.NextHop{MAC: mac, MTU: 19}, 0},
		{"no MAC", lb.NextHop{MTU: 1500, Problem: "no answer"}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := testReal(t, 1, "203.0.113.10:443/tcp", lb.IPIP, "10.0.0.3")
			r.NextHop = tt.hop
			if got := realRecord(r).MaxBytes; got != tt.want {
				t.Errorf("%d bytes, want %d", got, tt.want)
			}
		})
	}
}

func TestVIPKey(t *testing.T) {
	for _, tt := range []struct{ name, vip, want string }{
		{"IPv4", "203.0.113.10:443/tcp", "cb00710a 01bb 06 00"},
		{"IPv4, all ports", "203.0.113.10:0/udp", "cb00710a 0000 11 00"},
		{"IPv6", "[2001:db8::10]:443/tcp", "20010db8000000000000000000000010 01bb 06 00 00000000"},
		{"IPv6, high port", "[2001:db8::10]:65280/udp", "20010db8000000000000000000000010 ff00 11 00 00000000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k, want := keyOf(testVIP(t, tt.vip)), unhex(tt.want)
			got := memory(t, []uint64{k.lo, k.hi, k.portProto})[:len(want)]
			if !bytes.Equal(got, want) {
				t.Errorf("key %x, want %x", got, want)
			}
		})
	}
}

func TestVIPValue(t *testing.T) {
	got, want := memory(t, vipValue(span{first: 1000, size: 65537}, lb.VIPEntry{})), unhex("e8030000 01000100")
	if !bytes.Equal(got, want) {
		t.Errorf("value %x, want %x", got, want)
	}
	if v := vipValue(span{first: 1<<32 - lb.MaxRingSize, size: lb.MaxRingSize}, lb.VIPEntry{}); v>>32 != lb.MaxRingSize || v>>52 != 0 {
		t.Errorf("value %x of the largest ring reaches into the flags", v)
	}
}

func TestAddrWords(t *testing.T) {
	if got, want := addrWords(netip.MustParseAddr("1.2.3.4")), [2]uint64{0x04030201}; got != want {
		t.Errorf("IPv4: %x, want %x", got, want)
	}
	got := addrWords(netip.MustParseAddr("102:304:506:708:90a:b0c:d0e:f10"))
	if want := [2]uint64{0x0807060504030201, 0x100f0e0d0c0b0a09}; got != want {
		t.Errorf("IPv6: %x, want %x", got, want)
	}
}

// TestAddrKey has an IPv6 address whose bytes begin with those of an IPv4 address.
func TestAddrKey(t *testing.T) {
	seen := make(map[[2]uint64]netip.Addr)
	for _, text := range []string{"203.0.113.10", "cb00:710a::", "32.1.13.184", "2001:db8::", "255.255.255.255", "::1"} {
		a := netip.MustParseAddr(text)
		key := addrKey(a)
		if back := keyAddr(key); back != a {
			t.Errorf("%s comes back as %s", a, back)
		}
		if other, taken := seen[key]; taken {
			t.Errorf("%s and %s have one key", a, other)
		}
		seen[key] = a
	}
}

func TestMACWord(t *testing.T) {
	mac := [6]byte{2, 4, 6, 8, 10, 12}
	w := macWord(mac)
	if w != 0x0c0a08060402 {
		t.Errorf("word %x", w)
	}
	if got := wordMAC(w); got != mac {
		t.Errorf("back: %x, want %x", got, mac)
	}
}

func TestFoldedSum(t *testing.T) {
	for _, tt := range []struct {
		name  string
		words []uint16
		want  uint16
	}{
		{"nothing", nil, 0},
		{"one word", []uint16{0xffff}, 0xffff},
		{"carry", []uint16{0xffff, 1}, 1},
		{"carry of the carry", []uint16{0xffff, 0xffff, 1}, 1},
		{"many carries", []uint16{0xffff, 0xffff, 0xffff, 0xffff, 0xffff}, 0xffff},
		{"RFC 1071 section 3", []uint16{0x0001, 0xf203, 0xf4f5, 0xf6f7}, 0xddf2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := foldedSum(tt.words...); got != tt.want {
				t.Errorf("%04x, want %04x", got, tt.want)
			}
		})
	}
}
