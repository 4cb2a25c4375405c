// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/event"
)

// Config is how an engine works. Start from DefaultConfig: a zero time means something of its own.
type Config struct {
	// Log receives problems and steps; nil discards them.
	Log *slog.Logger
	// Events receives changes of state; nil writes them to Log.
	Events event.Sink
	// Adopted is what a previous run left in the data plane. The zero value means that the data
	// plane is empty.
	Adopted Adopted
	// Sources names the sources of backends that must have called SetBackends, beside a call of
	// SetServices, before anything adopted is changed or removed.
	Sources []string
	// Settle is the time after the start at which the wait for Sources ends. Default 10 s; 0 does
	// not wait.
	Settle time.Duration
	// Window is for how long a change of a ring is remembered: within it no flow that pauses for less
	// is moved by the change. Default 15 minutes; more than 0.
	Window time.Duration
	// SweepInterval is the time between two looks over the flow table, while there is a reason for
	// them. Default 5 s; 0 means never, and then no slot that changed becomes stable again.
	SweepInterval time.Duration
	// Quarantine is how long the id of a deleted real is not given to another one. Default 15
	// minutes, the window for which flows are remembered: until then a flow remembered here or on
	// another balancer may name the id, and would be sent to a stranger. 0 does not wait.
	Quarantine time.Duration
	// RepairInterval is the time between two passes that write everything again, whether it changed
	// or not. Default 1 minute; 0 means never.
	RepairInterval time.Duration
	// OnMemory is called after a pass that succeeded with what is to be remembered over a restart,
	// where that is not what it was called with last. It must not block. Default: nothing is
	// remembered but what the data plane holds.
	OnMemory func(*Memory)
	// Retry says when a failed pass is made again.
	Retry Retry
}

// Retry is when failed passes are made again. The delay doubles from Min to Max, and each is
// shortened at random by up to a half, so that balancers that failed together do not retry together.
type Retry struct {
	// Min is the delay after the first failure. Default 100 ms; more than 0.
	Min time.Duration
	// Max bounds the delay. Default 30 s; at least Min.
	Max time.Duration
	// Attempts is the number of passes that may fail in a row before Sync gives up; Run never
	// does. Default 5; at least 1.
	Attempts int
}

// Adopted is what a previous run left in the data plane. Those rings that VIPs name are written
// again; a ring that no VIP names is no longer there.
type Adopted struct {
	Reals []lb.Real
	VIPs  []lb.VIPEntry
	// Slots returns a ring's slots as they are. They tell which of them were changing, where Memory
	// does not. Required if there are VIPs.
	Slots func(lb.RingID) []lb.Slot
	// Memory is what the previous run remembered beside the data plane, if it could be read.
	Memory *Memory
}

// DefaultConfig is the configuration with all defaults and nothing adopted.
func DefaultConfig() Config {
	return Config{
		Settle:         10 * time.Second,
		Window:         15 * time.Minute,
		SweepInterval:  5 * time.Second,
		Quarantine:     15 * time.Minute,
		RepairInterval: time.Minute,
		Retry:          Retry{Min: 100 * time.Millisecond, Max: 30 * time.Second, Attempts: 5},
	}
}

// Validate reports all problems, each with the path of its field.
func (c Config) Validate() error {
	var errs []error
	problem := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Settle < 0 {
		problem("Settle: %v is negative", c.Settle)
	}
	if c.Window <= 0 {
		problem("Window: %v is not more than 0", c.Window)
	}
	if c.SweepInterval < 0 {
		problem("SweepInterval: %v is negative", c.SweepInterval)
	}
	if c.Quarantine < 0 {
		problem("Quarantine: %v is negative", c.Quarantine)
	}
	if c.RepairInterval < 0 {
		problem("RepairInterval: %v is negative", c.RepairInterval)
	}
	if c.Retry.Min <= 0 {
		problem("Retry.Min: %v is not more than 0", c.Retry.Min)
	}
	if c.Retry.Max < c.Retry.Min {
		problem("Retry.Max: %v is less than Retry.Min", c.Retry.Max)
	}
	if c.Retry.Attempts < 1 {
		problem("Retry.Attempts: %d is less than 1", c.Retry.Attempts)
	}
	return errors.Join(append(errs, c.Adopted.validate())...)
}

// validate refuses ids that cannot be, and ids that two have.
func (a Adopted) validate() error {
	var errs []error
	reals := make(map[lb.RealID]bool)
	for i, r := range a.Reals {
		switch {
		case r.ID == 0 || r.ID > lb.MaxRealID:
			errs = append(errs, fmt.Errorf("Adopted.Reals[%d].ID: %d is not 1 to %d", i, r.ID, lb.MaxRealID))
		case reals[r.ID]:
			errs = append(errs, fmt.Errorf("Adopted.Reals[%d].ID: %d is there twice", i, r.ID))
		}
		reals[r.ID] = true
	}
	if len(a.VIPs) > 0 && a.Slots == nil {
		errs = append(errs, errors.New("Adopted.Slots: is nil, but there are VIPs"))
	}
	vips, rings := make(map[lb.VIP]bool), make(map[lb.RingID]bool)
	for i, v := range a.VIPs {
		if vips[v.VIP] {
			errs = append(errs, fmt.Errorf("Adopted.VIPs[%d].VIP: %s is there twice", i, v.VIP))
		}
		if rings[v.RingID] {
			errs = append(errs, fmt.Errorf("Adopted.VIPs[%d].RingID: %d is there twice", i, v.RingID))
		}
		vips[v.VIP], rings[v.RingID] = true, true
	}
	return errors.Join(errs...)
}
