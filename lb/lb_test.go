// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"net/netip"
	"strings"
	"testing"
)

func TestParseVIP(t *testing.T) {
	for _, tc := range []struct {
		text, bad string // bad: a part of the error
		want      VIP
	}{
		{text: "192.0.2.10:80/tcp", want: VIP{Addr: netip.MustParseAddr("192.0.2.10"), Port: 80, Protocol: TCP}},
		{text: "[2001:db8::10]:0/udp", want: VIP{Addr: netip.MustParseAddr("2001:db8::10"), Port: 0, Protocol: UDP}},
		{text: "192.0.2.10:65535/udp", want: VIP{Addr: netip.MustParseAddr("192.0.2.10"), Port: 65535, Protocol: UDP}},
		{text: "192.0.2.0/24:80/tcp", want: VIP{Addr: netip.MustParseAddr("192.0.2.0"), Port: 80, Protocol: TCP, HostBits: 8}},
		{text: "[2001:db8::/64]:0/udp", want: VIP{Addr: netip.MustParseAddr("2001:db8::"), Protocol: UDP, HostBits: 64}},
		{text: "192.0.2.1/24:80/tcp", bad: "write 192.0.2.0/24"},
		{text: "192.0.2.0/33:80/tcp", bad: "33 bits"},
		{text: "192.0.2.0/0:80/tcp", bad: "0 bits"},
		{text: "192.0.2.0/24/tcp", bad: "no port"},
		{text: "[2001:db8::/x]:80/tcp", bad: `"x" is not a prefix length`},
		{text: "[2001:db8::/64]", bad: "no protocol"},
		{text: "", bad: "no protocol"},
		{text: "192.0.2.10:80", bad: "no protocol"},
		{text: "192.0.2.10:80/sctp", bad: `protocol "sctp" is not tcp or udp`},
		{text: "192.0.2.10:80/TCP", bad: `protocol "TCP"`},
		{text: "192.0.2.10/tcp", bad: "not ADDRESS:PORT"},
		{text: "192.0.2.10:65536/tcp", bad: "not ADDRESS:PORT"},
		{text: "2001:db8::10:80/tcp", bad: "brackets"},
		{text: "[fe80::1%eth0]:80/tcp", bad: "has a zone"},
		{text: "[::ffff:192.0.2.10]:80/tcp", bad: "IPv4-mapped"},
		{text: "0.0.0.0:80/tcp", bad: "unspecified"},
		{text: "[::]:80/tcp", bad: "unspecified"},
		{text: "224.0.0.1:80/udp", bad: "multicast"},
		{text: "[ff02::1]:80/udp", bad: "multicast"},
		{text: "127.0.0.1:80/tcp", bad: "loopback"},
	} {
		t.Run(tc.text, func(t *testing.T) {
			got, err := ParseVIP(tc.text)
			if tc.bad != "" {
				if err == nil || !strings.Contains(err.Error(), tc.bad) {
					t.Fatalf("error %v, want one with %q", err, tc.bad)
				}
				return
			}
			if err != nil || got != tc.want {
				t.Fatalf("%v, %v; want %v", got, err, tc.want)
			}
			var again VIP
			if err := again.UnmarshalText([]byte(got.String())); err != nil || again != got {
				t.Errorf("its text form %q is read as %v, %v", got, again, err)
			}
		})
	}
}

func TestCompareVIPs(t *testing.T) {
	ordered := []string{
		"192.0.2.10:0/udp", "192.0.2.10:80/tcp", "192.0.2.10:80/udp", "192.0.2.10:81/tcp",
		"192.0.2.11:1/tcp", "[2001:db8::1]:1/tcp",
	}
	for i := range ordered {
		for k := range ordered {
			a, b := mustVIP(t, ordered[i]), mustVIP(t, ordered[k])
			if got := a.Compare(b); got < 0 != (i < k) || got > 0 != (i > k) {
				t.Errorf("%v compared with %v is %d", a, b, got)
			}
		}
	}
}

