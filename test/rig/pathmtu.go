// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"fmt"
	"net/netip"
)

// NarrowClient has the router send the client no IP packet of more than mtu bytes (1280 to 1500).
// The client's end of the cable stays as it is, so that the client goes on to announce segments
// that no longer get through, as when the narrow link is farther away. The client must not send
// longer packets either: the router's end of the cable drops them silently.
func (l *Lab) NarrowClient(mtu int) error {
	return l.Router.setMTU(routerClientInterface, mtu)
}

// PathMTU returns what the node's kernel knows of the longest IP packet, in bytes, that gets to an
// address: what it was told by ICMP, or what a route says; 0 if neither.
func (n *Node) PathMTU(to netip.Addr) (int, error) {
	routes, err := n.links.RouteGet(to.AsSlice())
	if err != nil {
		return 0, fmt.Errorf("find route to %s in %s: %v", to, n.Namespace, err)
	}
	if len(routes) != 1 {
		return 0, fmt.Errorf("find route to %s in %s: the kernel names %d", to, n.Namespace, len(routes))
	}
	return routes[0].MTU, nil
}
