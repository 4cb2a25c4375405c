// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/remora-lb/remora/lb/config"
	"github.com/remora-lb/remora/lb/discovery"
	"github.com/remora-lb/remora/lb/discovery/consul"
)

// drainLimit keeps this balancer from draining while too many others do. Its methods may be called from
// any goroutine.
type drainLimit struct {
	// acquire waits for the right to drain.
	acquire func(context.Context) (drainSlot, error)
	log     *slog.Logger

	mu   sync.Mutex // guards what follows
	slot drainSlot  // nil if this balancer has no right
}

// drainSlot is the right to drain: a consul.Slot, or a test's.
type drainSlot interface {
	Lost() <-chan struct{}
	Release() error
}

const (
	// drainWait is how long a drain waits for its right.
	drainWait = 5 * time.Second
	// drainRetry is the pause before a right that was lost is asked for again.
	drainRetry = 10 * time.Second
)

// newDrainLimit is nil if there is none.
func newDrainLimit(c config.Consul, log *slog.Logger) (*drainLimit, error) {
	if c.DrainLimit == nil {
		return nil, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("name this balancer: %v", err)
	}
	d := consul.DefaultDrainLimitConfig()
	d.Client, d.Prefix, d.Limit, d.Holder = discovery.ConsulClient(c), c.DrainLimit.Folder, c.DrainLimit.Balancers, host
	limit, err := consul.NewDrainLimit(d)
	if err != nil {
		return nil, fmt.Errorf("prepare the limit of drains: %v", err)
	}
	return &drainLimit{log: log, acquire: func(ctx context.Context) (drainSlot, error) { return limit.Acquire(ctx) }}, nil
}

// take gets the right to drain. A balancer that has it keeps it.
func (l *drainLimit) take(ctx context.Context) error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.slot != nil {
		return nil
	}
	waiting, cancel := context.WithTimeout(ctx, drainWait)
	defer cancel()
	slot, err := l.acquire(waiting)
	if err != nil && waiting.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("as many balancers as may drain at one time do so, or Consul did not say within %v", drainWait)
	}
	if err != nil {
		return err
	}
	l.slot = slot
	return nil
}

// give gives the right back.
func (l *drainLimit) give() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.slot == nil {
		return
	}
	if err := l.slot.Release(); err != nil {
		l.log.Warn("the right to drain ends by itself, later", "error", err)
	}
	l.slot = nil
}

// run keeps the right of a balancer that is drained, until ctx ends: it asks for it again after a start,
// and when it was lost. A drain goes on without: to announce VIPs again would help nobody.
func (l *drainLimit) run(ctx context.Context, drained func() bool) error {
	if l == nil {
		return nil
	}
	look := time.NewTicker(drainRetry)
	defer look.Stop()
	for {
		l.dropLost()
		if drained() {
			if err := l.take(ctx); err != nil && ctx.Err() == nil {
				l.log.Warn("this balancer is drained without the right to", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
	}
}

// dropLost forgets a right that Consul has taken back.
func (l *drainLimit) dropLost() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.slot == nil {
		return
	}
	select {
	case <-l.slot.Lost():
		l.slot = nil
	default:
	}
}
