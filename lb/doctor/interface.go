// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
)

// device is the interface, if it is known and there; if it is not, checkInterface says so.
func (b *Balancer) device() (Link, bool) {
	l, ok, err := b.link(b.iface())
	return l, err == nil && ok
}

func (b *Balancer) checkInterface(context.Context) []Finding {
	const id = "interface"
	name := b.iface()
	if name == "" {
		return nil // configuration says so
	}
	l, ok, err := b.link(name)
	switch {
	case err != nil:
		return []Finding{cannotTell(id, name, err, "netlink")}
	case !ok:
		return []Finding{fail(id, name, "there is no such interface in this network namespace; there are: %s", strings.Join(b.linkNames(), ", ")).
			cure("`interface:` in %s, or run doctor in the daemon's network namespace", b.Places.File)}
	case !l.Up:
		return []Finding{fail(id, name, "the interface is down").cure("ip link set dev %s up", name)}
	case !l.Carrier:
		return []Finding{fail(id, name, "the interface has no carrier").cure("look at cable, switch port and transceiver: ethtool %s", name)}
	case !l.Ethernet:
		return []Finding{fail(id, name, "the interface is no Ethernet: the packet program finds no frames that it knows").
			cure("`interface:` with an Ethernet interface in %s", b.Places.File)}
	case b.Plane.There && b.Plane.Interface != name:
		return []Finding{warn(id, name, "the data plane is on %s: the file was changed since the start", b.Plane.Interface).
			cure("systemctl restart remora")}
	}
	return []Finding{fine(id, name, "it is up, with an MTU of %d bytes", l.MTU)}
}

func (m *Machine) linkNames() (names []string) {
	links, err := m.Network.Links()
	if err != nil {
		return nil // the caller has just read them
	}
	for _, l := range links {
		names = append(names, l.Name)
	}
	return names
}

// checkHook looks whose program is on the interface.
func (b *Balancer) checkHook(context.Context) []Finding {
	const id = "xdp-hook"
	l, ok := b.device()
	if !ok {
		return nil
	}
	own, ownErr := uint32(0), error(nil)
	if b.Plane.There {
		own, ownErr = b.BPF.Pinned(path.Join(b.Places.Pins, "progs", "native"))
	}
	program := fmt.Sprintf("XDP program id %d", l.Program)
	if l.ProgramName != "" {
		program = fmt.Sprintf("XDP program %q (id %d)", l.ProgramName, l.Program)
	}
	free := fmt.Sprintf("bpftool net show dev %s; then bpftool link detach id ID, or ip link set dev %s xdp off; or use another interface",
		l.Name, l.Name)
	switch {
	case l.Program == 0 && b.Plane.There:
		return []Finding{fail(id, l.Name, "no XDP program is on the interface, although the data plane is there: no packet is forwarded").
			cure("systemctl restart remora")}
	case l.Program == 0 && b.Plane.Err != nil:
		return []Finding{fail(id, l.Name, "no XDP program is on the interface: no packet is forwarded").cure("systemctl restart remora")}
	case l.Program == 0:
		return []Finding{fine(id, l.Name, "no XDP program is on it: it is free")}
	case b.Plane.Err != nil:
		return []Finding{cannotTell(id, l.Name, fmt.Errorf("%s is on it, and whether it is remora's own cannot be read: %w",
			program, b.Plane.Err), "a data plane that can be read")}
	case !b.Plane.There:
		return []Finding{fail(id, l.Name, "another program is on the interface: %s. remora cannot attach", program).cure("%s", free)}
	case ownErr != nil:
		return []Finding{cannotTell(id, l.Name, fmt.Errorf("%s is on it, and remora's own cannot be read: %w", program, ownErr), "root")}
	case own != l.Program:
		return []Finding{fail(id, l.Name, "another program is on the interface: %s; remora's own has id %d and gets no packet", program, own).
			cure("%s", free)}
	}
	return []Finding{fine(id, l.Name, "remora's own %s is on it", program)}
}

// pageMTU is about the longest packet of which frame, headroom and the kernel's bookkeeping fit one
// page of 4096 bytes, as native mode demands.
const pageMTU = 3498

