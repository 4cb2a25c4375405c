// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package maglev

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/remora-lb/remora/lb"
)

func TestFlow(t *testing.T) {
	ring4 := build(t, lb.Ring{Size: lb.DefaultRingSize}, numbered("10.0.0.0", 1, 1, 1))
	ring6 := build(t, lb.Ring{Size: lb.DefaultRingSize}, numbered("fc00::", 1, 1, 1))
	for _, c := range []struct {
		name         string
		src          string
		sport, dport uint16
		hash, slot   uint32
		real4, real6 lb.RealID
	}{
		{"IPv4", "172.16.0.1", 31337, 80, 0x718e1ae2, 43349, 2, 2},
		{"VIP of port 0", "172.16.0.1", 31337, 0, 0xc5b626b3, 24830, 2, 2},
		{"source port not hashed", "172.16.0.1", 0, 80, 0xa1e9c978, 10127, 2, 1},
		{"destination port only", "0.0.0.0", 42, 42, 0xdf5e9469, 46348, 2, 3},
		{"another source", "192.168.1.1", 31337, 80, 0xc7e68632, 48717, 3, 1},
		{"high ports", "198.51.100.7", 50000, 443, 0x283f0bab, 58221, 3, 1},
		{"IPv6", "fc00:2::1", 31337, 80, 0x9c5a2eda, 37505, 1, 3},
		{"IPv6, high ports", "2001:db8:1::7", 50000, 443, 0x1f7f2fa7, 4136, 0, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			hash := FlowHash(netip.MustParseAddr(c.src), c.sport, c.dport)
			slot := SlotIndex(hash, lb.DefaultRingSize)
			if hash != c.hash || slot != c.slot {
				t.Fatalf("hash %08x, slot %d, want %08x, %d", hash, slot, c.hash, c.slot)
			}
			if got := ring4[slot].Cur(); c.real4 != 0 && got != c.real4 {
				t.Errorf("real %d of the IPv4 ring, want %d", got, c.real4)
			}
			if got := ring6[slot].Cur(); got != c.real6 {
				t.Errorf("real %d of the IPv6 ring, want %d", got, c.real6)
			}
		})
	}
}

func TestFlowSeeds(t *testing.T) {
	if SourceSeed != 512 || FlowSeed != 33554944 {
		t.Errorf("seeds are %d and %d", SourceSeed, FlowSeed)
	}
}

func TestAddressFold(t *testing.T) {
	for addr, want := range map[string]uint32{"fc00:2::1": 0xbf179e70, "2001:db8:1::7": 0x555a75a8} {
		if got := jhash16(netip.MustParseAddr(addr).As16(), SourceSeed); got != want {
			t.Errorf("fold of %s = %08x, want %08x", addr, got, want)
		}
	}
}

// The family is the packet's, so an IPv4-mapped source of an IPv6 packet is no IPv4 source.
func TestFlowHashOfMappedSource(t *testing.T) {
	src := netip.MustParseAddr("172.16.0.1")
	mapped := netip.AddrFrom16(src.As16())
	want := jhash2(jhash16(mapped.As16(), SourceSeed), 0x5000697a, FlowSeed)
	if got := FlowHash(mapped, 31337, 80); got != want || got == FlowHash(src, 31337, 80) {
		t.Errorf("hash %08x, want %08x", got, want)
	}
}

func TestSlotIndex(t *testing.T) {
	for _, c := range []struct{ hash, size, want uint32 }{
		{0, 65537, 0},
		{65536, 65537, 65536},
		{65537, 65537, 0},
		{0xffffffff, 65537, 0},
		{0xfffffffe, 65537, 65536},
		{0, 7, 0},
		{0xffffffff, 7, 6},
		{0x80000000, 7, 3},
		{0xffffffff, lb.MaxRingSize, lb.MaxRingSize - 1},
		{0x80000000, 65521, 32760},
	} {
		if got := SlotIndex(c.hash, c.size); got != c.want {
			t.Errorf("SlotIndex(%#x, %d) = %d, want %d", c.hash, c.size, got, c.want)
		}
	}
}

func TestSlotIndexIsInRing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		hash, size := rapid.Uint32().Draw(t, "hash"), rapid.Uint32Range(2, lb.MaxRingSize).Draw(t, "size")
		if got := SlotIndex(hash, size); got >= size {
			t.Fatalf("slot %d", got)
		}
	})
}
