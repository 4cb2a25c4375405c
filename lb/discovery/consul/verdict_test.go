// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/remora-lb/remora/lb"
)

// sample is an instance in order, with changes.
func sample(changes ...func(*Instance)) Instance {
	i := Instance{
		Node:    Node{Name: "n1", Address: "10.0.0.1", TaggedAddresses: map[string]string{"lan_ipv6": "2001:db8::1"}},
		Service: Service{ID: "web-1", Name: "web", Address: "10.1.0.1", Port: 80, Weights: Weights{10, 3}},
		Checks:  []Check{{CheckID: "serfHealth", Status: "passing"}, {CheckID: "http", Status: "passing", ServiceID: "web-1"}},
	}
	for _, change := range changes {
		change(&i)
	}
	return i
}

func nodeCheck(status string) func(*Instance) {
	return func(i *Instance) { i.Checks[0].Status = status }
}

func serviceCheck(status string) func(*Instance) {
	return func(i *Instance) { i.Checks[1].Status = status }
}

func moreCheck(id, status, service string) func(*Instance) {
	return func(i *Instance) { i.Checks = append(i.Checks, Check{id, status, service}) }
}

func nodeMaint(i *Instance)    { moreCheck("_node_maintenance", "critical", "")(i) }
func serviceMaint(i *Instance) { moreCheck("_service_maintenance:web-1", "critical", "web-1")(i) }

func at(address string) func(*Instance) { return func(i *Instance) { i.Service.Address = address } }

func weights(passing, warning int) func(*Instance) {
	return func(i *Instance) { i.Service.Weights = Weights{passing, warning} }
}

func meta(key, value string) func(*Instance) {
	return func(i *Instance) { i.Service.Meta = map[string]string{key: value} }
}

func tags(list ...string) func(*Instance) { return func(i *Instance) { i.Service.Tags = list } }

func port(p int) func(*Instance) { return func(i *Instance) { i.Service.Port = p } }