func (b *Balancer) checkMode(context.Context) []Finding {
	const id = "xdp-mode"
	l, ok := b.device()
	if !ok || !b.Plane.There || l.Program == 0 {
		return nil
	}
	object := l.Name
	switch {
	case !l.Generic:
		return []Finding{fine(id, object, "native mode: the driver runs the program")}
	case b.Setup.Mode == "generic":
		return []Finding{warn(id, object, "generic mode, because the file asks for it: several times slower than native").
			cure("`mode: auto` in %s, then systemctl restart remora", b.Places.File)}
	case l.MTU > pageMTU:
		return []Finding{warn(id, object, "generic mode, several times slower than native: %s", b.Plane.ModeReason).
			cure("ip link set dev %s mtu 3498 (or less), then systemctl restart remora", l.Name)}
	}
	return []Finding{warn(id, object, "generic mode, several times slower than native: %s", b.Plane.ModeReason).
		cure("a driver with native XDP and enough queues (ethtool -i %s, ethtool -l %s), LRO off (ethtool -K %s lro off); then "+
			"systemctl restart remora", l.Name, l.Name, l.Name)}
}

func (b *Balancer) checkXDPMTU(context.Context) []Finding {
	const id = "xdp-mtu"
	l, ok := b.device()
	switch {
	case !ok:
		return nil
	case l.MTU <= pageMTU:
		return []Finding{fine(id, l.Name, "packets of %d bytes fit a page, as native mode demands", l.MTU)}
	case b.Plane.There && l.Program != 0 && !l.Generic:
		return []Finding{fine(id, l.Name, "the driver takes packets of %d bytes in native mode", l.MTU)}
	}
	return []Finding{warn(id, l.Name, "packets of %d bytes do not fit a page: most drivers refuse native mode above about %d", l.MTU, pageMTU).
		cure("ip link set dev %s mtu %d", l.Name, pageMTU)}
}

// checkReversePath looks at what the host itself receives: XDP is not concerned.
func (b *Balancer) checkReversePath(context.Context) []Finding {
	const id = "rp-filter"
	l, ok := b.device()
	if !ok {
		return nil
	}
	n, err := b.setting(l.Name, "rp_filter")
	if err != nil {
		return []Finding{cannotTell(id, l.Name, err, "leave to read /proc/sys")}
	}
	if n != strict {
		return []Finding{fine(id, l.Name, "rp_filter is %d", n)}
	}
	for _, v := range b.Setup.Probes {
		if r, err := b.Network.Route(v.Addr); v.Addr.Is4() && err == nil && !r.uses(l.Name) {
			return []Finding{warn(id, l.Name, "rp_filter is strict, and the route to %s does not leave by %s: the answers to health checks "+
				"are dropped", v.Addr, l.Name).
				cure("%s, and likewise for net/ipv4/conf/all", sysctl(l.Name, "rp_filter", loose))}
		}
	}
	return []Finding{note(id, l.Name, "rp_filter is strict: forwarding is not concerned, but answers to health checks and routers "+
		"may be, if they come in by another interface than packets to their senders leave")}
}

// The values of rp_filter.
const (
	strict = 1
	loose  = 2
)

// uses tells whether one of the route's ways leaves by an interface.
func (r Route) uses(iface string) bool {
	return slices.ContainsFunc(r.Hops, func(h Hop) bool { return h.Link == iface })
}

func (b *Balancer) checkForwarding(context.Context) []Finding {
	const id = "ip-forward"
	n, err := b.number("/proc/sys/net/ipv4/ip_forward")
	switch {
	case err != nil:
		return []Finding{cannotTell(id, "", err, "leave to read /proc/sys")}
	case n != 0:
		return []Finding{note(id, "", "net.ipv4.ip_forward is on: remora does not need it, and the host routes what XDP passes").
			cure("sysctl -w net.ipv4.ip_forward=0, if nothing else needs it")}
	}
	return []Finding{fine(id, "", "net.ipv4.ip_forward is off: remora does not need it")}
}
