// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"slices"
	"strconv"

	"github.com/remora-lb/remora/lb"
)

// checkVIPsPlaced compares the configuration with the data plane.
func (b *Balancer) checkVIPsPlaced(context.Context) (found []Finding) {
	const id = "vip-loaded"
	if !b.Plane.There || b.Setup.Problem != "" {
		return nil
	}
	for _, v := range b.Setup.VIPs {
		if !slices.Contains(b.Plane.VIPs, v) {
			found = append(found, fail(id, v.String(), "it is in the file and not in the data plane: its packets are not forwarded").
				cure("systemctl reload remora; if that is refused, the log says why: journalctl -u remora"))
		}
	}
	if len(found) == 0 {
		found = append(found, fine(id, "", "all VIPs of the file are in the data plane (%d)", len(b.Setup.VIPs)))
	}
	return found
}

// vips are those of the file and of the data plane.
func (b *Balancer) vips() []lb.VIP {
	all := slices.Concat(b.Setup.VIPs, b.Plane.VIPs)
	slices.SortFunc(all, lb.VIP.Compare)
	return slices.Compact(all)
}

// checkVIPsLocal finds VIPs that the host holds for its own.
func (b *Balancer) checkVIPsLocal(context.Context) (found []Finding) {
	const id = "vip-local"
	addresses, err := b.Network.Addresses()
	if err != nil {
		return []Finding{cannotTell(id, "", err, "netlink")}
	}
	for _, v := range b.vips() {
		if b.servedHere(v) {
			continue
		}
		for _, a := range addresses {
			if !v.Prefix().Contains(a.Prefix.Addr()) {
				continue
			}
			cure := "ip address del " + a.Prefix.String() + " dev " + a.Link
			if slices.Contains(b.Setup.Probes, v) {
				found = append(found, fail(id, v.String(), "the address is on %s of this balancer: health checks through the tunnel never "+
					"leave the host", a.Link).
					cure("%s", cure))
				continue
			}
			found = append(found, warn(id, v.String(), "the address is on %s of this balancer: what XDP passes, and all of its own "+
				"connections to the VIP, is taken locally", a.Link).
				cure("%s", cure))
		}
	}
	if len(found) == 0 {
		found = append(found, fine(id, "", "no VIP is an address of this host that others serve"))
	}
	return found
}

// servedHere tells whether this machine is itself a server of the VIP.
func (b *Balancer) servedHere(v lb.VIP) bool {
	return slices.ContainsFunc(b.reals(), func(r lb.Real) bool { return r.VIP == v && r.Tunnel.Encap == lb.Local })
}

// checkVIPsServed demands a real that gets new flows for each VIP.
func (b *Balancer) checkVIPsServed(context.Context) (found []Finding) {
	const id = "vip-reals"
	if !b.Plane.There {
		return nil // nothing can be said of servers that Consul names
	}
	served := 0
	for _, v := range b.Plane.VIPs {
		known, active := 0, 0
		for _, r := range b.Plane.Reals {
			if r.VIP == v {
				known++
				if r.Use == lb.RealActive && r.Backend.Weight > 0 {
					active++
				}
			}
		}
		switch {
		case known == 0:
			found = append(found, fail(id, v.String(), "it has no reals: packets are dropped as ring_empty").
				cure("`backends:` of its service in %s; with `source: consul`: remora status --why", b.Places.File))
		case active == 0:
			found = append(found, fail(id, v.String(), "none of its %d reals gets new connections: all are draining, retired or of weight 0", known).
				cure("remora status --why; then remora undrain, a weight above 0, or mend the servers"))
		default:
			served++
		}
	}
	if len(found) == 0 {
		found = append(found, fine(id, "", "%d VIPs have reals that get new connections", served))
	}
	return found
}

// checkTraffic tells whether packets come, and why some are dropped.
func (b *Balancer) checkTraffic(context.Context) (found []Finding) {
	const id = "traffic"
	if !b.Plane.There {
		return nil
	}
	seen, dropped := uint64(0), []string{}
	for r, n := range b.Plane.Reasons {
		seen += n
		if reason := lb.Reason(r); reason.Verdict() == lb.Drop && n > 0 {
			dropped = append(dropped, reason.String()+" "+strconv.FormatUint(n, 10))
		}
	}
	forwarded := b.Plane.Reasons[lb.ReasonForwarded]
	if len(dropped) > 0 {
		found = append(found, note(id, "", "since the maps were made, %d packets were forwarded, and dropped: %s", forwarded, some(dropped)).
			cure("docs/packet-path.md says when each reason is given; remora status counts them"))
	}
	if forwarded == 0 && len(b.Plane.VIPs) > 0 {
		found = append(found, note(id, "", "no packet was forwarded yet; the program saw %d packets for others: does the router send the VIPs here?",
			seen).
			cure("BGP (docs/bgp.md), or a route for each VIP by way of this balancer in the router"))
	}
	if len(found) == 0 {
		found = append(found, fine(id, "", "%d packets were forwarded, none dropped", forwarded))
	}
	return found
}
