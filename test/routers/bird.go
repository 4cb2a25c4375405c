// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package routers

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/remora-lb/remora/test/rig"
)

// BIRD is a running BIRD.
type BIRD struct {
	kernel
	lab       *rig.Lab
	process   *rig.Process
	neighbors []Neighbor
}

// StartBIRD starts BIRD in a node of a lab and waits until it answers. Closing the lab ends it.
func StartBIRD(ctx context.Context, lab *rig.Lab, node *rig.Node, cfg Config) (*BIRD, error) {
	cfg = cfg.withDefaults()
	r := &BIRD{kernel: kernel{node, "bird"}, lab: lab, neighbors: cfg.Neighbors}
	if err := os.WriteFile(r.file("conf"), []byte(cfg.bird(r.file("log"))), 0o600); err != nil {
		return nil, fmt.Errorf("start BIRD: %v", err)
	}
	return r, r.Start(ctx)
}

func (r *BIRD) file(kind string) string { return filepath.Join(r.lab.Dir, "bird."+kind) }

// Start starts BIRD again after Kill.
func (r *BIRD) Start(ctx context.Context) (err error) {
	r.process, err = r.node.Start("bird", "-f", "-c", r.file("conf"), "-s", r.file("ctl"), "-P", r.file("pid"))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return rig.WaitFor(ctx, "BIRD", func() error {
		if err := r.process.Running(); err != nil {
			return err
		}
		_, err := r.birdc(ctx, "show", "status")
		return err
	})
}

// Kill kills BIRD.
func (r *BIRD) Kill() error { return r.process.Kill() }

// Logs is what BIRD has written.
func (r *BIRD) Logs() string {
	log, _ := os.ReadFile(r.file("log")) // not there: nothing was written
	return r.process.Output() + string(log)
}

func (r *BIRD) birdc(ctx context.Context, args ...string) (string, error) {
	return r.node.Run(ctx, "birdc", append([]string{"-s", r.file("ctl")}, args...)...)
}

// Established tells since when the session with a neighbour is established, in BIRD's words;
// empty if it is not.
func (r *BIRD) Established(ctx context.Context, neighbor netip.Addr) (since string, err error) {
	out, err := r.birdc(ctx, "show", "protocols", birdName(r.neighbors, neighbor))
	if err != nil {
		return "", err
	}
	// Name       Proto      Table      State  Since         Info
	for _, line := range strings.Split(out, "\n") {
		f := strings.Fields(line)
		if len(f) >= 6 && f[1] == "BGP" && f[len(f)-1] == "Established" {
			return f[4], nil
		}
	}
	return "", nil
}

// Route is all that BIRD says of the routes for a prefix.
func (r *BIRD) Route(ctx context.Context, p netip.Prefix) (string, error) {
	return r.birdc(ctx, "show", "route", "all", "for", p.String())
}

func birdName(neighbors []Neighbor, address netip.Addr) string {
	for i, n := range neighbors {
		if n.Address == address {
			return fmt.Sprintf("n%d", i)
		}
	}
	return "none"
}

// bird is the configuration of BIRD. The filters lower the preference of routes that are about to
// go, as routers should (RFC 8326).
func (c Config) bird(log string) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("log %q all;", log)
	line("router id %v;", c.RouterID)
	line("timeformat protocol iso long us;")
	line("protocol device { scan time 5; }")
	line("protocol direct { ipv4; ipv6; }")
	for _, family := range []string{"ipv4", "ipv6"} {
		line("protocol kernel k%s { %s { import none; export filter { if source = RTS_BGP then accept; reject; }; }; merge paths yes limit 16; }", family, family)
		var within []string
		for _, p := range c.accepted(family == "ipv4") {
			within = append(within, p.String()+"+")
		}
		line("filter in%s {", family)
		if len(within) > 0 {
			line(" if net !~ [ %s ] then reject;", strings.Join(within, ", "))
		}
		line(" if (65535, 0) ~ bgp_community then bgp_local_pref = 0;\n accept;\n}")
	}
	if c.BFDInterval != 0 {
		ms := c.BFDInterval.Milliseconds()
		line("protocol bfd { interface \"*\" { min rx interval %d ms; min tx interval %d ms; idle tx interval 1 s; multiplier 3; }; }", ms, ms)
	}
	for i, n := range c.Neighbors {
		c.birdNeighbor(line, i, n)
	}
	return b.String()
}

func (c Config) birdNeighbor(line func(string, ...any), i int, n Neighbor) {
	onOff := map[bool]string{true: "on", false: "off"}
	line("protocol bgp n%d {", i)
	line(" local as %d; neighbor %v as %d;", c.ASN, n.Address, n.ASN)
	line(" hold time %d; keepalive time %d;", int(c.Hold.Seconds()), int(c.Hold.Seconds())/3)
	line(" connect delay time 1; connect retry time 1; error wait time 1, 2; %s;", map[bool]string{true: "multihop", false: "direct"}[n.Multihop])
	line(" passive %s; graceful restart %s; bfd %s;", onOff[!n.Connect], onOff[c.GracefulRestart], onOff[c.BFDInterval != 0])
	if n.TTLSecurity {
		line(" ttl security on;")
	}
	if n.Password != "" {
		line(" password %q;", n.Password)
	}
	line(" ipv4 { import filter inipv4; export none; extended next hop %s; };", onOff[c.ExtendedNextHop && n.Address.Is6()])
	line(" ipv6 { import filter inipv6; export none; };")
	line("}")
}
