// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package maglev

import (
	"net/netip"
	"testing"
)

func TestAddrHash(t *testing.T) {
	for addr, want := range map[string]uint64{
		"10.0.0.1":        0xd671359dbaa15954,
		"10.0.0.2":        0x2cd426d008b90279,
		"10.0.0.3":        0x6eb4a2989236785d,
		"192.168.1.200":   0xede9b08ae275064e,
		"255.255.255.255": 0x8f2a3add05a6d637,
		"0.0.0.0":         0x1154961b360a62cc,
		"fc00::1":         0x64e74a25b986d744,
		"fc00::2":         0x87d247835b02295b,
		"fc00::3":         0x0b2e5ea98827f017,
		"2001:db8::1":     0xb7af62f1ee061155,
		"::ffff:10.0.0.1": 0xd671359dbaa15954,
		"fc00::1%eth0":    0x64e74a25b986d744,
	} {
		if got := AddrHash(netip.MustParseAddr(addr)); got != want {
			t.Errorf("AddrHash(%s) = %016x, want %016x", addr, got, want)
		}
	}
}

func TestAddrHashOfInvalidAddress(t *testing.T) {
	if got, want := AddrHash(netip.Addr{}), AddrHash(netip.IPv6Unspecified()); got != want {
		t.Errorf("AddrHash of no address = %016x, want that of ::, %016x", got, want)
	}
}

func TestFNV(t *testing.T) {
	for addr, want := range map[string]uint32{
		"10.0.0.1":      0xd692f426,
		"10.0.0.2":      0xd692f425,
		"10.0.0.3":      0xd692f424,
		"192.168.1.200": 0xcc5df1d2,
	} {
		if got := fnv(netip.MustParseAddr(addr).As4()); got != want {
			t.Errorf("fnv(%s) = %08x, want %08x", addr, got, want)
		}
	}
}

func TestSpooky(t *testing.T) {
	h1, h2 := spooky(netip.MustParseAddr("fc00::1").As16())
	if h1 != 0x0563a7577df4bd83 || h2 != 0x0e65df2e93f8eb27 {
		t.Errorf("spooky(fc00::1) = %016x, %016x", h1, h2)
	}
	if got := mix(h1, h2); got != 0xf27a19493f5142a9 {
		t.Errorf("mix of the two = %016x", got)
	}
}

func TestMurmur(t *testing.T) {
	for _, c := range []struct{ a, b, seed, want uint64 }{
		{0, 0, 0, 0x4bbd1bf27da918d6},
		{0xdeadbeefcafebabe, 42, 0, 0x2e8d31a54ed17f19},
		{0x123456789abcdef0, 2718281828, 2307, 0xfd55a63c45bfe387},
	} {
		if got := murmur(c.a, c.b, c.seed); got != c.want {
			t.Errorf("murmur(%#x, %d, %d) = %016x, want %016x", c.a, c.b, c.seed, got, c.want)
		}
	}
}

func TestMurmurOfAddresses(t *testing.T) {
	for addr, want := range map[string][2]uint64{
		"10.0.0.1": {0x7e0fc224ee1bbbe7, 0x3e1f071290cb4773},
		"10.0.0.2": {0xde477bccaa72b1f4, 0xc7b5d5be0ada3ecb},
		"10.0.0.3": {0xf4c5f209a23ba44b, 0xb35f7c1ec7c15e5d},
		"fc00::1":  {0xdb7e5edd63b3fee7, 0xbe25a40410ecec50},
		"fc00::2":  {0x55edd0077ccb3215, 0xb2114abbf51d06e0},
		"fc00::3":  {0x2feb8c08e31a7802, 0x5d987f5ebc4cfa27},
	} {
		h := AddrHash(netip.MustParseAddr(addr))
		if got := [2]uint64{murmur(h, 42, 0), murmur(h, 2718281828, 2307)}; got != want {
			t.Errorf("%s: %016x, want %016x", addr, got, want)
		}
	}
}
