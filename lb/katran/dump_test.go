// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package katran

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/require"
)

func TestReadRefuses(t *testing.T) {
	vip := func(s string) string { return `{"vips": [{` + s + `}]}` }
	for name, tc := range map[string]struct{ dump, says string }{
		"nothing":             {"", "cut off"},
		"half":                {`{"vips": [`, "cut off"},
		"no JSON":             {"{\n vips}", "line 2"},
		"no object":           {"null", "expected a JSON object"},
		"a list":              {"[]", "JSON array does not fit"},
		"two dumps":           {"{}\n{}", "line 2: more follows"},
		"unknown field":       {`{"vip": []}`, `unknown field "vip"`},
		"unknown inner field": {vip(`"weight": 1`), `unknown field "weight"`},
		"other spelling":      {`{"VIPs": []}`, `unknown field "VIPs"`},
		"other letters":       {`{"vip` + "\u017f" + `": []}`, "unknown field"},
		"twice":               {"{\"vips\": [],\n \"vips\": []}", `line 2: field "vips" is there twice`},
		"twice within":        {`{"quic_reals": [{"id": 1, "address": "10.0.0.1", "id": 2}]}`, `field "id" is there twice`},
		"wrong type":          {"{\"vips\":\n [{\"port\": \"80\"}]}", `line 2: field "vips.port": a JSON string does not fit`},
		"port too large":      {vip(`"port": 65536`), `field "vips.port"`},
		"no address":          {vip(`"protocol": 6`), `vips[0]: address "": expected`},
		"zone":                {vip(`"address": "fe80::1%eth0", "protocol": 6`), "expected an IPv4 or IPv6 address"},
		"no protocol":         {vip(`"address": "192.0.2.1"`), "protocol is missing"},
		"protocol":            {vip(`"address": "192.0.2.1", "protocol": 1`), `protocol "1": expected tcp or udp`},
		"protocol list":       {vip(`"address": "192.0.2.1", "protocol": []`), `expected tcp or udp`},
		"flag name":           {vip(`"address": "192.0.2.1", "protocol": 6, "flags": ["NOLRU"]`), `flag "NOLRU" is not known: expected NO_SPORT, NO_LRU`},
		"flag in a list":      {vip(`"address": "192.0.2.1", "protocol": 6, "flags": [1]`), "names only"},
		"flags text":          {vip(`"address": "192.0.2.1", "protocol": 6, "flags": "NO_LRU"`), "expected a number, or a list"},
		"flags fraction":      {vip(`"address": "192.0.2.1", "protocol": 6, "flags": 1.5`), "expected a whole number"},
		"flags too many":      {vip(`"address": "192.0.2.1", "protocol": 6, "flags": 4294967296`), "expected a whole number"},
		"hash":                {vip(`"address": "192.0.2.1", "protocol": 6, "hash_function": "v2"`), `hash_function "v2"`},
		"prefix":              {vip(`"address": "192.0.2.0/33", "protocol": 6`), `prefix "192.0.2.0/33"`},
		"mapped prefix":       {vip(`"address": "::ffff:192.0.2.0/120", "protocol": 6`), "prefix"},
		"real of a prefix":    {vip(`"address": "192.0.2.1", "protocol": 6, "reals": [{"address": "10.0.0.0/24"}]`), `vips[0].reals[0]: address "10.0.0.0/24": expected one address`},
		"real twice":          {vip(`"address": "192.0.2.1", "protocol": 6, "reals": [{"address": "10.0.0.1"}, {"address": "::ffff:10.0.0.1"}]`), "10.0.0.1 is there twice"},
		"real's flag":         {vip(`"address": "192.0.2.1", "protocol": 6, "reals": [{"address": "10.0.0.1", "flags": ["LOCAL_VIP"]}]`), `"LOCAL_VIP" is not known: expected IPV6, LOCAL_REAL`},
		"VIP twice":           {`{"vips": [{"address": "192.0.2.1", "protocol": 6}, {"address": "192.0.2.1", "protocol": "tcp"}]}`, "vips[1]: 192.0.2.1:0/tcp is that of vips[0] already"},
		"id 0":                {`{"quic_reals": [{"address": "10.0.0.1"}]}`, "id 0 stands for none"},
		"id twice":            {`{"quic_reals": [{"address": "10.0.0.1", "id": 5}, {"address": "10.0.0.2", "id": 5}]}`, "id 5 is there twice"},
		"route without":       {`{"source_routes": [{"real": "10.0.0.1"}]}`, "no sources"},
		"route twice":         {`{"source_routes": [{"real": "10.0.0.1", "sources": ["10.0.0.0/8"]}, {"real": "10.0.0.2", "sources": ["10.1.0.0/8"]}]}`, "10.0.0.0/8 leads to 10.0.0.1 already"},
		"mark's address":      {`{"healthcheck_destinations": [{"somark": 5}]}`, "healthcheck_destinations[0]"},
		"decap twice":         {`{"inline_decapsulation": {"destinations": [{"address": "10.0.0.1"}, {"address": "10.0.0.1"}]}}`, "10.0.0.1 is there twice"},
		"MAC":                 {`{"settings": {"default_mac": "01:00:5e:00:00:01"}}`, "default_mac"},
		"zero MAC":            {`{"settings": {"default_mac": "00:00:00:00:00:00"}}`, "default_mac"},
		"long MAC":            {`{"settings": {"default_mac": "02:00:00:00:00:00:00:01"}}`, "default_mac"},
		"ring size":           {`{"settings": {"ring_size": 65536}}`, "not a prime"},
		"encapsulation":       {`{"settings": {"encapsulation": "vxlan"}}`, "expected ipip or gue"},
		"GUE port":            {`{"settings": {"encapsulation": "gue", "gue_port": 0}}`, "gue_port 0"},
		"GUE source":          {`{"settings": {"source4": "2001:db8::1"}}`, "of the other family"},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := Read(strings.NewReader(tc.dump))
			require.ErrorSays(t, err, "read dump: ", tc.says)
			if d != nil {
				t.Error("there is a dump beside the error")
			}
		})
	}
}

