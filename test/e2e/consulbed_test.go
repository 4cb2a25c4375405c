// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
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

// consulBed is a bed whose balancer has its backends from Consul. Consul answers on a unix socket,
// which every namespace can reach.
type consulBed struct {
	*bed
	// socket is where Consul answers.
	socket string
}

func newConsulBed(t *testing.T, cfg rig.Config) *consulBed {
	t.Helper()
	b := newBed(t, cfg)
	b.startServers(t, ipv4)
	return &consulBed{bed: b, socket: filepath.Join(b.Dir, "consul.sock")}
}

// write writes the balancer's configuration: a service for both VIPs with the instances of web.
// Extra is added to the section about Consul, more to the file.
func (b *consulBed) write(t *testing.T, more string, extra ...string) {
	t.Helper()
	b.writeText(t, fmt.Sprintf(`interface: %s
consul: {addresses: ["unix://%s"], wait: 1s, overlay: remora/overlay/%s}
services:
  - name: web
    vips: [%s:80/tcp, "[%s]:80/tcp"]
    source: {consul: {service: web}}
%s`, rig.BalancerInterface, b.socket, strings.Join(extra, ""), vip4(), vip6(), more))
}

// startStandIn has a stand-in answer in place of Consul.
func (b *consulBed) startStandIn(t *testing.T) *consul.StandIn {
	t.Helper()
	s := consul.NewStandIn()
	t.Cleanup(s.Close)
	l, err := net.Listen("unix", b.socket)
	require.NoError(t, err)
	server := &http.Server{Handler: s}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return s
}

// startAgent runs a real Consul.
func (b *consulBed) startAgent(t *testing.T) (*consul.Agent, *api.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute) // it may have to be built
	defer cancel()
	binary, err := consul.Build(ctx)
	if err != nil && os.Getenv("REMORA_REQUIRE_ROOT") != "1" {
		t.Skipf("this test needs Consul: %v", err)
	}
	require.NoError(t, err)
	a, err := consul.Start(ctx, consul.Options{Binary: binary, Config: fmt.Sprintf("addresses { http = \"127.0.0.1 unix://%s\" }\n", b.socket)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, a.Close()) })
	c, err := a.Client("")
	require.NoError(t, err)
	return a, c
}

// entry is a server as a stand-in answers it.
func entry(n *rig.Node) *api.ServiceEntry {
	return &api.ServiceEntry{
		Node:    &api.Node{Node: n.Name, Address: n.IPv4.String()},
		Service: &api.AgentService{ID: "web", Service: "web", Port: 80, Weights: api.AgentWeights{Passing: 1, Warning: 1}},
		Checks:  api.HealthChecks{{CheckID: "serfHealth", Status: api.HealthPassing}},
	}
}

func entriesOf(servers []*rig.Node) (list []*api.ServiceEntry) {
	for _, n := range servers {
		list = append(list, entry(n))
	}
	return list
}

// launch starts the balancer, and waits until its maps are as wanted.
func (b *consulBed) launch(t *testing.T, want ...string) {
	t.Helper()
	b.launchDaemon(t)
	b.awaitMaps(t, "the first backends", want...)
}

// backends are backends as lines of mapLines.
func backends(use string, servers ...*rig.Node) (lines []string) {
	for _, n := range servers {
		lines = append(lines, n.IPv4.String()+" "+use)
	}
	return lines
}

// mapLines is what the pinned maps say, a line for each real of the first VIP: ADDRESS USE. The other
// VIP must have the same.
func (b *consulBed) mapLines(ctx context.Context) ([]string, error) {
	s, err := b.consulStatus(ctx)
	if err != nil {
		return nil, err
	}
	if s.DaemonPID != b.daemon.Pid() {
		return nil, fmt.Errorf("the status names process %d, not %d", s.DaemonPID, b.daemon.Pid())
	}
	var all [][]string
	for _, v := range s.VIPs {
		lines := []string{}
		for _, r := range v.Reals {
			lines = append(lines, r.Address+" "+r.Use)
		}
		slices.Sort(lines)
		all = append(all, lines)
	}
	if len(all) != 2 || !slices.Equal(all[0], all[1]) {
		return nil, fmt.Errorf("the VIPs have %q, not the same", all)
	}
	return all[0], nil
}

