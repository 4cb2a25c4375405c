// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/remora-lb/remora/test/consul"
	"github.com/remora-lb/remora/test/require"
	"github.com/remora-lb/remora/test/rig"
)

// diagnosis is remora doctor -o json.
type diagnosis struct {
	Status   int             `json:"status"`
	Findings []doctorFinding `json:"findings"`
}

type doctorFinding struct {
	ID, Object, Verdict, Facts, Cure string
}

// machineFindings are those that depend on the machine that the tests run on: its clock, whether it
// has nft, and that the file of the BPF compiler is in its first network namespace only.
func machineFindings() []string { return []string{"clock", "bpf-jit", "packet-filter"} }

// doctor runs remora doctor in a node.
func (b *bed) doctor(t *testing.T, n *rig.Node, args ...string) (d diagnosis) {
	t.Helper()
	command := append([]string{"doctor", "-o", "json"}, args...)
	out, err := n.Run(within(t), b.remora.Binary, command...)
	if jsonErr := json.Unmarshal([]byte(out), &d); jsonErr != nil {
		t.Fatalf("read %q: %v; %v", out, jsonErr, err)
	}
	if ended := d.Status == 0 && err == nil || exited(err, d.Status); !ended {
		t.Fatalf("the report has status %d; the program: %v", d.Status, err)
	}
	return d
}

func (b *bed) doctorBalancer(t *testing.T) diagnosis {
	t.Helper()
	return b.doctor(t, b.balancer, "-c", b.config, "--instance", b.remora.Instance, "--socket", b.remora.Socket(), "--state-dir", b.remora.StateDir)
}

func (b *bed) doctorServer(t *testing.T, s *rig.Node) diagnosis {
	t.Helper()
	return b.doctor(t, s, "--server", "--vip", vip4().String()+":80/tcp", "--vip", "["+vip6().String()+"]:80/tcp", "--client", b.Client.IPv4.String())
}

// symptom is a finding that is demanded: facts and cure have these parts.
type symptom struct{ id, verdict, facts, cure string }

func (d diagnosis) has(s symptom) bool {
	return slices.ContainsFunc(d.Findings, func(f doctorFinding) bool {
		return f.ID == s.id && f.Verdict == s.verdict && strings.Contains(f.Object+" "+f.Facts, s.facts) && strings.Contains(f.Cure, s.cure)
	})
}

// assert demands a finding.
func (d diagnosis) assert(t *testing.T, s symptom) {
	t.Helper()
	if !d.has(s) {
		t.Errorf("no finding %+v among %s", s, d)
	}
}

// assertWell demands that nothing is worse than a note.
func (d diagnosis) assertWell(t *testing.T) {
	t.Helper()
	if err := d.unwell(); err != nil {
		t.Error(err)
	}
}

func (d diagnosis) unwell() error {
	var errs []error
	for _, f := range d.Findings {
		if f.Verdict != "ok" && f.Verdict != "note" && !slices.Contains(machineFindings(), f.ID) {
			errs = append(errs, fmt.Errorf("%+v", f))
		}
	}
	return errors.Join(errs...)
}

func (d diagnosis) String() string {
	var text strings.Builder
	for _, f := range d.Findings {
		if f.Verdict != "ok" {
			fmt.Fprintf(&text, "\n  %+v", f)
		}
	}
	return text.String()
}

