// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package routers

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/remora-lb/remora/test/rig"
)

// protocol is the name or number under which ip(8) shows the routes of a router.
type protocol string

// kernelRoute is what `ip -j route` prints.
type kernelRoute struct {
	Dst      string
	Gateway  netip.Addr
	Via      struct{ Host netip.Addr }
	NextHops []struct {
		Gateway netip.Addr
		Via     struct{ Host netip.Addr }
	}
}

// kernel is the routing table of a node, as far as a router filled it.
type kernel struct {
	node  *rig.Node
	proto protocol
}

// routes lists the routes of a family.
func (k kernel) routes(ctx context.Context, v4 bool) ([]kernelRoute, error) {
	family := "-6"
	if v4 {
		family = "-4"
	}
	out, err := k.node.Run(ctx, "ip", "-j", family, "route", "show", "proto", string(k.proto))
	if err != nil {
		return nil, err
	}
	var routes []kernelRoute
	if strings.TrimSpace(out) == "" {
		return nil, nil
	}
	if err := json.Unmarshal([]byte(out), &routes); err != nil {
		return nil, fmt.Errorf("read routes of %s: %v", k.node.Name, err)
	}
	return routes, nil
}

// NextHops are the next hops of the route that the router gave its kernel for exactly this
// prefix, in their order; none if there is no such route.
func (k kernel) NextHops(ctx context.Context, p netip.Prefix) ([]netip.Addr, error) {
	routes, err := k.routes(ctx, p.Addr().Is4())
	if err != nil {
		return nil, err
	}
	var hops []netip.Addr
	for _, r := range routes {
		if r.Dst != p.String() && r.Dst != p.Addr().String() {
			continue
		}
		hops = append(hops, r.Gateway, r.Via.Host)
		for _, h := range r.NextHops {
			hops = append(hops, h.Gateway, h.Via.Host)
		}
	}
	hops = slices.DeleteFunc(hops, func(a netip.Addr) bool { return !a.IsValid() })
	slices.SortFunc(hops, netip.Addr.Compare)
	return hops, nil
}

// Count is how many routes of both families the router gave its kernel.
func (k kernel) Count(ctx context.Context) (int, error) {
	v4, err := k.routes(ctx, true)
	if err != nil {
		return 0, err
	}
	v6, err := k.routes(ctx, false)
	return len(v4) + len(v6), err
}

// beacon is a route that is of no use but to show that a Monitor sees changes.
const beacon = "203.0.113.255"

// Monitor watches changes of the routing table from now on.
func (k kernel) Monitor(ctx context.Context) (*Monitor, error) {
	p, err := k.node.Start("ip", "-ts", "monitor", "route")
	if err != nil {
		return nil, err
	}
	return &Monitor{p}, rig.WaitFor(ctx, "ip monitor", func() error {
		if strings.Contains(p.Output(), beacon) {
			return nil
		}
		if _, err := k.node.Run(ctx, "ip", "route", "replace", "blackhole", beacon); err != nil {
			return err
		}
		_, err := k.node.Run(ctx, "ip", "route", "del", "blackhole", beacon)
		return errors.Join(err, p.Running(), errors.New("it saw nothing yet"))
	})
}

// Monitor is a running watch of a node's routing table.
type Monitor struct{ process *rig.Process }

// Change is one change of the routing table.
type Change struct {
	Time    time.Time
	Deleted bool
	// Text is the route as ip(8) shows it.
	Text string
}

// Changes are the changes so far of the route for a prefix.
func (m *Monitor) Changes(p netip.Prefix) (changes []Change) {
	scanner := bufio.NewScanner(strings.NewReader(m.process.Output()))
	for scanner.Scan() {
		stamp, text, ok := strings.Cut(strings.TrimPrefix(scanner.Text(), "["), "] ")
		when, err := time.ParseInLocation("2006-01-02T15:04:05.000000", stamp, time.Local)
		if !ok || err != nil {
			continue
		}
		text, deleted := strings.CutPrefix(text, "Deleted ")
		first, _, _ := strings.Cut(text, " ")
		if first == p.String() || first == p.Addr().String() {
			changes = append(changes, Change{when, deleted, text})
		}
	}
	return changes
}