func TestReadSaysAll(t *testing.T) {
	_, err := Read(strings.NewReader(`{"vips": [{"address": "x", "protocol": 7}], "quic_reals": [{"address": "y", "id": 1}]}`))
	require.ErrorSays(t, err, `address "x"`, `protocol "7"`, `quic_reals[0]: address "y"`)
}

func TestReadTooLong(t *testing.T) {
	_, err := Read(strings.NewReader("{" + strings.Repeat(" ", maxDump)))
	require.ErrorSays(t, err, "more than 67108864 bytes")
}

func TestRead(t *testing.T) {
	d, err := Read(strings.NewReader(`{
		"settings": {"max_vips": 1024, "encapsulation": "gue", "source6": "2001:db8::1", "tcp_server_ids": true},
		"vips": [
			{"address": "::ffff:192.0.2.1", "port": 80, "protocol": "TCP", "flags": ["LOCAL_VIP", "NO_LRU"],
			 "reals": [{"address": "10.0.0.1", "weight": 4294967295, "flags": ["LOCAL_REAL"]}]},
			{"address": "2001:db8:1::5/64", "protocol": 17, "flags": 1023, "hash_function": "maglev"}
		],
		"source_routes": [{"sources": ["198.51.100.7/24", "198.51.100.0/24", "192.0.2.9"], "real": "10.0.0.1"}],
		"inline_decapsulation": {"destinations": [{"address": "10.9.9.9", "egress": true}], "strict": true}
	}`))
	require.NoError(t, err)
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	want := &Dump{
		Settings: Settings{MaxVIPs: 1024, RingSize: RingSize, Encap: lb.GUE, GUEPort: GUEPort, Source6: addr("2001:db8::1"), TCPServerIDs: true},
		VIPs: []VIP{
			{Prefix: prefix("192.0.2.1/32"), Port: 80, Protocol: lb.TCP, Flags: LocalVIP | NoLRU,
				Reals: []Real{{addr("10.0.0.1"), 4294967295, LocalReal}}},
			{Prefix: prefix("2001:db8:1::/64"), Protocol: lb.UDP, Flags: 1023, Hash: lb.MaglevV1},
		},
		Routes: []Route{{prefix("198.51.100.0/24"), addr("10.0.0.1")}, {prefix("192.0.2.9/32"), addr("10.0.0.1")}},
		Decap:  &Decap{Destinations: []DecapDestination{{addr("10.9.9.9"), true}}, Strict: true},
	}
	if diff := cmp.Diff(want, d, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
