// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package katran

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/config"
	"github.com/remora-lb/remora/lb/maglev"
	"github.com/remora-lb/remora/test/require"
)

func readString(t *testing.T, s string) *Dump {
	t.Helper()
	d, err := Read(strings.NewReader(s))
	require.NoError(t, err)
	return d
}

// converted is what becomes of a dump.
func converted(t *testing.T, d *Dump, c Choices) (*config.Config, []Note, string) {
	t.Helper()
	text, notes, err := d.Convert(c)
	require.NoError(t, err)
	parsed, err := config.Parse("imported.yaml", text)
	require.NoError(t, err)
	return parsed, notes, string(text)
}

// TestSample compares with the file of the dump in testdata, which docs/katran-migration.md shows.
func TestSample(t *testing.T) {
	dump, err := os.ReadFile("testdata/fleet.json")
	require.NoError(t, err)
	want, err := os.ReadFile("testdata/fleet.yaml")
	require.NoError(t, err)
	_, _, got := converted(t, readString(t, string(dump)), Choices{})
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestNotes(t *testing.T) {
	vip := func(more, reals string) string {
		return `{"settings": {"interface": "eth0"}, "vips": [{"address": "192.0.2.1", "port": 80, "protocol": "tcp", ` + more + `"reals": [` + reals + `]}]}`
	}
	const ok = `{"address": "10.0.0.1", "weight": 1}`
	for name, tc := range map[string]struct {
		dump string
		want []string // all notes
	}{
		"none":         {vip("", ok), nil},
		"no interface": {`{}`, []string{"settings: the interface is not in the dump: eth0 is a guess"}},
		"sizes": {`{"settings": {"interface": "eth0", "max_vips": 1024, "ring_size": 65521}}`, []string{
			"settings: max_vips 1024: it is the seed of the flows' hash, which is 512 in remora: packets get other reals",
			"settings: ring_size 65521: remora takes the slot of such a ring otherwise: packets get other reals"}},
		"flags": {vip(`"flags": 5444, `, ok), []string{ // 4096 + 1024 + 256 + 64 + 4
			"192.0.2.1:80/tcp: flag 1024 is left out: it is not known here",
			"192.0.2.1:80/tcp: flag 4096 is left out: it is not known here",
			"192.0.2.1:80/tcp: flag GLOBAL_LRU is left out: remora has no table beside its own",
			"192.0.2.1:80/tcp: flag QUIC_VIP is left out: it is for udp",
			"192.0.2.1:80/tcp: flag UDP_STABLE_ROUTING is left out: it is for udp"}},
		"highest flag": {vip(`"flags": 2147483648, `, ok), []string{"192.0.2.1:80/tcp: flag 2147483648 is left out: it is not known here"}},
		"weight": {vip("", `{"address": "10.0.0.1", "weight": 1000001}`), []string{
			"192.0.2.1:80/tcp: real 10.0.0.1 has weight 1000000 in place of 1000001: the ring is another one"}},
		"real's flag": {vip("", `{"address": "10.0.0.1", "weight": 1, "flags": 5}`), []string{
			"192.0.2.1:80/tcp: flag 4 of real 10.0.0.1 is left out: it is not known here"}},
		"local without the VIP's flag": {vip("", `{"address": "10.0.0.1", "weight": 1, "flags": 2}`), []string{
			"192.0.2.1:80/tcp: flag LOCAL_REAL of real 10.0.0.1 is left out: the VIP has no LOCAL_VIP, so it had no effect"}},
		"two local": {vip(`"flags": ["LOCAL_VIP"], `, `{"address": "10.0.0.2", "flags": 2}, {"address": "10.0.0.1", "flags": 2}`), []string{
			"192.0.2.1:80/tcp: real 10.0.0.2 is not local: remora has one local backend in a service"}},
		"loopback real": {vip("", `{"address": "127.0.0.1"}`), []string{
			"192.0.2.1:80/tcp: real 127.0.0.1 is left out: address 127.0.0.1 is loopback"}},
		"VIP as real": {vip("", `{"address": "192.0.2.1"}`), []string{
			"192.0.2.1:80/tcp: real 192.0.2.1 is left out: it is the address of the VIP 192.0.2.1:80/tcp"}},
		"real within a VIP's prefix": {`{"settings": {"interface": "eth0"}, "vips": [{"address": "192.0.2.0/24", "protocol": "tcp", "reals": [{"address": "192.0.2.7"}]}]}`, []string{
			"192.0.2.0/24:0/tcp: real 192.0.2.7 is left out: it is the address of the VIP 192.0.2.0/24:0/tcp"}},
		"multicast VIP": {`{"settings": {"interface": "eth0"}, "vips": [{"address": "224.0.0.1", "protocol": "tcp"}]}`, []string{
			`224.0.0.1:0/tcp: left out: parse VIP "224.0.0.1:0/tcp": address 224.0.0.1 is multicast`}},
		"short prefix": {`{"settings": {"interface": "eth0"}, "vips": [{"address": "2000::/31", "protocol": "tcp"}]}`, []string{
			"[2000::/31]:0/tcp: left out: remora has prefixes from /32 on"}},
		"GUE without source": {`{"settings": {"interface": "eth0", "encapsulation": "gue", "source4": "192.0.2.200"},
			"vips": [{"address": "192.0.2.1", "protocol": "tcp", "reals": [{"address": "10.0.0.1"}, {"address": "fc00::1"}]}]}`, []string{
			"192.0.2.1:0/tcp: real fc00::1 is left out: GUE to it needs settings.source6"}},
		"ids": {`{"settings": {"interface": "eth0", "tcp_server_ids": true},
			"vips": [{"address": "192.0.2.1", "protocol": "tcp", "reals": [{"address": "10.0.0.1"}]}, {"address": "192.0.2.2", "protocol": "udp", "reals": [{"address": "10.0.0.2"}]}],
			"quic_reals": [{"id": 7, "address": "10.0.0.1"}, {"id": 5, "address": "10.0.0.1"}, {"id": 6, "address": "10.0.0.2"}]}`, []string{
			"quic_reals: id 6 is left out: 10.0.0.2 is a real of no VIP that reads server ids",
			"quic_reals: id 7 is left out: 10.0.0.1 has 5, and a backend has one"}},
		"id too great for UDP": {`{"settings": {"interface": "eth0"}, "vips": [{"address": "192.0.2.1", "protocol": "udp", "flags": ["UDP_STABLE_ROUTING"],
			"reals": [{"address": "10.0.0.1"}, {"address": "10.0.0.2"}]}], "quic_reals": [{"id": 16777216, "address": "10.0.0.1"}, {"id": 16777215, "address": "10.0.0.2"}]}`, []string{
			"192.0.2.1:0/udp: id 16777216 of 10.0.0.1 is left out: UDP_STABLE_ROUTING has 3 bytes for it"}},
		"routes and marks": {`{"settings": {"interface": "eth0"}, "source_routes": [{"sources": ["10.0.0.0/8"], "real": "224.0.0.1"}],
			"healthcheck_destinations": [{"somark": 1, "address": "10.0.0.1"}, {"somark": 2, "address": "10.0.0.1"}]}`, []string{
			"source_routes: those to 224.0.0.1 are left out: address 224.0.0.1 is multicast",
			"healthcheck_destinations: left out, 2 in number: remora checks by itself: give the services a health section"}},
		"decapsulation": {`{"settings": {"interface": "eth0"}, "inline_decapsulation": {"strict": true, "destinations": [{"address": "::1"}]}}`, []string{
			"inline_decapsulation: strict: packets to this machine's own addresses stay wrapped: list them with action host",
			"inline_decapsulation: ::1 is left out: address ::1 is loopback"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, notes, text := converted(t, readString(t, tc.dump), Choices{})
			var got []string
			for _, n := range notes {
				got = append(got, n.String())
				if !strings.Contains(text, "\n# - "+n.String()+"\n") {
					t.Errorf("%q is no comment of the file", n)
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestOptions: what flags become.
func TestOptions(t *testing.T) {
	for name, tc := range map[string]struct {
		protocol, flags string
		choices         Choices
		ids             bool
		options         lb.Options
		flows           lb.FlowMode
	}{
		"none":                 {protocol: "tcp", flows: lb.FlowTransitions},
		"none of UDP":          {protocol: "udp", flows: lb.FlowNever},
		"as Katran":            {protocol: "tcp", choices: Choices{KatranFlows: true}, flows: lb.FlowAlways},
		"UDP as Katran":        {protocol: "udp", choices: Choices{KatranFlows: true}, flows: lb.FlowAlways},
		"no table":             {protocol: "tcp", flags: "NO_LRU", flows: lb.FlowNever},
		"no table, as Katran":  {protocol: "tcp", flags: "NO_LRU", choices: Choices{KatranFlows: true}, flows: lb.FlowNever},
		"UDP no table":         {protocol: "udp", flags: "NO_LRU", choices: Choices{KatranFlows: true}, flows: lb.FlowNever},
		"no source port":       {protocol: "tcp", flags: "NO_SPORT", options: lb.Options{Hash: lb.HashInput{NoSourcePort: true}}, flows: lb.FlowTransitions},
		"destination port":     {protocol: "tcp", flags: "DPORT_HASH", options: lb.Options{Hash: lb.HashInput{DestinationPortOnly: true}}, flows: lb.FlowTransitions},
		"both ports":           {protocol: "tcp", flags: "HASH_SRC_DST_PORT", options: lb.Options{Hash: lb.HashInput{KeepDestinationPort: true}}, flows: lb.FlowTransitions},
		"source routing":       {protocol: "tcp", flags: "SRC_ROUTING", options: lb.Options{SourceRoutes: true}, flows: lb.FlowTransitions},
		"QUIC":                 {protocol: "udp", flags: "QUIC_VIP", options: lb.Options{ConnectionIDs: lb.ConnectionIDsKatran}, flows: lb.FlowQUIC},
		"QUIC as Katran":       {protocol: "udp", flags: "QUIC_VIP", choices: Choices{KatranFlows: true}, options: lb.Options{ConnectionIDs: lb.ConnectionIDsKatran}, flows: lb.FlowAlways},
		"QUIC without a table": {protocol: "udp", flags: `QUIC_VIP", "NO_LRU`, options: lb.Options{ConnectionIDs: lb.ConnectionIDsKatran}, flows: lb.FlowNever},
		"stable UDP":           {protocol: "udp", flags: "UDP_STABLE_ROUTING", options: lb.Options{UDPIDs: true}, flows: lb.FlowNever},
		"TCP ids":              {protocol: "tcp", ids: true, options: lb.Options{TCPIDs: true}, flows: lb.FlowTransitions},
		"TCP ids, of UDP":      {protocol: "udp", ids: true, flows: lb.FlowNever},
	} {
		t.Run(name, func(t *testing.T) {
			flags := "[]"
			if tc.flags != "" {
				flags = `["` + tc.flags + `"]`
			}
			c, notes, _ := converted(t, readString(t, fmt.Sprintf(`{"settings": {"interface": "eth0", "tcp_server_ids": %t},
				"vips": [{"address": "192.0.2.1", "port": 80, "protocol": %q, "flags": %s}]}`, tc.ids, tc.protocol, flags)), tc.choices)
			v := c.Services[0].VIPs[0]
			if v.Options != tc.options || v.Flows != tc.flows || len(notes) != 0 {
				t.Errorf("options %+v, flows %v, notes %v; want %+v, %v and none", v.Options, v.Flows, notes, tc.options, tc.flows)
			}
		})
	}
}

func TestMigrationOfFlows(t *testing.T) {
	c, _, _ := converted(t, readString(t, `{"vips": [{"address": "192.0.2.1", "port": 80, "protocol": "udp", "flags": ["UDP_FLOW_MIGRATION"]}]}`), Choices{})
	if got := c.Services[0].VIPs[0].Leave.Grace; got != 0 {
		t.Errorf("backends that are down keep their flows for %v", got)
	}
}

func TestWholeBalancer(t *testing.T) {
	c, notes, _ := converted(t, readString(t, `{
		"settings": {"interface": "eth1", "default_mac": "02:00:00:00:00:FE", "encapsulation": "gue", "gue_port": 9886,
			"source4": "192.0.2.200", "source6": "2001:db8::200"},
		"vips": [{"address": "192.0.2.1", "port": 80, "protocol": "tcp", "flags": ["LOCAL_VIP"],
			"reals": [{"address": "10.0.0.1", "weight": 1, "flags": ["LOCAL_REAL"]}]}],
		"inline_decapsulation": {"destinations": [{"address": "192.0.2.200"}, {"address": "192.0.2.199", "egress": true}]}
	}`), Choices{Interface: "eth2"})
	v, b := c.Services[0].VIPs[0], c.Backends[c.Services[0].Name][0]
	addr := netip.MustParseAddr
	decap := lb.Decap{GUEPort: 9886, Others: lb.DecapHost,
		Destinations: map[netip.Addr]lb.DecapAction{addr("192.0.2.200"): lb.DecapBalance, addr("192.0.2.199"): lb.DecapEgress}}
	tunnel := lb.DefaultTunnelSources()
	tunnel.GUE4, tunnel.GUE6, tunnel.GUEPort, tunnel.GUEChecksum = addr("192.0.2.200"), addr("2001:db8::200"), 9886, true
	switch {
	case len(notes) != 0 || c.Interface != "eth2":
		t.Errorf("notes %v, interface %s", notes, c.Interface)
	case c.NextHop == nil || c.NextHop.MAC != [6]byte{2, 0, 0, 0, 0, 0xfe}:
		t.Errorf("next hop %+v", c.NextHop)
	case v.Encap != lb.GUE || v.Tunnel != tunnel:
		t.Errorf("encapsulation %v, %+v", v.Encap, v.Tunnel)
	case !b.Local:
		t.Errorf("backend %+v is not local", b)
	}
	if diff := cmp.Diff(decap, c.Decap, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("decapsulation: -want +got:\n%s", diff)
	}
}

// TestRings: the ring of the imported file is Katran's, by the numbers that Katran itself has.
func TestRings(t *testing.T) {
	const reals = `{"address": "10.0.0.1", "weight": %d}, {"address": "10.0.0.3", "weight": %d}, {"address": "10.0.0.2", "weight": %d}`
	for name, tc := range map[string]struct {
		hash    string
		weights [3]int // of .1, .2, .3
		first   string // the last byte of the real of the first 16 slots
		counts  [3]int
	}{
		"equal":   {"maglev-v2", [3]int{1, 1, 1}, "2132133112122123", [3]int{21845, 21846, 21846}},
		"v1":      {"maglev", [3]int{100, 200, 300}, "2132133112122123", [3]int{21745, 21846, 21946}},
		"v2":      {"maglev-v2", [3]int{1, 2, 10}, "2332333133333333", [3]int{5041, 10082, 50414}},
		"drained": {"maglev-v2", [3]int{1, 0, 0}, "1111111111111111", [3]int{65537, 0, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			c, _, _ := converted(t, readString(t, fmt.Sprintf(`{"vips": [{"address": "192.0.2.1", "port": 80, "protocol": "tcp", "hash_function": %q, "reals": [`+reals+`]}]}`,
				tc.hash, tc.weights[0], tc.weights[2], tc.weights[1])), Choices{})
			slots := ringOf(t, c, c.Services[0])
			var first strings.Builder
			for _, a := range slots[:16] {
				fmt.Fprint(&first, a.As4()[3])
			}
			var counts [3]int
			for _, a := range slots {
				counts[a.As4()[3]-1]++
			}
			if first.String() != tc.first || counts != tc.counts {
				t.Errorf("first %s, counts %v; want %s, %v", first.String(), counts, tc.first, tc.counts)
			}
		})
	}
}

// ringOf is the backend of each slot of a service's only VIP.
func ringOf(t *testing.T, c *config.Config, s lb.Service) (addrs []netip.Addr) {
	t.Helper()
	var members []maglev.Member
	for i, b := range c.Backends[s.Name] {
		members = append(members, maglev.Member{ID: lb.RealID(i + 1), Addr: b.Addr, Weight: b.Weight})
	}
	slots, err := maglev.Build(s.VIPs[0].Ring, members)
	require.NoError(t, err)
	for _, slot := range slots {
		addrs = append(addrs, members[slot.Cur()-1].Addr)
	}
	return addrs
}

// TestRoundTrip: what a random dump says is what its file says, in whatever order the dump has it.
func TestRoundTrip(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		d := randomDump(random)
		c, _, text := converted(t, d, Choices{Interface: "eth0"})
		compareDump(t, d, c)
		shuffle(random, d)
		if _, _, again := converted(t, d, Choices{Interface: "eth0"}); again != text {
			t.Fatalf("another order makes another file: -first +second\n%s", cmp.Diff(text, again))
		}
	}
}

// randomDump has nothing that cannot be carried over but flags of the other protocol. Each real has at
// most one id, and no two have the same.
func randomDump(r *rand.Rand) *Dump {
	d := &Dump{Settings: Settings{MaxVIPs: MaxVIPs, RingSize: RingSize, GUEPort: GUEPort, TCPServerIDs: r.IntN(2) == 0}}
	taken := map[lb.VIP]bool{}
	for range r.IntN(8) {
		v := VIP{Prefix: randomPrefix(r), Port: uint16(r.IntN(3)), Protocol: []lb.Protocol{lb.TCP, lb.UDP}[r.IntN(2)],
			Flags: Flags(r.IntN(1024)) &^ GlobalLRU, Hash: lb.RingHash(r.IntN(2))}
		if taken[v.vip()] {
			continue
		}
		taken[v.vip()] = true
		for i := range r.IntN(6) {
			v.Reals = append(v.Reals, Real{randomReal(i, r), uint32(r.IntN(1000)), 0})
		}
		d.VIPs = append(d.VIPs, v)
	}
	for i := range 6 {
		for _, six := range []bool{false, true} {
			if r.IntN(2) == 0 {
				d.ServerIDs = append(d.ServerIDs, ServerID{r.Uint32N(1<<20)*16 + uint32(len(d.ServerIDs)) + 1, realAddr(i, six)})
			}
		}
	}
	for i := range r.IntN(5) {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, byte(i), 0}), 24+r.IntN(3))
		d.Routes = append(d.Routes, Route{p, randomReal(r.IntN(3), r)})
	}
	return d
}

func randomPrefix(r *rand.Rand) netip.Prefix {
	a := netip.AddrFrom4([4]byte{192, 0, 2, byte(r.IntN(4))})
	if r.IntN(2) == 0 {
		a = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(r.IntN(4))})
	}
	return netip.PrefixFrom(a, a.BitLen()-r.IntN(2)*r.IntN(3)).Masked()
}

func randomReal(i int, r *rand.Rand) netip.Addr { return realAddr(i, r.IntN(2) == 0) }

func realAddr(i int, six bool) netip.Addr {
	if six {
		return netip.AddrFrom16([16]byte{0xfc, 15: byte(i + 1)})
	}
	return netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})
}

