// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"strings"
	"testing"

	"github.com/remora-lb/remora/lb"
)

func TestVIPInfoRoundTrip(t *testing.T) {
	for _, tt := range []struct {
		name  string
		entry lb.VIPEntry
	}{
		{"IPv4", lb.VIPEntry{VIP: testVIP(t, "203.0.113.10:443/tcp"), Service: "web", RingID: 3, Ring: lb.Ring{Size: 65537}}},
		{"IPv6, all ports, another hash", lb.VIPEntry{VIP: testVIP(t, "[2001:db8::10]:0/udp"), Service: "dns", RingID: 1 << 20, Ring: lb.Ring{Size: 7, Hash: lb.MaglevV1}}},
		{"longest name", lb.VIPEntry{VIP: testVIP(t, "203.0.113.10:1/tcp"), Service: strings.Repeat("n", 63), Ring: lb.Ring{Size: 7}}},
		{"a prefix with options", lb.VIPEntry{VIP: testVIP(t, "203.0.112.0/23:0/udp"), Service: "quic", Ring: lb.Ring{Size: 7},
			Options: lb.Options{ConnectionIDs: lb.ConnectionIDsQUICLB, Fragments: lb.FragmentsPass, SourceRoutes: true}}},
		{"bytes beyond ASCII", lb.VIPEntry{VIP: testVIP(t, "203.0.113.10:1/tcp"), Service: "blå", Ring: lb.Ring{Size: 7}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			place := span{first: 12, size: tt.entry.Ring.Size}
			got, at := entryOf(vipInfo(tt.entry, place))
			wantEqual(t, "entry", got, tt.entry)
			wantEqual(t, "place", at, place)
		})
	}
}

func TestRealInfoRoundTrip(t *testing.T) {
	for _, tt := range []struct {
		name, vip, backend string
		encap              lb.Encap
	}{
		{"4 in IPv4", "203.0.113.10:443/tcp", "10.0.0.3", lb.IPIP},
		{"4 in IPv6", "203.0.113.10:443/tcp", "fc00::1", lb.IPIP},
		{"6 in IPv6", "[2001:db8::10]:0/udp", "fc00::1", lb.IPIP},
		{"GUE in IPv4", "203.0.113.10:443/tcp", "10.0.0.3", lb.GUE},
		{"GUE in IPv6", "[2001:db8::10]:443/tcp", "fc00::1", lb.GUE},
		{"of a prefix", "[2001:db8::/48]:0/udp", "fc00::1", lb.GUE},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := testReal(t, 9, tt.vip, tt.encap, tt.backend)
			r.Backend.Weight = 1 << 31
			r.NextHop.Stale = tt.encap == lb.GUE
			wantEqual(t, "real", realOf(9, realInfo(r), realRecord(r)), r)
			r.NextHop = lb.NextHop{}
			back := realOf(9, realInfo(r), realRecord(r))
			if back.NextHop.Problem == "" || back.NextHop.Resolved() {
				t.Errorf("next hop %+v, want a problem", back.NextHop)
			}
		})
	}
}

func TestText(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"empty", "", ""},
		{"short", "abc", "abc"},
		{"all but the end", "abcdefg", "abcdefg"},
		{"one too many", "abcdefgh", "abcdefg"},
		{"much too long", "abcdefghijkl", "abcdefg"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			field := []int8{1, 1, 1, 1, 1, 1, 1, 1} // of an earlier text
			putText(field, tt.in)
			if got := text(field); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
			for i := len(tt.want); i < len(field); i++ {
				if field[i] != 0 {
					t.Errorf("byte %d of the earlier text is still there", i)
				}
			}
		})
	}
	// A text without an end, as only foreign memory holds it.
	if got := text([]int8{'a', 'b'}); got != "ab" {
		t.Errorf("without an end: %q", got)
	}
}
