// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"net/netip"

	"github.com/remora-lb/remora/lb"
)

// Balancer is a balancer to be examined. What is not known is zero.
type Balancer struct {
	*Machine
	Setup  Setup
	Plane  Plane
	Daemon Daemon
	Consul []ConsulRead
	// Places are where the balancer keeps what.
	Places Places
}

// Places are paths, and the name of the instance.
type Places struct {
	// File is the configuration's, BPFFS the mount point of the BPF file system, Pins the folder of the
	// instance in it, StateDir the folder of the daemon's own state, Socket that of the control API.
	File, BPFFS, Pins, StateDir, Socket string
	Instance                            string
}

// Setup is what a balancer is configured to do.
type Setup struct {
	// Problem says why the configuration cannot be used; all else is zero then.
	Problem string
	// Interface is where packets come in and go out. Mode is auto, native or generic.
	Interface, Mode string
	// FixedNextHop tells that routes and neighbours do not matter.
	FixedNextHop bool
	VIPs         []lb.VIP
	// Reals are those whose servers are in the file; only VIP, Backend and Tunnel are set.
	Reals []lb.Real
	// Probes are the VIPs that have health checks through the tunnel.
	Probes []lb.VIP
	// BGP tells whether VIPs are announced, to these routers.
	BGP   bool
	Peers []Peer
	// Claims tells that services of Consul may claim VIPs, Registers that the balancer registers itself.
	Claims, Registers bool
}

// Peer is a router that VIPs are announced to.
type Peer struct {
	Address, Source netip.Addr
	Port            uint16
	// Passive tells that the router connects; MD5, that the session has a key.
	Passive, MD5 bool
	// KeyFile holds the key.
	KeyFile string
}

// Plane is what the pinned data plane says, whether or not a daemon runs.
type Plane struct {
	// There tells that it was read; Err, if it was not, is why, and nil if there is none.
	There     bool
	Err       error
	Interface string
	// Generic tells that it is in generic mode, for ModeReason.
	Generic    bool
	ModeReason string
	// Writer is the process that writes to it; 0 if none does.
	Writer int
	VIPs   []lb.VIP
	Reals  []lb.Real
	// Reasons counts packets.
	Reasons [lb.ReasonLen]uint64
}

// Daemon is what the daemon says.
type Daemon struct {
	// Answers tells that it did; else Err is why it did not, and Cure what helps. Err is nil if it was
	// not asked, since there is none.
	Answers bool
	Err     error
	Cure    string
	// LastError is why its last pass failed.
	LastError string
	// Conflicts are contradictions in what it was told.
	Conflicts []string
	// Held are changes that it holds back, and answers that it refuses.
	Held          []Held
	Health        []Health
	Sessions      []Session
	Announcements []Announcement
}

// Held is an answer that is refused, or a change that is held back.
type Held struct{ Service, Rule, Sentence, Release string }

// Health is what the checks of a VIP's reals say.
type Health struct {
	VIP              lb.VIP
	Checked, Healthy int
	FailOpen         bool
	// Down are the reals that are down, or have a fault.
	Down []Sick
}

// Sick is a real that is down, or has a fault.
type Sick struct {
	Backend netip.Addr
	// Down tells that it is down. Reason is how its last probe ended, Fault the broken part of the
	// path by the names of healthcheck, and Detail the better of both for people.
	Down                  bool
	Reason, Fault, Detail string
}

// Session is a BGP session.
type Session struct {
	Peer             netip.Addr
	State, LastError string
}

// Announcement is how a VIP stands in BGP.
type Announcement struct {
	VIP       lb.VIP
	Announced bool
	Reason    string
}

// Examine makes all checks of a balancer.
func (b *Balancer) Examine(ctx context.Context) Report {
	return examine(ctx, b, []check[*Balancer]{
		{"machine", (*Balancer).checkKernel},
		{"machine", (*Balancer).checkProbes},
		{"machine", (*Balancer).checkPrivileges},
		{"machine", (*Balancer).checkBPF},
		{"machine", (*Balancer).checkBTF},
		{"machine", (*Balancer).checkJIT},
		{"machine", (*Balancer).checkBPFFS},
		{"machine", (*Balancer).checkMemlock},
		{"machine", (*Balancer).checkClock},
		{"daemon", (*Balancer).checkConfiguration},
		{"daemon", (*Balancer).checkDaemon},
		{"daemon", (*Balancer).checkSocket},
		{"daemon", (*Balancer).checkApply},
		{"daemon", (*Balancer).checkConflicts},
		{"daemon", (*Balancer).checkState},
		{"daemon", (*Balancer).checkUnit},
		{"interface", (*Balancer).checkInterface},
		{"interface", (*Balancer).checkHook},
		{"interface", (*Balancer).checkMode},
		{"interface", (*Balancer).checkXDPMTU},
		{"interface", (*Balancer).checkOffloads},
		{"interface", (*Balancer).checkQueues},
		{"interface", (*Balancer).checkInterrupts},
		{"interface", (*Balancer).checkRing},
		{"interface", (*Balancer).checkReversePath},
		{"interface", (*Balancer).checkForwarding},
		{"VIPs", (*Balancer).checkVIPsPlaced},
		{"VIPs", (*Balancer).checkVIPsLocal},
		{"VIPs", (*Balancer).checkVIPsServed},
		{"VIPs", (*Balancer).checkTraffic},
		{"reals", (*Balancer).checkNextHops},
		{"reals", (*Balancer).checkRealMTU},
		{"reals", (*Balancer).checkHealth},
		{"BGP", (*Balancer).checkSessions},
		{"BGP", (*Balancer).checkAnnouncements},
		{"Consul", (*Balancer).checkConsul},
		{"Consul", (*Balancer).checkHeld},
	})
}

// reals are those of the data plane, else those of the configuration.
func (b *Balancer) reals() []lb.Real {
	if b.Plane.There {
		return b.Plane.Reals
	}
	return b.Setup.Reals
}

// iface is the interface that is meant: the configuration's, else the data plane's.
func (b *Balancer) iface() string {
	if b.Setup.Interface != "" {
		return b.Setup.Interface
	}
	return b.Plane.Interface
}
