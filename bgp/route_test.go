// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/remora-lb/remora/test/require"
	"pgregory.net/rapid"
)

func TestCommunities(t *testing.T) {
	for text, want := range map[string]Community{
		"65000:100":         65000<<16 | 100,
		"0:0":               0,
		"65535:65535":       0xffffffff,
		"graceful-shutdown": GracefulShutdown,
		"no-export":         NoExport,
	} {
		c, err := ParseCommunity(text)
		if err != nil || c != want || c.String() != text {
			t.Errorf("%q is %v, error %v, want %d", text, c, err, want)
		}
	}
	for _, text := range []string{"", "1", "1:2:3", "65536:0", "0:65536", "-1:0", "a:b", "no-such", "1: 2"} {
		_, err := ParseCommunity(text)
		require.ErrorSays(t, err, fmt.Sprintf("%q", text), "16 bits")
	}
	large, err := ParseLargeCommunity("4200000000:1:2")
	if want := (LargeCommunity{4200000000, 1, 2}); err != nil || large != want || large.String() != "4200000000:1:2" {
		t.Errorf("large community is %v, error %v", large, err)
	}
	_, err = ParseLargeCommunity("1:2")
	require.ErrorSays(t, err, `"1:2"`, "3 numbers of 32 bits")
}

func TestNewTableRefuses(t *testing.T) {
	v4 := netip.MustParsePrefix("192.0.2.10/32")
	for _, tc := range []struct {
		name   string
		routes []Route
		says   []string
	}{
		{"no prefix", []Route{{}}, []string{"the prefix is not valid"}},
		{"bits beyond the length", []Route{{Prefix: netip.MustParsePrefix("192.0.2.10/24")}}, []string{"write 192.0.2.0/24"}},
		{"mapped", []Route{{Prefix: netip.MustParsePrefix("::ffff:192.0.2.10/128")}}, []string{"mapped"}},
		{"twice", []Route{{Prefix: v4}, {Prefix: v4, MED: 1}}, []string{"192.0.2.10/32", "there twice"}},
		{"next hop of another family", []Route{{Prefix: v4, NextHop: netip.MustParseAddr("2001:db8::1")}}, []string{"next hop 2001:db8::1"}},
		{"reserved community", []Route{{Prefix: v4, LargeCommunities: []LargeCommunity{{marker, 1, 1}}}}, []string{"4294967295:1:1 is reserved"}},
		{"all problems", []Route{{Prefix: v4, Prepend: 11}, {}}, []string{"prepend 11", "not valid"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := newTable(tc.routes)
			require.ErrorSays(t, err, tc.says...)
		})
	}
}

func TestDiff(t *testing.T) {
	prefix := netip.MustParsePrefix
	realised, err := newTable([]Route{
		{Prefix: prefix("192.0.2.1/32")},
		{Prefix: prefix("192.0.2.2/32"), MED: 1},
		{Prefix: prefix("192.0.2.3/32"), Communities: []Community{2, 1, 2}},
		{Prefix: prefix("2001:db8::1/128")},
	})
	require.NoError(t, err)
	wanted, err := newTable([]Route{
		{Prefix: prefix("192.0.2.2/32"), MED: 2},
		{Prefix: prefix("192.0.2.3/32"), Communities: []Community{1, 2}},
		{Prefix: prefix("2001:db8::2/128")},
	})
	require.NoError(t, err)
	got := diff(realised, wanted)
	want := steps{
		withdraw: []netip.Prefix{prefix("192.0.2.1/32"), prefix("2001:db8::1/128")},
		announce: []Route{wanted[prefix("192.0.2.2/32")], wanted[prefix("2001:db8::2/128")]},
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(steps{}), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Error(d)
	}
}

// TestDiffLeadsThere checks that the steps turn any table into any other, and that none is idle.
func TestDiffLeadsThere(t *testing.T) {
	draw := func(t *rapid.T, name string) table {
		tab := make(table)
		for _, i := range rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, name) {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, i % 16}), 32)
			tab[p] = Route{Prefix: p, MED: uint32(i / 128)}
		}
		return tab
	}
	rapid.Check(t, func(t *rapid.T) {
		from, to := draw(t, "from"), draw(t, "to")
		s, result := diff(from, to), maps.Clone(from)
		for _, p := range s.withdraw {
			if _, ok := result[p]; !ok {
				t.Fatalf("%v is withdrawn and was not there", p)
			}
			delete(result, p)
		}
		for _, r := range s.announce {
			if old, ok := result[r.Prefix]; ok && old.equal(r) {
				t.Fatalf("%v is announced and was there", r)
			}
			result[r.Prefix] = r
		}
		if !maps.EqualFunc(result, to, Route.equal) {
			t.Fatalf("the steps lead to %v, want %v", result, to)
		}
	})
}

func TestWants(t *testing.T) {
	p := Peer{Address: netip.MustParseAddr("10.0.0.1"), Families: []Family{IPv4, IPv6}}
	filtered := p
	filtered.Filter = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/28"), netip.MustParsePrefix("2001:db8::/64")}
	only4 := p.withDefaults()
	only4.Families = []Family{IPv4}
	for _, tc := range []struct {
		peer   Peer
		prefix string
		want   bool
	}{
		{p, "192.0.2.200/32", true},
		{p, "2001:db8:1::/48", true},
		{only4, "2001:db8:1::/48", false},
		{filtered, "192.0.2.15/32", true},
		{filtered, "192.0.2.16/32", false},
		{filtered, "192.0.2.0/27", false},
		{filtered, "2001:db8::9/128", true},
	} {
		if got := tc.peer.wants(netip.MustParsePrefix(tc.prefix)); got != tc.want {
			t.Errorf("a peer of %v with filter %v gets %s: %v, want %v", tc.peer.Families, tc.peer.Filter, tc.prefix, got, tc.want)
		}
	}
	if s := newSessions([]Peer{p, filtered, only4}, t0(), nil); !slices.Equal(counts(s, []Peer{p, filtered, only4}), []int{2, 1, 1}) {
		t.Errorf("counts are %v", s.counts)
	}
}

func counts(s *sessions, peers []Peer) []int {
	s.count(peers, table{
		netip.MustParsePrefix("192.0.2.200/32"):  {},
		netip.MustParsePrefix("2001:db8::9/128"): {},
	})
	return s.counts
}