func mustVIP(t *testing.T, s string) VIP {
	t.Helper()
	v, err := ParseVIP(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestTunnel(t *testing.T) {
	v4, v6 := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("2001:db8::1")
	sources := DefaultTunnelSources()
	full := sources
	full.GUE4, full.GUE6, full.GUEChecksum = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::2"), true
	for _, tc := range []struct {
		name    string
		sources TunnelSources
		encap   Encap
		dst     netip.Addr
		source  string
		outer   int
		bad     string
	}{
		{"IPIP to IPv4", sources, IPIP, v4, "172.16.0.0/16", 20, ""},
		{"IPIP to IPv6", sources, IPIP, v6, "100::/96", 40, ""},
		{"GUE to IPv4", full, GUE, v4, "192.0.2.1/32", 28, ""},
		{"GUE to IPv6", full, GUE, v6, "2001:db8::2/128", 48, ""},
		{"GUE to IPv4 without a source", sources, GUE, v4, "", 0, "10.0.0.1 needs a source"},
		{"GUE to IPv6 without a source", sources, GUE, v6, "", 0, "2001:db8::1 needs a source"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := tc.sources.Tunnel(tc.encap, tc.dst)
			if tc.bad != "" {
				if err == nil || !strings.Contains(err.Error(), tc.bad) {
					t.Fatalf("error %v, want one with %q", err, tc.bad)
				}
				return
			}
			if err != nil || got.Source.String() != tc.source || got.Destination != tc.dst || got.OuterLen() != tc.outer {
				t.Errorf("%+v, %v", got, err)
			}
			if gue := tc.encap == GUE; got.Checksum != gue || (got.Port == 6080) != gue {
				t.Errorf("port %d, checksum %v", got.Port, got.Checksum)
			}
		})
	}
}

func TestSlot(t *testing.T) {
	for _, tc := range []struct {
		slot      Slot
		cur, prev RealID
		state     SlotState
	}{
		{0, 0, 0, SlotStable},
		{StableSlot(1), 1, 0, SlotStable},
		{StableSlot(MaxRealID), MaxRealID, 0, SlotStable},
		{MovingSlot(3, 7), 3, 7, SlotMoving},
		{MovingSlot(0, MaxRealID), 0, MaxRealID, SlotMoving},
		{SettlingSlot(MaxRealID), MaxRealID, 0, SlotSettling},
		{LingeringSlot(3), 3, 0, SlotLingering},
	} {
		s := tc.slot
		if s.Cur() != tc.cur || s.Prev() != tc.prev || s.State() != tc.state || s.Stable() != (tc.state == SlotStable) {
			t.Errorf("slot %#x: current %d, previous %d, %s, stable %t", uint64(s), s.Cur(), s.Prev(), s.State(), s.Stable())
		}
	}
}

// TestReasons: each has a name of its own, and the order gives the verdict.
func TestReasons(t *testing.T) {
	names := make(map[string]bool)
	for r := range ReasonLen {
		if names[r.String()] || r.String() == "" || r.String() == "unknown" {
			t.Errorf("reason %d is called %q", r, r)
		}
		names[r.String()] = true
		want := Drop
		switch {
		case r == ReasonForwarded, r == ReasonEchoAnswered, r == ReasonTooBigTold, r == ReasonDecapSent:
			want = TX
		case r == ReasonTTLExpired, r == ReasonEchoLimited: // came later
		case r >= ReasonNotIP:
			want = Pass
		}
		if r.Verdict() != want {
			t.Errorf("%v: verdict %v, want %v", r, r.Verdict(), want)
		}
	}
	if ReasonLen.String() != "unknown" {
		t.Errorf("what is no reason is called %q", ReasonLen)
	}
}

func TestNextHopResolved(t *testing.T) {
	if (NextHop{MTU: 1500, Problem: "none"}).Resolved() {
		t.Error("resolved without an address")
	}
	if !(NextHop{MAC: [6]byte{2}}).Resolved() {
		t.Error("not resolved with an address")
	}
}
