// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/remora-lb/remora/test/rig"
	"github.com/remora-lb/remora/test/routers"
)

// The AS numbers of the demonstration; the balancers' follow each other.
const (
	routerASN   = 65000
	balancerASN = 65001
)

// fleet is two balancers, and a router that learns from them where the VIPs are.
type fleet struct {
	frr       *routers.FRR
	remoras   [2]rig.Remora
	balancers [2]*rig.Process
}

// bgpSteps are those of the demonstration with BGP.
func (d *demo) bgpSteps() []func(context.Context) error {
	f := new(fleet)
	return []func(context.Context) error{
		d.buildNetwork,
		d.startServers,
		func(ctx context.Context) error { return d.startFRR(ctx, f) },
		func(ctx context.Context) error { return d.startFleet(ctx, f) },
		d.sendRequests,
		func(ctx context.Context) error { return d.drainBalancer(ctx, f) },
		func(ctx context.Context) error { return d.killBalancer(ctx, f) },
	}
}

func (d *demo) startFRR(ctx context.Context, f *fleet) (err error) {
	d.say("Start FRR on the router. There are two balancers here, lb1 and lb2; it shares packets over those that announce the VIPs.")
	if !routers.FRRInstalled() {
		return errors.New("FRR is not installed; on Debian: apt-get install frr")
	}
	cfg := routers.Config{ASN: routerASN, RouterID: netip.MustParseAddr("10.255.0.1"), Accept: prefixes()}
	for i, lb := range d.lab.Balancers {
		for _, a := range []netip.Addr{lb.IPv4, lb.IPv6} {
			cfg.Neighbors = append(cfg.Neighbors, routers.Neighbor{Address: a, ASN: balancerASN + uint32(i)})
		}
	}
	for _, p := range prefixes() { // the lab's own
		if _, err := d.lab.Router.Run(ctx, "ip", "route", "del", p.String()); err != nil {
			return err
		}
	}
	f.frr, err = routers.StartFRR(ctx, d.lab, d.lab.Router, cfg)
	return err
}

// prefixes are those that balancers announce.
func prefixes() (list []netip.Prefix) {
	for _, vip := range vips() {
		list = append(list, netip.PrefixFrom(vip, vip.BitLen()))
	}
	return list
}

func (d *demo) startFleet(ctx context.Context, f *fleet) error {
	d.say("Start both balancers, with a copy of %s and a section bgp.", d.opts.config)
	for i, lb := range d.lab.Balancers {
		f.remoras[i] = d.remora
		if i > 0 {
			f.remoras[i].Instance += "-" + lb.Name
			d.lab.OnClose(f.remoras[i].RemovePins)
			if err := f.remoras[i].RemovePins(); err != nil { // what an interrupted run has left
				return err
			}
		}
		if err := d.startMember(f, i, lb); err != nil {
			return err
		}
	}
	d.balancer = f.balancers[0]
	begin := time.Now()
	if err := d.awaitRoutes(ctx, f, d.lab.Balancers...); err != nil {
		return d.fail("both balancers announce the VIPs", err)
	}
	if err := d.showRoute(ctx); err != nil {
		return err
	}
	d.pass("both balancers announce the VIPs", "the router shares them by ECMP after %.1f s", time.Since(begin).Seconds())
	return nil
}

// startMember starts balancer i.
func (d *demo) startMember(f *fleet, i int, lb *rig.Node) error {
	text, err := os.ReadFile(d.opts.config)
	if err != nil {
		return fmt.Errorf("read configuration: %v", err)
	}
	section := fmt.Sprintf("bgp:\n  asn: %d\n  router_id: %v\n  announce: {drain: 2s, withdraw: 1s}\n  peers:\n", balancerASN+i, lb.IPv4)
	for _, a := range []netip.Prefix{netip.PrefixFrom(lb.IPv4, 24), netip.PrefixFrom(lb.IPv6, 64)} {
		section += fmt.Sprintf("    - {address: %q, asn: %d, hold: 3s, connect_retry: 1s}\n", a.Masked().Addr().Next(), routerASN)
	}
	config := filepath.Join(d.lab.Dir, lb.Name+".yaml")
	if err := os.WriteFile(config, append(text, "\n"+section...), 0o600); err != nil {
		return fmt.Errorf("write configuration: %v", err)
	}
	if i == 0 {
		d.config = config
		d.quote(section)
	}
	command := f.remoras[i].Run(config)
	d.show(lb, command...)
	f.balancers[i], err = lb.Start(command[0], command[1:]...)
	return err
}

