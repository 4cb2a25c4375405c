// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package control serves the control API of a daemon on a unix socket, and is its client. The API is
// defined in lb/api; what stands behind it is a Daemon. The messages of the API meet the values of
// this package in translate.go only.
package control

import (
	"context"
	"io"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/remora-lb/remora/lb"
)

// Daemon is what the API asks and steers. All methods may be called from several goroutines at once,
// and return soon after ctx ends.
//
// An error that is an *Error reaches the caller as it is. Where it is CodeNotFound, the server adds
// what there is instead, from Status. Any other error is taken for a fault of the daemon, and logged.
type Daemon interface {
	// Status is what the data plane has now. The server does not change what it points to.
	Status(ctx context.Context) (Status, error)
	// Drain stops new flows to what the selection names, and gives its known flows time, or what is
	// configured for each VIP if that is 0. It returns the drains by VIP. CodeNotFound if the
	// selection names nothing.
	Drain(ctx context.Context, s Selection, timeout time.Duration) ([]Drain, error)
	// Undrain ends the drains of what the selection names, and returns which, by VIP. No drain is no
	// error. CodeNotFound if the selection names nothing.
	Undrain(ctx context.Context, s Selection) ([]lb.Target, error)
	// Drains are those of what the selection names, by VIP and backend, until they are ended by Undrain or
	// by a change of the configuration. None is no error. CodeNotFound if the selection names nothing; the
	// zero one is for all drains.
	Drains(ctx context.Context, s Selection) ([]Drain, error)
	// DrainNode takes the balancer out, or in again. CodeRefused if it announces nothing anyway.
	DrainNode(ctx context.Context, on bool) error
	// ExportState writes the history of the rings and the remembered flows.
	ExportState(ctx context.Context, w io.Writer) error
	// ImportState reads what ExportState wrote, to the end, and only then takes it over. If r fails,
	// nothing is taken over. Never two exports or imports are under way at once.
	ImportState(ctx context.Context, r io.Reader) (Imported, error)
	// Held is what is refused and held back of what dynamic sources say.
	Held(ctx context.Context) (Held, error)
	// Freeze keeps a service as it is, and returns the service's name and when that ends.
	Freeze(ctx context.Context, f Freeze) (service string, until time.Time, err error)
	// Unfreeze ends a freeze, and returns the service's name. CodeRefused if there is none.
	Unfreeze(ctx context.Context, service string) (string, error)
	// Accept lets what is held of a service through, and returns the service's name and how many
	// changes that were. CodeRefused if there are none, or the service is frozen.
	Accept(ctx context.Context, service string) (name string, changes int, err error)
	// Explain is a report in JSON. CodeNotFound if there is no such backend.
	Explain(ctx context.Context, q Explanation) (report []byte, err error)
}

// Selection names a backend: of one VIP, or, if VIP is zero, of all VIPs that have it. The zero Selection
// names all backends of all VIPs.
type Selection struct {
	VIP     lb.VIP
	Backend netip.Addr
}

// Names tells whether the selection names a target.
func (s Selection) Names(t lb.Target) bool {
	return s == Selection{} || s.Backend == t.Backend && (s.VIP == lb.VIP{} || s.VIP == t.VIP)
}

func (s Selection) String() string {
	if s.VIP == (lb.VIP{}) {
		return s.Backend.String()
	}
	return lb.Target{VIP: s.VIP, Backend: s.Backend}.String()
}

// Drain is how far the drain of a backend of one VIP is.
type Drain struct {
	lb.Target
	State DrainState
	// Since is when it began; Deadline, when the flows that are left are, or were, given to others.
	Since, Deadline time.Time
	// Slots counts the moving slots that the real had before.
	Slots int
	// Flows counts the remembered flows; Active, those of them that had a packet within ActiveTime. After the
	// deadline both are as they were then.
	Flows, Active int
}

// DrainState is how a drain stands. After the deadline it stays so.
type DrainState uint8

// The states of a drain.
const (
	// DrainRunning had active flows lately, or that is not known yet, and its deadline has not come.
	DrainRunning DrainState = iota
	// DrainDone has no active flow, or had none when the deadline came. Known flows stay until then, and if one
	// of them wakes, the drain runs again.
	DrainDone
	// DrainExpired had active flows at the deadline, which were given to others, or may have had, as there was
	// no daemon.
	DrainExpired
	// DrainEnded was ended before. A Daemon leaves such drains out.
	DrainEnded
)

// ActiveTime is how long ago the last packet of an active flow was, at most.
const ActiveTime = time.Minute

// Imported says what of an imported document was used.
type Imported struct {
	// Rings got the document's history. RingsSkipped are not here, or are of another size or hash;
	// their flows do not count below.
	Rings, RingsSkipped int
	// Flows were not remembered before. FlowsSkipped were, or name a backend that is not here, or
	// found no room.
	Flows, FlowsSkipped int
}

// DefaultSocket is where the daemon of an instance serves the API.
func DefaultSocket(instance string) string {
	return filepath.Join("/run/remora", instance+".sock")
}
