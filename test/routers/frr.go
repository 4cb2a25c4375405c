// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package routers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/remora-lb/remora/test/rig"
)

// frrDaemons is where Debian has FRR's daemons, and frrUser whom they run as.
const (
	frrDaemons = "/usr/lib/frr"
	frrUser    = "frr"
)

// startTimeout is how long a daemon may take until it answers.
const startTimeout = 15 * time.Second

// FRR is a running FRR: zebra, bgpd and bfdd.
type FRR struct {
	kernel
	dir       string
	processes map[string]*rig.Process
}

// FRRInstalled tells whether FRR is there.
func FRRInstalled() bool {
	_, err := os.Stat(filepath.Join(frrDaemons, "bgpd"))
	return err == nil
}

// StartFRR starts FRR in a node of a lab and waits until it answers. Closing the lab ends it.
func StartFRR(ctx context.Context, lab *rig.Lab, node *rig.Node, cfg Config) (*FRR, error) {
	r := &FRR{
		kernel:    kernel{node, "bgp"},
		dir:       filepath.Join(os.TempDir(), lab.Name+"-frr"),
		processes: make(map[string]*rig.Process),
	}
	lab.OnClose(func() error { return os.RemoveAll(r.dir) })
	cfg = cfg.withDefaults()
	for name, text := range map[string]string{
		"zebra.conf": "log stdout\n",
		"bfdd.conf":  "log stdout\n" + cfg.frrBFD(),
		"bgpd.conf":  "log stdout\n" + cfg.frrBGP(),
		"vtysh.conf": "",
	} {
		if err := r.write(name, text); err != nil {
			return nil, fmt.Errorf("start FRR: %v", err)
		}
	}
	for _, daemon := range []string{"zebra", "bfdd", "bgpd"} {
		if err := r.Start(ctx, daemon); err != nil {
			return nil, fmt.Errorf("start FRR: %v", err)
		}
	}
	return r, nil
}

// write makes a file in the private directory, which is the daemons' own: they give up root.
func (r *FRR) write(name, text string) error {
	u, err := user.Lookup(frrUser)
	if err != nil {
		return err
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	path := filepath.Join(r.dir, name)
	return errors.Join(err1, err2,
		os.MkdirAll(r.dir, 0o700), os.Chown(r.dir, uid, gid),
		os.WriteFile(path, []byte(text), 0o600), os.Chown(path, uid, gid))
}

// Start starts one of the daemons and waits until it answers.
func (r *FRR) Start(ctx context.Context, daemon string) error {
	file := func(name string) string { return filepath.Join(r.dir, name) }
	args := []string{"-f", file(daemon + ".conf"), "-i", file(daemon + ".pid"), "-z", file("zserv"), "--vty_socket", r.dir, "-P", "0"}
	if daemon == "bfdd" {
		args = append(args, "--bfdctl", file("bfdd.sock"))
	}
	p, err := r.node.Start(filepath.Join(frrDaemons, daemon), args...)
	if err != nil {
		return err
	}
	r.processes[daemon] = p
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return rig.WaitFor(ctx, daemon, func() error {
		if err := p.Running(); err != nil {
			return err
		}
		_, err := r.vtysh(ctx, daemon, "show version")
		return err
	})
}

// Kill kills one of the daemons.
func (r *FRR) Kill(daemon string) error { return r.processes[daemon].Kill() }

// Logs is what a daemon has written.
func (r *FRR) Logs(daemon string) string { return r.processes[daemon].Output() }

func (r *FRR) vtysh(ctx context.Context, daemon, command string) (string, error) {
	return r.node.Run(ctx, "vtysh", "--vty_socket", r.dir, "--config_dir", r.dir, "-d", daemon, "-c", command)
}

// show runs a command whose answer is JSON.
func (r *FRR) show(ctx context.Context, command string, into any) error {
	out, err := r.vtysh(ctx, "bgpd", command)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), into); err != nil {
		return fmt.Errorf("read answer to %q: %v: %s", command, err, out)
	}
	return nil
}

// Peering is what FRR says of a session.
type Peering struct {
	State string `json:"bgpState"`
	// Established is when the session was last established, in seconds since 1970.
	Established int64 `json:"bgpTimerUpEstablishedEpoch"`
	// Count and Dropped are how often it was established and lost.
	Count   int `json:"connectionsEstablished"`
	Dropped int `json:"connectionsDropped"`
}

