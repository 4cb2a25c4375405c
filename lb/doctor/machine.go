// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"io/fs"
	"net/netip"
)

// Machine is what is read of the machine that the checks run on. Package machine reads the real
// one. Errors wrap fs.ErrPermission if privileges are missing, and errors.ErrUnsupported if the
// kernel or the driver does not know what was asked.
type Machine struct {
	// Files is the file system from its root: names begin without a slash.
	Files   fs.FS
	Network Network
	Driver  Driver
	System  System
	BPF     BPF
	// PacketFilter is the rules of nftables as `nft list ruleset` prints them.
	PacketFilter func(context.Context) (string, error)
	// Connect opens a TCP connection and closes it again. An invalid address of from, or port 0, is
	// left to the kernel.
	Connect func(ctx context.Context, from, to netip.AddrPort) error
}

// Network is the kernel's network configuration.
type Network interface {
	Links() ([]Link, error)
	Addresses() ([]Address, error)
	// Route is where packets to an address go. A route that leads nowhere is no error.
	Route(dst netip.Addr) (Route, error)
	// DefaultRoutes are the ways of the default routes of a family.
	DefaultRoutes(ipv6 bool) ([]Route, error)
	// Neighbour is the entry of an address on a link; the zero value if there is none.
	Neighbour(link int, addr netip.Addr) (Neighbour, error)
	// GUEPorts are the UDP ports on which the kernel itself unwraps GUE.
	GUEPorts() ([]uint16, error)
}

// Link is a network interface.
type Link struct {
	Index int
	Name  string
	// Type is as ip-link(8) has it: veth, vlan, bridge, ipip, ip6tnl, sit; device for hardware.
	Type string
	// Parent is the index of the link below, 0 if there is none.
	Parent                int
	Up, Carrier, Ethernet bool
	// MTU is in bytes.
	MTU int
	// Program is the id of the XDP program on it, 0 if there is none; ProgramName, if it is known.
	Program     uint32
	ProgramName string
	// Generic tells that the program runs in generic mode.
	Generic bool
	// Remote is the other end of a tunnel, invalid if it takes packets of any.
	Remote netip.Addr
}

// Address is an address of an interface.
type Address struct {
	Link   string
	Prefix netip.Prefix
	// Scope is global, site, link, host or nowhere.
	Scope string
	// Tentative and Duplicate tell that IPv6 does not use the address yet, or at all, because another
	// machine might have it, or has.
	Tentative, Duplicate bool
}

// Route is where packets go.
type Route struct {
	// Problem says why they go nowhere; empty if they go somewhere.
	Problem string
	// Hops are the ways, several for ECMP.
	Hops []Hop
	// MTU and AdvMSS are the route's own, in bytes; 0 if it sets none.
	MTU, AdvMSS int
}

// Hop is one way of a route.
type Hop struct {
	// Link is the name of the interface.
	Link string
	// Gateway is invalid if the destination is on the link.
	Gateway netip.Addr
}

// Neighbour is an entry of the neighbour table.
type Neighbour struct {
	// State is as ip-neighbour(8) has it; empty if there is no entry.
	State string
	// MAC is empty if it is not known.
	MAC string
}

// Driver is what ethtool tells of an interface.
type Driver interface {
	// Name is the driver's.
	Name(iface string) (string, error)
	// Features are those that can be switched, by ethtool's long names, and whether they are on.
	Features(iface string) (map[string]bool, error)
	// Queues is how many receive queues there are, and can be.
	Queues(iface string) (now, most int, err error)
	// Ring is how many packets a receive queue holds, and can hold.
	Ring(iface string) (now, most int, err error)
}

// System is the rest of the machine.
type System interface {
	// Release is the kernel's, as uname -r prints it.
	Release() (string, error)
	CPUs() int
	// ClockSynchronised tells whether the kernel's clock is disciplined.
	ClockSynchronised() (bool, error)
	// FileSystem is the one that path is on.
	FileSystem(path string) (FileSystem, error)
	// Owner is whom a file belongs to.
	Owner(path string) (Owner, error)
}

// FileSystem is where files are.
type FileSystem struct {
	// BPF tells that it is one of pinned BPF objects.
	BPF, ReadOnly bool
	// FreeBytes is what others than root may still write.
	FreeBytes uint64
}

// Owner is whom a file belongs to, and what others may do.
type Owner struct {
	UID, GID uint32
	// Mode has the permission bits.
	Mode fs.FileMode
}

// BPF is what the kernel tells of its programs.
type BPF interface {
	// Usable is nil if this process can use BPF.
	Usable() error
	// Pinned is the id of a program that is pinned.
	Pinned(path string) (uint32, error)
	// Decapsulator reads what a program of `remora decap` accepts.
	Decapsulator(program uint32) (Decapsulator, error)
}

// Decapsulator is what `remora decap` accepts.
type Decapsulator struct {
	// Addresses are outer destinations.
	Addresses []netip.Addr
	// VIPs are inner destinations; all if it is empty.
	VIPs []netip.Addr
}

// link is the one of this name; ok is false if there is none.
func (m *Machine) link(name string) (l Link, ok bool, err error) {
	links, err := m.Network.Links()
	if err != nil {
		return Link{}, false, err
	}
	for _, l := range links {
		if l.Name == name {
			return l, true, nil
		}
	}
	return Link{}, false, nil
}
