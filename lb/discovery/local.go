// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"context"
	"maps"
	"net/netip"
	"time"

	"github.com/remora-lb/remora/lb/governor"
)

// Verdicts are what the local checks find of the backends of a service, by address.
type Verdicts = map[string]map[netip.Addr]governor.Verdict

// localInterval is how often the governor hears of the local checks: what it holds is held for minutes.
const localInterval = time.Second

// FollowLocal tells the governor what the local checks find, until ctx ends: they confirm losses that
// it holds.
func (d *Discovery) FollowLocal(ctx context.Context, verdicts func() Verdicts) error {
	look := time.NewTicker(localInterval)
	defer look.Stop()
	var last Verdicts
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
		next := verdicts()
		if maps.EqualFunc(last, next, maps.Equal[map[netip.Addr]governor.Verdict, map[netip.Addr]governor.Verdict]) {
			continue
		}
		// The only error is that ctx has ended.
		_ = d.ask(ctx, func() error {
			d.setLocal(last, next, time.Now())
			return nil
		})
		last = next
	}
}

// setLocal replaces what the local checks found.
func (d *Discovery) setLocal(last, next Verdicts, now time.Time) {
	for service := range last {
		if next[service] == nil {
			d.note(d.governor.SetLocal(service, nil, now))
		}
	}
	for service, verdicts := range next {
		if !maps.Equal(last[service], verdicts) {
			d.note(d.governor.SetLocal(service, verdicts, now))
		}
	}
}
