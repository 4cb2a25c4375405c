// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"context"
	"time"

	"github.com/remora-lb/remora/lb/governor"
)

// Freeze keeps the backends of a service as they are for a time.
func (d *Discovery) Freeze(ctx context.Context, service, author, reason string, during time.Duration) (until time.Time, err error) {
	err = d.ask(ctx, func() error {
		now := time.Now()
		until = now.Add(during)
		r, err := d.governor.Freeze(service, governor.Freeze{Author: author, Reason: reason, Expiry: until}, now)
		d.operated(r, err)
		return err
	})
	return until, err
}

// Unfreeze ends a freeze.
func (d *Discovery) Unfreeze(ctx context.Context, service string) error {
	return d.ask(ctx, func() error {
		r, err := d.governor.Unfreeze(service, time.Now())
		d.operated(r, err)
		return err
	})
}

// Accept lets what is held of a service through, and returns how many changes that were.
func (d *Discovery) Accept(ctx context.Context, service string) (changes int, err error) {
	err = d.ask(ctx, func() error {
		r, err := d.governor.Accept(service, time.Now())
		for _, e := range r.Events {
			if e.Outcome == governor.Accepted {
				changes++
			}
		}
		d.operated(r, err)
		return err
	})
	return changes, err
}

// operated takes in what an operator's call did.
func (d *Discovery) operated(r governor.Result, err error) {
	if err == nil {
		d.note(r)
		d.unsaved = true
	}
}