// inject is something that is done to a node, by ip(8) and sysctl(8).
func inject(t *testing.T, n *rig.Node, commands ...string) {
	t.Helper()
	for _, c := range commands {
		words := strings.Fields(c)
		if _, err := n.Run(within(t), words[0], words[1:]...); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDoctorBalancer breaks a balancer in one way after another, and mends it again.
func TestDoctorBalancer(t *testing.T) {
	require.Tools(t, "ip")
	b := newBed(t, rig.Config{})
	b.startServers(t, ipv4)
	b.writeChecked(t, tunnels()[0], quickChecks)
	b.startDaemon(t)
	for _, s := range b.Servers {
		b.awaitVerdict(t, vip4(), s, "up", "")
	}
	b.assertShared(t, vip4(), b.Servers...)
	b.awaitWell(t)
	last := b.Servers[len(b.Servers)-1].IPv4
	for _, tc := range []struct {
		name       string
		harm, mend []string
		symptom    symptom
	}{
		{"no next hop", []string{fmt.Sprintf("ip route add %s/32 via 10.10.1.99 dev %s", last, rig.BalancerInterface)}, []string{fmt.Sprintf("ip route del %s/32", last)},
			symptom{"next-hop", "fail", "10.10.1.99 on lan0 does not answer", "ip neighbour show 10.10.1.99 dev lan0"}},
		{"wrong interface", []string{"ip link add other0 type veth peer name other1", "ip link set other0 up", "ip link set other1 up", fmt.Sprintf("ip route add %s/32 dev other0", last)}, []string{"ip link del other0"},
			symptom{"real-interface", "fail", "leaves by other0", fmt.Sprintf("ip route replace %s/32 via GATEWAY dev lan0", last)}},
		{"MTU too small", []string{"ip link set dev lan0 mtu 1500"}, []string{"ip link set dev lan0 mtu 1600"},
			symptom{"real-mtu", "warn", "more than 1480 bytes", "ip link set dev lan0 mtu 1520"}},
		{"VIP on the balancer", []string{"ip address add 192.0.2.10/32 dev lo"}, []string{"ip address del 192.0.2.10/32 dev lo"},
			symptom{"vip-local", "fail", "on lo of this balancer", "ip address del 192.0.2.10/32 dev lo"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inject(t, b.balancer, tc.harm...)
			b.doctorBalancer(t).assert(t, tc.symptom)
			inject(t, b.balancer, tc.mend...)
			b.awaitWell(t)
		})
	}
	t.Run("all reals down", func(t *testing.T) {
		for _, web := range b.webs {
			require.NoError(t, web.Stop(time.Second))
		}
		b.logged(t, 0, "health checks are not believed")
		wanted := symptom{"all-reals-down", "fail", "all 3 reals fail their health checks", "doctor --server --vip 192.0.2.10:80/tcp"}
		waitFor(t, wanted.id, func() error {
			if d := b.doctorBalancer(t); !d.has(wanted) {
				return fmt.Errorf("there are %s", d)
			}
			return nil
		})
	})
	t.Run("dead daemon", func(t *testing.T) {
		require.NoError(t, b.daemon.Kill())
		b.doctorBalancer(t).assert(t, symptom{"daemon", "warn", "forwards as last configured", "remora run -c " + b.config})
	})
}

// awaitWell waits until doctor finds nothing on the balancer: health checks and neighbours need a
// moment to recover.
func (b *bed) awaitWell(t *testing.T) {
	t.Helper()
	waitFor(t, "a healthy balancer", func() error { return b.doctorBalancer(t).unwell() })
}

// TestDoctorServer breaks a server in one way after another, and mends it again.
func TestDoctorServer(t *testing.T) {
	require.Tools(t, "ip", "sysctl")
	b := newBed(t, rig.Config{Servers: 1})
	s := b.Servers[0]
	web, err := s.StartNginx(within(t), 1)
	require.NoError(t, err)
	b.webs[s] = web
	decap := b.decapsulate(t, s)
	b.write(t, b.Servers, ipv4, "")
	b.startDaemon(t)
	b.assertShared(t, vip4(), s)
	b.doctorServer(t, s).assertWell(t)
	for _, tc := range []struct {
		name       string
		harm, mend []string
		symptom    symptom
	}{
		{"VIP missing", []string{"ip address del 192.0.2.10/32 dev lo"}, []string{"ip address add 192.0.2.10/32 dev lo"},
			symptom{"vip-address", "fail", "192.0.2.10", "ip address add 192.0.2.10/32 dev lo"}},
		{"strict rp_filter", []string{
			"ip link add back0 type veth peer name back1", "ip link set back0 up", "ip link set back1 up",
			"ip route add 198.51.100.0/24 dev back0", "sysctl -w net.ipv4.conf.eth0.rp_filter=1",
		}, []string{"sysctl -w net.ipv4.conf.eth0.rp_filter=0", "ip link del back0"},
			symptom{"rp-filter", "fail", "answers to clients do not leave by eth0", "net/ipv4/conf/eth0/rp_filter=2"}},
		{"answers ARP for the VIP", []string{"sysctl -w net.ipv4.conf.all.arp_ignore=0"}, []string{"sysctl -w net.ipv4.conf.all.arp_ignore=1"},
			symptom{"arp", "warn", "arp_ignore is 0", "net.ipv4.conf.all.arp_ignore=1"}},
		{"short link", []string{"ip link set dev eth0 mtu 1500"}, []string{"ip link set dev eth0 mtu 1600"},
			symptom{"mss", "warn", "takes 1440", "ip route change default via 10.20.0.1 advmss 1440"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inject(t, s, tc.harm...)
			b.doctorServer(t, s).assert(t, tc.symptom)
			if tc.symptom.verdict == "fail" {
				b.assertSilent(t)
			}
			inject(t, s, tc.mend...)
			b.doctorServer(t, s).assertWell(t)
			b.assertShared(t, vip4(), s)
		})
	}
	t.Run("no decapsulation", func(t *testing.T) {
		require.NoError(t, decap.Stop(time.Second))
		b.assertSilent(t)
		b.doctorServer(t, s).assert(t, symptom{"decapsulation", "fail", "nothing unwraps packets", "remora decap --interface"})
	})
	t.Run("nothing listens", func(t *testing.T) {
		require.NoError(t, web.Stop(time.Second))
		b.doctorServer(t, s).assert(t, symptom{"listener", "fail", "no socket is bound to port 80", "start the service"})
	})
}

// assertSilent demands that no request through the balancer is answered: the harm is real.
func (b *bed) assertSilent(t *testing.T) {
	t.Helper()
	if out, err := b.Client.Run(within(t), "curl", "-sS", "--max-time", "0.5", url(vip4(), "/")); err == nil {
		t.Errorf("broken, and still %q answers", out)
	}
}

// TestDoctorHook: generic mode that was asked for, and an interface that another program has.
func TestDoctorHook(t *testing.T) {
	b := newBed(t, rig.Config{Servers: 1})
	b.writeText(t, webConfig("mode: generic\n", "tcp", b.Servers[0].IPv4.String()))
	b.startDaemon(t)
	b.doctorBalancer(t).assert(t, symptom{"xdp-mode", "warn", "generic mode, because the file asks for it", "`mode: auto`"})

	require.NoError(t, b.daemon.Stop(waitTimeout))
	require.NoError(t, b.remora.RemovePins())
	b.doctorBalancer(t).assert(t, symptom{"daemon", "fail", "nothing is pinned", "remora run -c " + b.config})
	// Another program, which remora did not put there for this balancer.
	_, err := b.balancer.Start(b.remora.Binary, "decap", "--interface", rig.BalancerInterface)
	require.NoError(t, err)
	wanted := symptom{"xdp-hook", "fail", `another program is on the interface: XDP program "remora_decap"`, "ip link set dev lan0 xdp off"}
	waitFor(t, wanted.id, func() error {
		if d := b.doctorBalancer(t); !d.has(wanted) {
			return fmt.Errorf("there are %s", d)
		}
		return nil
	})
	b.launchDaemon(t)
	waitFor(t, "a refused start", func() error {
		if err := b.daemon.Running(); err == nil || !strings.Contains(err.Error(), "already has XDP program") {
			return fmt.Errorf("the daemon: %v", err)
		}
		return nil
	})
}

// TestDoctorPlainUser: without privileges nothing is called broken that works, and what could not be
// looked at is named.
func TestDoctorPlainUser(t *testing.T) {
	b := newBed(t, rig.Config{Servers: 1})
	b.write(t, b.Servers, ipv4, "")
	b.startDaemon(t)
	dir := publicDir(t)
	binary, config := filepath.Join(dir, "remora"), filepath.Join(dir, "remora.yaml")
	copyFile(t, b.remora.Binary, binary, 0o755)
	copyFile(t, b.config, config, 0o644)
	doctor := []string{"--reuid=65534", "--regid=65534", "--clear-groups", binary, "doctor", "-c", config,
		"--instance", b.remora.Instance, "--socket", b.remora.Socket(), "--state-dir", b.remora.StateDir}
	out, _ := b.balancer.Run(within(t), "setpriv", append(doctor, "-o", "json")...) // the clock may be a warning
	var d diagnosis
	require.NoError(t, json.Unmarshal([]byte(out), &d))
	for _, f := range d.Findings {
		if f.Verdict == "fail" {
			t.Errorf("it works, and %+v", f)
		}
	}
	for _, id := range []string{"bpf", "daemon", "xdp-hook"} {
		d.assert(t, symptom{id: id, verdict: "cannot tell"})
	}
	out, _ = b.balancer.Run(within(t), "setpriv", doctor...)
	if !strings.Contains(out, "not checked for want of privileges, run as root: bpf, capabilities, daemon") {
		t.Errorf("it does not say what it could not check: %s", out)
	}
}

// TestDoctorConsul gives the balancer tokens that may not read what it needs.
func TestDoctorConsul(t *testing.T) {
	const management = "11111111-2222-3333-4444-555555555555"
	b := newBed(t, rig.Config{Servers: 1})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute) // it may have to be built
	defer cancel()
	binary, err := consul.Build(ctx)
	if err != nil && os.Getenv("REMORA_REQUIRE_ROOT") != "1" {
		t.Skipf("this test needs Consul: %v", err)
	}
	require.NoError(t, err)
	socket := filepath.Join(b.Dir, "consul.sock")
	a, err := consul.Start(ctx, consul.Options{Binary: binary, Config: fmt.Sprintf("addresses { http = \"127.0.0.1 unix://%s\" }\n", socket) +
		`acl { enabled = true default_policy = "deny" tokens { initial_management = "` + management + `" agent = "` + management + `" } }`})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, a.Close()) })
	c, err := a.Client(management)
	require.NoError(t, err)
	waitFor(t, "ACLs and a service", func() error {
		return c.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "web", Address: b.Servers[0].IPv4.String(), Port: 80})
	})
	for _, tc := range []struct {
		name, token string
		symptom     symptom
	}{
		{"unknown token", "99999999-2222-3333-4444-555555555555", symptom{"consul-acl", "fail", "service web Consul refuses the token", "configs/consul-policy.hcl"}},
		{"no rights on nodes", newConsulToken(t, c, `service "web" { policy = "read" }`), symptom{"consul-acl", "fail", "service web the token may not see all", `service "web" { policy = "read" } and node_prefix "" { policy = "read" }`}},
		{"all rights", newConsulToken(t, c, policyFile(t)), symptom{"consul", "ok", "keys below remora/overlay/, service web Consul answers", ""}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b.writeText(t, fmt.Sprintf("interface: %s\nconsul: {addresses: [\"unix://%s\"], token: %s, overlay: remora/overlay/}\nservices:\n  - name: web\n    vips: [\"%s:80/tcp\"]\n    source: {consul: {service: web}}\n",
				rig.BalancerInterface, socket, tc.token, vip4()))
			b.doctorBalancer(t).assert(t, tc.symptom)
		})
	}
}

// newConsulToken makes a token with these rules.
func newConsulToken(t *testing.T, c *api.Client, rules string) string {
	t.Helper()
	policy, _, err := c.ACL().PolicyCreate(&api.ACLPolicy{Name: fmt.Sprintf("rules-%d", len(rules)), Rules: rules}, nil)
	require.NoError(t, err)
	token, _, err := c.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{ID: policy.ID}}}, nil)
	require.NoError(t, err)
	return token.SecretID
}

// policyFile is the sample policy.
func policyFile(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../configs/consul-policy.hcl")
	require.NoError(t, err)
	return string(text)
}