// awaitMaps waits until the maps are as wanted.
func (b *consulBed) awaitMaps(t *testing.T, what string, want ...string) {
	t.Helper()
	slices.Sort(want)
	waitFor(t, what, func() error {
		if err := b.daemon.Running(); err != nil {
			return err
		}
		got, err := b.mapLines(t.Context())
		if err == nil && !slices.Equal(got, want) {
			err = fmt.Errorf("the maps have %q, not %q", got, want)
		}
		return err
	})
}

// assertMaps demands that the maps are as wanted now.
func (b *consulBed) assertMaps(t *testing.T, what string, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got, err := b.mapLines(t.Context()); err != nil || !slices.Equal(got, want) {
		t.Errorf("%s: the maps have %q, not %q; error %v", what, got, want, err)
	}
}

// consulStatus is what is needed here of remora status --why -o json.
type consulStatus struct {
	DaemonPID int `json:"daemon_pid"`
	VIPs      []struct {
		VIP    string `json:"vip"`
		Digest string `json:"digest"`
		Reals  []struct {
			ID      uint32 `json:"id"`
			Address string `json:"address"`
			Weight  uint32 `json:"weight"`
			Use     string `json:"use"`
		} `json:"reals"`
	} `json:"vips"`
	Held struct {
		Holds []struct {
			Service, Rule, Object, Sentence, Release string
			Since, Until                             *time.Time
		} `json:"holds"`
		Refusals []struct{ Service, Object, Reason string } `json:"refusals"`
		Rules    []struct {
			Rule string
			Held string // a 64-bit number
		} `json:"rules"`
	} `json:"held"`
}

func (b *consulBed) consulStatus(ctx context.Context) (s consulStatus, err error) {
	command := b.remora.Status("-o", "json", "--interval", "0s", "--why", "--socket", b.remora.Socket())
	out, err := b.Balancers[0].Run(ctx, command[0], command[1:]...)
	if err == nil {
		err = json.Unmarshal([]byte(out), &s)
	}
	return s, err
}

// rule is how often a rule refused or held something, since the daemon's start.
func (s consulStatus) rule(name string) string {
	for _, r := range s.Held.Rules {
		if r.Rule == name {
			return r.Held
		}
	}
	return ""
}

// awaitRule waits until a rule has refused or held more than before.
func (b *consulBed) awaitRule(t *testing.T, rule, before string) {
	t.Helper()
	waitFor(t, "rule "+rule, func() error {
		s, err := b.consulStatus(t.Context())
		if err == nil && s.rule(rule) == before {
			err = fmt.Errorf("it held %q times, as before", before)
		}
		return err
	})
}

// awaitHeld waits until exactly these changes and answers are held, as RULE OBJECT.
func (b *consulBed) awaitHeld(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(want)
	waitFor(t, fmt.Sprintf("holds %q", want), func() error {
		s, err := b.consulStatus(t.Context())
		if err != nil {
			return err
		}
		var got []string
		for _, h := range s.Held.Holds {
			got = append(got, h.Rule+" "+h.Object)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			return fmt.Errorf("there are %q", got)
		}
		return nil
	})
}

// operate runs a verb that asks the daemon, and returns what it printed.
func (b *consulBed) operate(t *testing.T, verb ...string) string {
	t.Helper()
	command := b.remora.Control(verb...)
	out, err := b.Balancers[0].Run(within(t), command[0], command[1:]...)
	require.NoError(t, err)
	return strings.TrimSpace(out)
}

// ringsNow are all slots as they are in the maps, and the digests of the VIPs.
func (b *consulBed) ringsNow(t *testing.T) (slots map[string]string, digests []string) {
	t.Helper()
	all, err := (&crashBed{bed: b.bed}).readSlots()
	require.NoError(t, err)
	slots = make(map[string]string)
	for vip, ring := range all {
		var text strings.Builder
		for _, slot := range ring {
			fmt.Fprintf(&text, "%d ", slot.Cur())
		}
		slots[vip.String()] = text.String()
	}
	s, err := b.consulStatus(within(t))
	require.NoError(t, err)
	for _, v := range s.VIPs {
		digests = append(digests, v.VIP+" "+v.Digest)
	}
	return slots, digests
}
