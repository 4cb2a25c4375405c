// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/remora-lb/remora/lb"
)

var (
	labNet  = netip.MustParsePrefix("192.0.2.0/24")
	testNet = netip.MustParsePrefix("203.0.113.0/24")
	labNet6 = netip.MustParsePrefix("2001:db8:ff::/48")
)

func claim(value string) func(*Instance) { return tags("remora.vip=" + value) }

func TestResolve(t *testing.T) {
	rules := []ClaimRule{
		{Services: []string{"zoo"}, Prefixes: []netip.Prefix{labNet}},
		{Services: []string{"web*", "dns"}, Prefixes: []netip.Prefix{labNet, labNet6}},
		{Services: []string{"web"}, Prefixes: []netip.Prefix{testNet}},
	}
	reserved := map[lb.VIP]string{{Addr: netip.MustParseAddr("192.0.2.99"), Port: 80, Protocol: lb.TCP}: "infra"}
	one := func(changes ...func(*Instance)) []Instance { return []Instance{sample(changes...)} }
	for _, tc := range []struct {
		name      string
		catalogue Catalogue
		claimed   string // NAME=BACKENDS, by comma
		refused   string // SERVICE CLAIM: part of the reason
	}{
		{"nothing", nil, "", ""},
		{"no claim", Catalogue{"web": one()}, "", ""},
		{"a whole VIP", Catalogue{"web": one(claim("192.0.2.1:80/tcp"))}, "web@192.0.2.1:80/tcp=10.1.0.1", ""},
		{"port and protocol by default", Catalogue{"web": one(claim("192.0.2.1"))}, "web@192.0.2.1:80/tcp=10.1.0.1", ""},
		{"port and protocol beside it", Catalogue{"dns": one(tags("remora.vip=192.0.2.1", "remora.port=53", "remora.protocol=udp"), port(53))}, "dns@192.0.2.1:53/udp=10.1.0.1", ""},
		{"an IPv6 address", Catalogue{"web": one(claim("2001:db8:ff::1"))}, "web@[2001:db8:ff::1]:80/tcp=10.1.0.1", ""},
		{"an IPv6 address in brackets", Catalogue{"web": one(claim("[2001:db8:ff::1]"))}, "web@[2001:db8:ff::1]:80/tcp=10.1.0.1", ""},
		{"by meta", Catalogue{"web": one(meta("remora-vip", "192.0.2.1"))}, "web@192.0.2.1:80/tcp=10.1.0.1", ""},
		{"two VIPs, one of them twice", Catalogue{"web": one(claim("192.0.2.1, 192.0.2.2,192.0.2.1:80/tcp"))},
			"web@192.0.2.1:80/tcp=10.1.0.1,web@192.0.2.2:80/tcp=10.1.0.1", ""},
		{"a later rule's prefix", Catalogue{"web": one(claim("203.0.113.1"))}, "web@203.0.113.1:80/tcp=10.1.0.1", ""},
		{"a prefix that is not its own", Catalogue{"web-2": one(claim("203.0.113.1"))}, "", "web-2 203.0.113.1: in no prefix"},
		{"a name without a rule", Catalogue{"mail": one(claim("192.0.2.1"))}, "", "mail 192.0.2.1: no rule"},
		{"a VIP of the file", Catalogue{"web": one(claim("192.0.2.99"))}, "", `web 192.0.2.99: that of service "infra" in the file`},
		{"no VIP", Catalogue{"web": one(claim("zebra"))}, "", `web zebra: parse VIP`},
		{"no port anywhere", Catalogue{"web": one(claim("192.0.2.1"), port(0))}, "", "web 192.0.2.1: claim of all ports"},
		{"another port than it has", Catalogue{"web": one(claim("192.0.2.1:81/tcp"))}, "web@192.0.2.1:81/tcp=", ""},
		{"two services: the name decides", Catalogue{"web-b": one(claim("192.0.2.1")), "web-a": one(claim("192.0.2.1"), at("10.1.0.2"))},
			"web-a@192.0.2.1:80/tcp=10.1.0.2", `web-b 192.0.2.1:80/tcp: "web-a" claims it`},
		{"two services: the earlier rule decides", Catalogue{"web": one(claim("192.0.2.1")), "zoo": one(claim("192.0.2.1"), at("10.1.0.2"))},
			"zoo@192.0.2.1:80/tcp=10.1.0.2", `web 192.0.2.1:80/tcp: "zoo" claims it`},
		{"an instance at a claimed address", Catalogue{"web": one(claim("192.0.2.1"), at("192.0.2.2")), "zoo": one(claim("192.0.2.2"))},
			"web@192.0.2.1:80/tcp=,zoo@192.0.2.2:80/tcp=10.1.0.1", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			claimed, refused := Resolve(tc.catalogue, rules, reserved, Rules{})
			var got []string
			for _, c := range claimed {
				var addrs []string
				for _, b := range Backends(c.Verdicts) {
					addrs = append(addrs, b.Addr.String())
				}
				got = append(got, c.Name+"="+strings.Join(addrs, "+"))
			}
			if strings.Join(got, ",") != tc.claimed {
				t.Errorf("claimed %q, want %q", got, tc.claimed)
			}
			checkRefused(t, refused, tc.refused)
		})
	}
}

func checkRefused(t *testing.T, refused []RefusedClaim, want string) {
	t.Helper()
	if want == "" {
		if len(refused) > 0 {
			t.Errorf("refused %+v", refused)
		}
		return
	}
	head, reason, _ := strings.Cut(want, ": ")
	if len(refused) != 1 || fmt.Sprintf("%s %s", refused[0].Service, refused[0].Claim) != head || !strings.Contains(refused[0].Reason, reason) {
		t.Errorf("refused %+v, want %q", refused, want)
	}
}

// TestClaimsOrderDoesNotMatter: winners, losers and digests do not depend on the order of arrival.
func TestClaimsOrderDoesNotMatter(t *testing.T) {
	rules := []ClaimRule{{Services: []string{"b"}, Prefixes: []netip.Prefix{labNet}}, {Services: []string{"*"}, Prefixes: []netip.Prefix{labNet}}}
	rapid.Check(t, func(t *rapid.T) {
		one, other := make(Catalogue), make(Catalogue)
		for _, service := range []string{"a", "b", "c"} {
			one[service] = rapid.SliceOfN(rapid.Custom(drawInstance), 0, 5).Draw(t, service)
		}
		for _, service := range rapid.Permutation([]string{"c", "a", "b"}).Draw(t, "services") {
			other[service] = drawOrder(t, one[service])
		}
		claimed1, refused1 := Resolve(one, rules, nil, Rules{})
		claimed2, refused2 := Resolve(other, rules, nil, Rules{})
		if diff := cmp.Diff(claimed1, claimed2, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Fatalf("claimed: %s", diff)
		}
		if !slices.Equal(refused1, refused2) {
			t.Fatalf("refused %+v\n%+v", refused1, refused2)
		}
		for i := range claimed1 {
			if Digest(claimed1[i].VIP, Backends(claimed1[i].Verdicts)) != Digest(claimed2[i].VIP, Backends(claimed2[i].Verdicts)) {
				t.Fatalf("digests of %s differ", claimed1[i].VIP)
			}
		}
	})
}
