// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package nexthop

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// neighbour is an entry of the kernel's neighbour table, without its address. The zero value
// stands for no entry.
type neighbour struct {
	mac   [6]byte // zero if unknown or not that of an Ethernet
	state nudState
}

// nudState is a state of neighbour unreachability detection, NUD_* of linux/neighbour.h.
type nudState uint16

func (s nudState) String() string {
	switch s {
	case netlink.NUD_NONE:
		return "none"
	case netlink.NUD_INCOMPLETE:
		return "incomplete"
	case netlink.NUD_REACHABLE:
		return "reachable"
	case netlink.NUD_STALE:
		return "stale"
	case netlink.NUD_DELAY:
		return "delay"
	case netlink.NUD_PROBE:
		return "probe"
	case netlink.NUD_FAILED:
		return "failed"
	case netlink.NUD_NOARP:
		return "noarp"
	case netlink.NUD_PERMANENT:
		return "permanent"
	}
	return fmt.Sprintf("state %#x", uint16(s))
}

// condition is what a neighbour's state means for its use.
type condition uint8

const (
	missing condition = iota // no link address that may be used
	stale                    // usable, but nobody is checking whether it still holds
	fresh                    // usable: known to hold, being checked, or fixed by the operator
)

func (n neighbour) condition() condition {
	if n.mac == [6]byte{} {
		return missing
	}
	switch n.state {
	case netlink.NUD_REACHABLE, netlink.NUD_DELAY, netlink.NUD_PROBE, netlink.NUD_PERMANENT, netlink.NUD_NOARP:
		return fresh
	case netlink.NUD_STALE:
		return stale
	}
	return missing
}

// problem is why a missing neighbour cannot be used.
func (n neighbour) problem(addr netip.Addr, iface string) string {
	state := n.state.String()
	const withoutMAC = netlink.NUD_INCOMPLETE | netlink.NUD_FAILED
	if n.mac == [6]byte{} && n.state&^withoutMAC != netlink.NUD_NONE {
		state += ", without a MAC address"
	}
	return fmt.Sprintf("no neighbour entry for %s on %s (%s)", addr, iface, state)
}

// neighbourOf translates an entry. ok is false for those that no route can lead to.
func neighbourOf(n *netlink.Neigh) (addr netip.Addr, entry neighbour, ok bool) {
	addr, ok = netip.AddrFromSlice(n.IP)
	if !ok || n.Family != netlink.FAMILY_V4 && n.Family != netlink.FAMILY_V6 || n.Flags&netlink.NTF_PROXY != 0 {
		return netip.Addr{}, neighbour{}, false
	}
	entry.state = nudState(n.State)
	if len(n.HardwareAddr) == len(entry.mac) {
		copy(entry.mac[:], n.HardwareAddr)
	}
	return addr.Unmap(), entry, true
}

func macText(mac [6]byte) string { return net.HardwareAddr(mac[:]).String() }