func TestJudge(t *testing.T) {
	drainWarning := Rules{Ports: []uint16{80}, Warning: WarningDrain}
	anyPort := Rules{Ports: []uint16{0}}
	tagged := Rules{Ports: []uint16{80}, TaggedAddress: "lan_ipv6"}
	for _, tc := range []struct {
		name     string
		instance Instance
		rules    *Rules // nil: port 80
		want     string // address, weight, state: reason
	}{
		// Health of node and service.
		{"all pass", sample(), nil, "10.1.0.1 10 active: "},
		{"no checks at all", sample(func(i *Instance) { i.Checks = nil }), nil, "10.1.0.1 10 active: "},
		{"service warns", sample(serviceCheck("warning")), nil, `10.1.0.1 3 active: check "http" is "warning"`},
		{"service warns, to be drained", sample(serviceCheck("warning")), &drainWarning, `10.1.0.1 3 drain: check "http" is "warning"`},
		{"service warns with weight 0", sample(serviceCheck("warning"), weights(10, 0)), nil, "10.1.0.1 0 drain: weight 0"},
		{"service critical", sample(serviceCheck("critical")), nil, `10.1.0.1 10 down: check "http" is "critical"`},
		{"node warns", sample(nodeCheck("warning")), nil, `10.1.0.1 3 active: node check "serfHealth" is "warning"`},
		{"node critical", sample(nodeCheck("critical")), nil, `10.1.0.1 10 down: node check "serfHealth" is "critical"`},
		{"node critical, service warns", sample(nodeCheck("critical"), serviceCheck("warning")), nil, `10.1.0.1 10 down: node check "serfHealth" is "critical"`},
		{"node warns, service critical", sample(nodeCheck("warning"), serviceCheck("critical")), nil, `10.1.0.1 10 down: check "http" is "critical"`},
		{"both critical", sample(nodeCheck("critical"), serviceCheck("critical")), nil, `10.1.0.1 10 down: check "http" is "critical"`},
		{"one of three critical", sample(moreCheck("a", "critical", "web-1")), nil, `10.1.0.1 10 down: check "a" is "critical"`},
		{"a state that nobody knows", sample(serviceCheck("unheard-of")), nil, `10.1.0.1 10 down: check "http" is "unheard-of"`},
		// Maintenance of node and service, over all else.
		{"node in maintenance", sample(nodeMaint), nil, "10.1.0.1 10 drain: node in maintenance"},
		{"service in maintenance", sample(serviceMaint), nil, "10.1.0.1 10 drain: service in maintenance"},
		{"both in maintenance", sample(nodeMaint, serviceMaint), nil, "10.1.0.1 10 drain: node in maintenance"},
		{"service in maintenance, and critical", sample(serviceMaint, serviceCheck("critical")), nil, "10.1.0.1 10 drain: service in maintenance"},
		{"service in maintenance, and warns", sample(serviceMaint, serviceCheck("warning")), nil, "10.1.0.1 3 drain: service in maintenance"},
		{"node in maintenance, and lost", sample(nodeMaint, nodeCheck("critical")), nil, "10.1.0.1 10 drain: node in maintenance"},
		{"in maintenance at a wrong port", sample(nodeMaint, port(81)), nil, "invalid IP 0 refused: port 81 is not the VIP's 80: encapsulation cannot translate ports"},
		// Weights.
		{"no weights", sample(weights(0, 0)), nil, "10.1.0.1 1 active: "},
		{"no weights, and warns", sample(weights(0, 0), serviceCheck("warning")), nil, `10.1.0.1 1 active: check "http" is "warning"`},
		{"a negative weight", sample(weights(-5, 1)), nil, "10.1.0.1 0 drain: weight 0"},
		{"a weight too large", sample(weights(1<<40, 1)), nil, "10.1.0.1 1000000 active: "},
		{"meta overrides", sample(meta("remora-weight", "77")), nil, "10.1.0.1 77 active: "},
		{"meta overrides with 0", sample(meta("remora-weight", "0")), nil, "10.1.0.1 0 drain: weight 0"},
		{"meta is no weight", sample(meta("remora-weight", "heavy")), nil, `10.1.0.1 10 active: remora.weight "heavy" ignored: not 0 to 1000000`},
		{"meta is too large", sample(meta("remora-weight", "1000001")), nil, `10.1.0.1 10 active: remora.weight "1000001" ignored: not 0 to 1000000`},
		{"meta overrides what passes only", sample(meta("remora-weight", "77"), serviceCheck("warning")), nil, `10.1.0.1 3 active: check "http" is "warning"`},
		{"a tag overrides", sample(tags("x", "remora.weight=5")), nil, "10.1.0.1 5 active: "},
		{"meta before tag", sample(tags("remora.weight=5"), meta("remora-weight", "6")), nil, "10.1.0.1 6 active: "},
		{"the least of two tags", sample(tags("remora.weight=6", "remora.weight=5")), nil, "10.1.0.1 5 active: "},
		// Addresses and ports.
		{"address of the node", sample(at("")), nil, "10.0.0.1 10 active: "},
		{"tagged address of the node", sample(), &tagged, "2001:db8::1 10 active: "},
		{"tagged address of the service", sample(func(i *Instance) {
			i.Service.TaggedAddresses = map[string]TaggedAddress{"lan_ipv6": {"2001:db8::2", 80}}
		}), &tagged, "2001:db8::2 10 active: "},
		{"tagged address with another port", sample(func(i *Instance) {
			i.Service.TaggedAddresses = map[string]TaggedAddress{"lan_ipv6": {"2001:db8::2", 8080}}
		}), &tagged, "invalid IP 0 refused: port 8080 is not the VIP's 80: encapsulation cannot translate ports"},
		{"no such tagged address", sample(func(i *Instance) { i.Node.TaggedAddresses = nil }), &tagged,
			`invalid IP 0 refused: neither service nor node has the tagged address "lan_ipv6"`},
		{"a name for an address", sample(at("web.example")), nil, `invalid IP 0 refused: "web.example" is not an IPv4 or IPv6 address`},
		{"no address anywhere", sample(at(""), func(i *Instance) { i.Node.Address = "" }), nil, `invalid IP 0 refused: "" is not an IPv4 or IPv6 address`},
		{"loopback", sample(at("127.0.0.1")), nil, "invalid IP 0 refused: address 127.0.0.1 is loopback"},
		{"the address of a VIP", sample(at("192.0.2.10")), &Rules{Ports: []uint16{80}, VIPs: map[netip.Addr]bool{netip.MustParseAddr("192.0.2.10"): true}},
			"invalid IP 0 refused: address 192.0.2.10 is a VIP's: packets would go round in a circle"},
		{"an address in the prefix of a VIP", sample(at("192.0.2.10")), &Rules{Ports: []uint16{80}, VIPPrefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/28")}},
			"invalid IP 0 refused: address 192.0.2.10 is a VIP's: packets would go round in a circle"},
		{"a server id", sample(meta("remora-server_id", "4294967295")), nil, "10.1.0.1 10 server 4294967295 active: "},
		{"a server id in a tag", sample(tags("remora.server_id=12"), serviceCheck("critical")), nil, `10.1.0.1 10 server 12 down: check "http" is "critical"`},
		{"no server id", sample(meta("remora-server_id", "0")), nil, `10.1.0.1 10 active: remora.server_id "0" ignored: not 1 to 4294967295`},
		{"no port said", sample(port(0)), nil, "10.1.0.1 10 active: "},
		{"any port for a VIP of all", sample(port(8080)), &anyPort, "10.1.0.1 10 active: "},
		{"another port", sample(port(8080)), &Rules{Ports: []uint16{443, 80, 80}},
			"invalid IP 0 refused: port 8080 is not the VIP's 80 or 443: encapsulation cannot translate ports"},
		{"a port that is none", sample(port(65616)), nil, "invalid IP 0 refused: port 65616 is not the VIP's 80: encapsulation cannot translate ports"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			rules := Rules{Ports: []uint16{80}}
			if tc.rules != nil {
				rules = *tc.rules
			}
			if got := verdictText(Judge(&tc.instance, rules)); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func verdictText(v Verdict) string {
	server := ""
	if v.Backend.ServerID != 0 {
		server = fmt.Sprintf("server %d ", v.Backend.ServerID)
	}
	return fmt.Sprintf("%s %d %s%s: %s", v.Backend.Addr, v.Backend.Weight, server, v.State, v.Reason)
}

// TestSharedAddress: of instances with one address one has it, whatever the order.
func TestSharedAddress(t *testing.T) {
	id := func(node, service string) func(*Instance) {
		return func(i *Instance) { i.Node.Name, i.Service.ID = node, service }
	}
	for _, tc := range []struct {
		name      string
		instances []Instance
		winner    string
	}{
		{"the lesser node", []Instance{sample(id("n2", "a")), sample(id("n1", "b"))}, "n1/b active"},
		{"the lesser id", []Instance{sample(id("n1", "b")), sample(id("n1", "a"))}, "n1/a active"},
		{"the one that works", []Instance{sample(id("n1", "a"), serviceCheck("critical")), sample(id("n1", "b"))}, "n1/b active"},
		{"the one that drains", []Instance{sample(id("n1", "a")), sample(id("n1", "b"), nodeMaint)}, "n1/b drain"},
		{"three", []Instance{sample(id("n3", "a")), sample(id("n1", "a")), sample(id("n2", "a"))}, "n1/a active"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for range 2 {
				verdicts := JudgeAll(tc.instances, Rules{Ports: []uint16{80}})
				if got := fmt.Sprintf("%s %s", verdicts[0].ID, verdicts[0].State); got != tc.winner {
					t.Errorf("first is %s, want %s", got, tc.winner)
				}
				for _, v := range verdicts[1:] {
					if v.State != Refused || !strings.Contains(v.Reason, `instance "`+verdicts[0].ID.String()+`" has the address`) {
						t.Errorf("%s: %s", v.ID, verdictText(v))
					}
				}
				slices.Reverse(tc.instances)
			}
		})
	}
}

// drawInstance draws from few values, so that instances collide.
func drawInstance(t *rapid.T) Instance {
	pick := func(name string, values ...string) string { return rapid.SampledFrom(values).Draw(t, name) }
	i := sample(
		at(pick("address", "10.1.0.1", "10.1.0.2", "2001:db8::9", "", "nonsense")),
		nodeCheck(pick("node check", "passing", "warning", "critical")),
		serviceCheck(pick("service check", "passing", "warning", "critical")),
		port(rapid.SampledFrom([]int{0, 80, 81}).Draw(t, "port")),
		tags(pick("tag", "remora.vip=192.0.2.1", "remora.vip=192.0.2.1:80/tcp,192.0.2.2", "remora.vip=198.51.100.1", "remora.vip=x", "none")),
	)
	i.Node.Name, i.Service.ID = pick("node", "n1", "n2"), pick("id", "a", "b", "c")
	if rapid.Bool().Draw(t, "maintenance") {
		nodeMaint(&i)
	}
	return i
}

// drawOrder draws a list and a permutation of it, whose checks are permuted, too.
func drawOrder(t *rapid.T, instances []Instance) []Instance {
	other := rapid.Permutation(instances).Draw(t, "order")
	for i := range other {
		other[i].Checks = slices.Clone(other[i].Checks)
		slices.Reverse(other[i].Checks)
	}
	return other
}

// TestOrderDoesNotMatter: verdicts, backends and digest are the same however Consul orders its list.
func TestOrderDoesNotMatter(t *testing.T) {
	vip := lb.VIP{Addr: netip.MustParseAddr("192.0.2.1"), Port: 80, Protocol: lb.TCP}
	rapid.Check(t, func(t *rapid.T) {
		instances := rapid.SliceOfN(rapid.Custom(drawInstance), 0, 8).Draw(t, "instances")
		rules := Rules{Ports: []uint16{80}}
		one, other := JudgeAll(instances, rules), JudgeAll(drawOrder(t, instances), rules)
		if !slices.Equal(one, other) {
			t.Fatalf("%+v\n%+v", one, other)
		}
		backends := Backends(one)
		shuffled := rapid.Permutation(backends).Draw(t, "backends")
		if a, b := Digest(vip, backends), Digest(vip, shuffled); a != b {
			t.Fatalf("digests %s and %s", a, b)
		}
		addrs := make(map[netip.Addr]bool)
		for _, b := range backends {
			if addrs[b.Addr] {
				t.Fatalf("%s is there twice: %+v", b.Addr, backends)
			}
			addrs[b.Addr] = true
		}
	})
}

// TestDigestTellsApart: sets that differ in anything have different digests.
func TestDigestTellsApart(t *testing.T) {
	vip := lb.VIP{Addr: netip.MustParseAddr("192.0.2.1"), Port: 80, Protocol: lb.TCP}
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	other := vip
	other.Port = 81
	seen := make(map[string]string)
	for name, digest := range map[string]string{
		"empty":          Digest(vip, nil),
		"other VIP":      Digest(other, nil),
		"one":            Digest(vip, []lb.Backend{{Addr: a, Weight: 1}}),
		"other weight":   Digest(vip, []lb.Backend{{Addr: a, Weight: 256}}),
		"other address":  Digest(vip, []lb.Backend{{Addr: b, Weight: 1}}),
		"two":            Digest(vip, []lb.Backend{{Addr: a, Weight: 1}, {Addr: b, Weight: 2}}),
		"weights change": Digest(vip, []lb.Backend{{Addr: a, Weight: 2}, {Addr: b, Weight: 1}}),
	} {
		if len(digest) != 16 || seen[digest] != "" {
			t.Errorf("%s has digest %q, as %q has", name, digest, seen[digest])
		}
		seen[digest] = name
	}
}