// awaitRoutes waits until the router sends both VIPs to these balancers, and to no others.
func (d *demo) awaitRoutes(ctx context.Context, f *fleet, balancers ...*rig.Node) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for _, p := range prefixes() {
		var want []netip.Addr
		for _, lb := range balancers {
			if p.Addr().Is4() {
				want = append(want, lb.IPv4)
			} else {
				want = append(want, lb.IPv6)
			}
		}
		if err := rig.WaitFor(ctx, fmt.Sprintf("a route for %v", p), func() error {
			hops, err := f.frr.NextHops(ctx, p)
			if err == nil && !slices.Equal(hops, want) {
				err = fmt.Errorf("its next hops are %v", hops)
			}
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) showRoute(ctx context.Context) error {
	out, err := d.run(ctx, d.lab.Router, "ip", "route", "show", vip4)
	d.quote(out)
	return err
}

func (d *demo) drainBalancer(ctx context.Context, f *fleet) error {
	const what = "a drained balancer loses no request"
	d.say("Take lb1 out while requests run: the router is asked to prefer others, then the routes are withdrawn.")
	made, lost, err := d.during(ctx, func() error {
		out, err := d.run(ctx, d.lab.Balancers[0], f.remoras[0].Control("drain", "--node", "--wait")...)
		if err != nil {
			return err
		}
		d.quote(out)
		if err := d.awaitRoutes(ctx, f, d.lab.Balancers[1]); err != nil {
			return err
		}
		return d.showRoute(ctx)
	})
	if err == nil && lost > 0 {
		err = fmt.Errorf("%d of %d requests were lost", lost, made)
	}
	if err != nil {
		return d.fail(what, err)
	}
	d.pass(what, "%d requests, none lost", made)
	d.explain("and take it in again:")
	if _, err := d.run(ctx, d.lab.Balancers[0], f.remoras[0].Control("undrain", "--node")...); err != nil {
		return d.fail("the balancer comes back", err)
	}
	if err := d.awaitRoutes(ctx, f, d.lab.Balancers...); err != nil {
		return d.fail("the balancer comes back", err)
	}
	d.pass("the balancer comes back", "the router shares the packets over both again")
	return nil
}

func (d *demo) killBalancer(ctx context.Context, f *fleet) error {
	const what = "a killed balancer's routes go"
	d.say("Kill the daemon of lb2 while requests run. Its packet program goes on; the router takes its routes out.")
	var took time.Duration
	made, lost, err := d.during(ctx, func() error {
		d.show(nil, "kill", "-9", fmt.Sprint(f.balancers[1].Pid()))
		begin := time.Now()
		if err := f.balancers[1].Kill(); err != nil {
			return err
		}
		if err := d.awaitRoutes(ctx, f, d.lab.Balancers[0]); err != nil {
			return err
		}
		took = time.Since(begin)
		return d.showRoute(ctx)
	})
	if err != nil {
		return d.fail(what, err)
	}
	d.pass(what, "after %.1f s; %d of %d requests were lost", took.Seconds(), lost, made)
	lb := d.lab.Balancers[0]
	out, err := d.run(ctx, lb, f.remoras[0].Status("--socket", f.remoras[0].Socket())...)
	if err != nil {
		return d.fail("the balancer says what it announces", err)
	}
	_, bgp, _ := strings.Cut(out, "\nBGP ")
	d.quote("BGP " + bgp)
	return nil
}

// during runs do while requests are made, and counts them and those that were lost.
func (d *demo) during(ctx context.Context, do func() error) (made, lost int, err error) {
	stop := filepath.Join(d.lab.Dir, fmt.Sprintf("stop-%d", d.step))
	loop := fmt.Sprintf("i=0; while [ ! -e %s ] && [ $i -lt 20000 ]; do i=$((i+1)); curl -sS --fail --max-time 3 -o /dev/null '%s' && echo ok || echo lost; done", stop, url(vips()[0], "/"))
	p, err := d.lab.Client.Start("sh", "-c", loop)
	if err != nil {
		return 0, 0, err
	}
	err = errors.Join(d.more(ctx, p), do(), d.more(ctx, p), os.WriteFile(stop, nil, 0o600))
	select {
	case <-p.Done():
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	lost = strings.Count(p.Output(), "lost\n")
	return strings.Count(p.Output(), "ok\n") + lost, lost, err
}

// more waits until a loop has made some more requests.
func (d *demo) more(ctx context.Context, p *rig.Process) error {
	before := strings.Count(p.Output(), "ok\n")
	return rig.WaitFor(ctx, "requests", func() error {
		if strings.Count(p.Output(), "ok\n") < before+10 {
			return errors.New("there are none")
		}
		return nil
	})
}