func shuffle(r *rand.Rand, d *Dump) {
	r.Shuffle(len(d.VIPs), func(i, j int) { d.VIPs[i], d.VIPs[j] = d.VIPs[j], d.VIPs[i] })
	r.Shuffle(len(d.Routes), func(i, j int) { d.Routes[i], d.Routes[j] = d.Routes[j], d.Routes[i] })
	r.Shuffle(len(d.ServerIDs), func(i, j int) { d.ServerIDs[i], d.ServerIDs[j] = d.ServerIDs[j], d.ServerIDs[i] })
	for _, v := range d.VIPs {
		r.Shuffle(len(v.Reals), func(i, j int) { v.Reals[i], v.Reals[j] = v.Reals[j], v.Reals[i] })
	}
}

// compareDump compares VIPs, weights, ids and routes; TestOptions has the flags.
func compareDump(t *testing.T, d *Dump, c *config.Config) {
	t.Helper()
	if len(c.Services) != len(d.VIPs) {
		t.Fatalf("%d services of %d VIPs", len(c.Services), len(d.VIPs))
	}
	ids := map[netip.Addr]uint32{}
	for _, id := range d.ServerIDs {
		ids[id.Addr] = id.ID
	}
	for _, v := range d.VIPs {
		i := slices.IndexFunc(c.Services, func(s lb.Service) bool { return s.VIPs[0].VIP == v.vip() })
		if i < 0 {
			t.Fatalf("the VIP %s is lost", v)
		}
		s := c.Services[i]
		if s.VIPs[0].Ring != (lb.Ring{Size: RingSize, Hash: v.Hash}) {
			t.Errorf("%s: ring %+v, want hash %v", v, s.VIPs[0].Ring, v.Hash)
		}
		want := map[netip.Addr]lb.Backend{}
		for _, r := range v.Reals {
			b := lb.Backend{Addr: r.Addr, Weight: r.Weight}
			if s.VIPs[0].Options.HasServerIDs() {
				b.ServerID = ids[r.Addr]
			}
			want[r.Addr] = b
		}
		got := map[netip.Addr]lb.Backend{}
		for _, b := range c.Backends[s.Name] {
			got[b.Addr] = b
		}
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("%s: -want +got:\n%s", v, diff)
		}
	}
	routes, err := c.ReadSourceRoutes()
	require.NoError(t, err)
	got := map[lb.SourceRoute]bool{}
	for _, r := range routes {
		got[r] = true
	}
	for _, r := range d.Routes {
		if !got[lb.SourceRoute{Prefix: r.Source, Backend: r.Real}] || len(routes) != len(d.Routes) {
			t.Errorf("route %v is lost among %v", r, routes)
		}
	}
}

// FuzzRead looks for a panic, and for a dump that is read and makes no valid file.
func FuzzRead(f *testing.F) {
	sample, err := os.ReadFile("testdata/fleet.json")
	require.NoError(f, err)
	f.Add(sample)
	f.Add([]byte(`{"vips": [{"address": "2001:db8::/64", "protocol": 17, "flags": 4294967295, "reals": [{"address": "10.0.0.1", "flags": [], "weight": 5}]}]}`))
	f.Add([]byte(`{"settings": {"encapsulation": "gue", "source4": "10.0.0.9", "tcp_server_ids": true}, "inline_decapsulation": {"destinations": [{"address": "10.0.0.9"}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := Read(bytes.NewReader(data))
		if err != nil {
			return
		}
		if _, _, err := d.Convert(Choices{Interface: "eth0"}); err != nil {
			t.Fatal(err)
		}
	})
}