// Peering tells about the session with a neighbour.
func (r *FRR) Peering(ctx context.Context, neighbor netip.Addr) (Peering, error) {
	var answer map[string]Peering
	if err := r.show(ctx, "show bgp neighbors "+neighbor.String()+" json", &answer); err != nil {
		return Peering{}, err
	}
	return answer[neighbor.String()], nil
}

// Path is a route as FRR has it from one neighbour.
type Path struct {
	LocalPref int `json:"locPrf"`
	MED       int `json:"metric"`
	ASPath    struct {
		String string
	} `json:"aspath"`
	Community      struct{ String string } `json:"community"`
	LargeCommunity struct{ String string } `json:"largeCommunity"`
	Multipath      bool
	Peer           struct{ PeerID netip.Addr } `json:"peer"`
}

// Paths are the routes that FRR has for a prefix, by neighbour.
func (r *FRR) Paths(ctx context.Context, p netip.Prefix) (map[netip.Addr]Path, error) {
	family := "ipv6"
	if p.Addr().Is4() {
		family = "ipv4"
	}
	var answer struct{ Paths []Path }
	if err := r.show(ctx, "show bgp "+family+" unicast "+p.String()+" json", &answer); err != nil {
		return nil, err
	}
	paths := make(map[netip.Addr]Path)
	for _, path := range answer.Paths {
		paths[path.Peer.PeerID] = path
	}
	return paths, nil
}

// frrBFD is the configuration of bfdd.
func (c Config) frrBFD() string {
	if c.BFDInterval == 0 {
		return ""
	}
	ms := c.BFDInterval.Milliseconds()
	return fmt.Sprintf("bfd\n profile fast\n  transmit-interval %d\n  receive-interval %d\n  detect-multiplier 3\n", ms, ms)
}

// frrBGP is the configuration of bgpd.
func (c Config) frrBGP() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	for _, p := range c.accepted(true) {
		line("ip prefix-list VIP4 permit %v le 32", p)
	}
	for _, p := range c.accepted(false) {
		line("ipv6 prefix-list VIP6 permit %v le 128", p)
	}
	line("route-map IN permit 10\n match ip address prefix-list VIP4")
	line("route-map IN permit 20\n match ipv6 address prefix-list VIP6")
	line("route-map OUT deny 10")
	line("router bgp %d", c.ASN)
	line(" bgp router-id %v", c.RouterID)
	line(" no bgp default ipv4-unicast")
	line(" bgp bestpath as-path multipath-relax")
	if c.GracefulRestart {
		line(" bgp graceful-restart")
	} else {
		line(" bgp graceful-restart-disable")
	}
	for _, n := range c.Neighbors {
		c.frrNeighbor(line, n)
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		line(" address-family %s unicast", family)
		for _, n := range c.Neighbors {
			line("  neighbor %v activate", n.Address)
			line("  neighbor %v route-map IN in", n.Address)
			line("  neighbor %v route-map OUT out", n.Address)
		}
		line("  maximum-paths 16\n  maximum-paths ibgp 16\n exit-address-family")
	}
	return b.String()
}

func (c Config) frrNeighbor(line func(string, ...any), n Neighbor) {
	line(" neighbor %v remote-as %d", n.Address, n.ASN)
	line(" neighbor %v timers %d %d", n.Address, int(c.Hold.Seconds())/3, int(c.Hold.Seconds()))
	line(" neighbor %v timers connect 1", n.Address)
	if !n.Connect {
		line(" neighbor %v passive", n.Address)
	}
	if n.TTLSecurity {
		line(" neighbor %v ttl-security hops 1", n.Address)
	}
	if n.Multihop {
		line(" neighbor %v ebgp-multihop", n.Address)
	}
	if n.Password != "" {
		line(" neighbor %v password %s", n.Address, n.Password)
	}
	if c.BFDInterval != 0 {
		line(" neighbor %v bfd profile fast", n.Address)
	}
	if c.ExtendedNextHop && n.Address.Is6() {
		line(" neighbor %v capability extended-nexthop", n.Address)
	}
}
