// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package nexthop

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/remora-lb/remora/lb"
	events "github.com/remora-lb/remora/lb/event"
)

// Defaults of Config.
const (
	DefaultRetryMin       = time.Second
	DefaultRetryMax       = 30 * time.Second
	DefaultStaleInterval  = 5 * time.Second
	DefaultResyncInterval = time.Minute
)

// Config is what a Watcher needs to know.
type Config struct {
	// Interface is the name of the interface that packets come in by and frames leave by. The
	// interface need not exist yet.
	Interface string
	// Fixed, if set, is the next hop of every address: routes and neighbours are then not looked
	// at. Its MTU 0 stands for that of the interface; with any other, the kernel is not asked at
	// all. Its MAC must be set and its Problem empty.
	Fixed *lb.NextHop
	// Log receives what goes wrong. Default: nothing is logged.
	Log *slog.Logger
	// Events receives changes of next hops. Default: they are written to Log.
	Events events.Sink
	// OnChange receives the next hops of all wanted addresses whenever one of them differs from
	// the last time. It is called from Run's goroutine and owns the map. Run does nothing else
	// until it returns. Default: nobody is told.
	OnChange func(map[netip.Addr]lb.NextHop)

	// RetryMin is the time between the first two attempts to have a missing neighbour resolved;
	// it doubles with every further one up to RetryMax. Defaults: 1 s and 30 s.
	RetryMin, RetryMax time.Duration
	// StaleInterval is the time between two attempts to have a stale neighbour confirmed; the
	// first is made as soon as it is stale. Default: 5 s.
	StaleInterval time.Duration
	// ResyncInterval is the time between two full reads of the kernel's state, made even if no
	// notification was lost. Default: 1 min.
	ResyncInterval time.Duration
}

// Validate reports all problems of the configuration, each with the name of its field.
func (c Config) Validate() error {
	var errs []error
	if c.Interface == "" {
		errs = append(errs, errors.New("Interface: is empty"))
	}
	if c.Fixed != nil {
		errs = append(errs, validateFixed(*c.Fixed)...)
	}
	for _, d := range []struct {
		field string
		value time.Duration
	}{
		{"RetryMin", c.RetryMin},
		{"RetryMax", c.RetryMax},
		{"StaleInterval", c.StaleInterval},
		{"ResyncInterval", c.ResyncInterval},
	} {
		if d.value < 0 {
			errs = append(errs, fmt.Errorf("%s: %v is negative", d.field, d.value))
		}
	}
	if d := c.withDefaults(); d.RetryMax < d.RetryMin {
		errs = append(errs, fmt.Errorf("RetryMax: %v is less than RetryMin, %v", d.RetryMax, d.RetryMin))
	}
	return errors.Join(errs...)
}

func validateFixed(n lb.NextHop) (errs []error) {
	if !n.Resolved() {
		errs = append(errs, errors.New("Fixed.MAC: is not set"))
	}
	if n.MTU < 0 {
		errs = append(errs, fmt.Errorf("Fixed.MTU: %d is negative", n.MTU))
	}
	if n.Problem != "" {
		errs = append(errs, fmt.Errorf("Fixed.Problem: %q is not empty", n.Problem))
	}
	return errs
}

// withDefaults fills in the fields that were left zero.
func (c Config) withDefaults() Config {
	for _, d := range []struct {
		field    *time.Duration
		fallback time.Duration
	}{
		{&c.RetryMin, DefaultRetryMin},
		{&c.RetryMax, max(DefaultRetryMax, c.RetryMin)},
		{&c.StaleInterval, DefaultStaleInterval},
		{&c.ResyncInterval, DefaultResyncInterval},
	} {
		if *d.field == 0 {
			*d.field = d.fallback
		}
	}
	if c.Fixed != nil {
		fixed := *c.Fixed // the caller may change its own
		c.Fixed = &fixed
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Events == nil {
		c.Events = events.ToLog(c.Log)
	}
	if c.OnChange == nil {
		c.OnChange = func(map[netip.Addr]lb.NextHop) {}
	}
	return c
}

// asksKernel tells whether anything is needed that only the kernel knows.
func (c Config) asksKernel() bool { return c.Fixed == nil || c.Fixed.MTU == 0 }
