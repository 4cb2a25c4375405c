// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"fmt"
	"time"

	"github.com/remora-lb/remora/lb/discovery/consul"
	"github.com/remora-lb/remora/lb/governor"
)

// The parts of what cannot be used that are not about one service.
const (
	overlayKey = "overlay of Consul"
	claimsKey  = "claims in Consul"
)

// readOverlay takes in operators' overrides. Of a folder that cannot be read, or not all of it, the
// last reading counts.
func (d *Discovery) readOverlay(p *consul.Pairs, now time.Time) {
	if problem := p.Problem(); problem != "" {
		d.refuse(overlayKey, []Refusal{{Object: p.Prefix, Reason: problem + "; the overrides that are known stay"}})
		return
	}
	overlay, bad := consul.ParseOverlay(p.Pairs)
	var refused []Refusal
	for _, b := range bad {
		refused = append(refused, Refusal{Object: p.Prefix + b.Key, Reason: b.Reason})
	}
	d.refuse(overlayKey, refused)
	d.setOverlay(overlay, now)
}

// setOverlay makes these the overrides. What they say of backends is judged like all that Consul
// says.
func (d *Discovery) setOverlay(o consul.Overlay, now time.Time) {
	d.overlay, d.overlayEnds = o, o.NextExpiry(now)
	d.freezeOverlaid(now)
	for service := range d.overlaid {
		if _, frozen := o.Frozen(service, now); frozen {
			continue
		}
		delete(d.overlaid, service)
		d.unsaved = true
		// The only error is that it has ended by itself.
		if r, err := d.governor.Unfreeze(service, now); err == nil {
			d.note(r)
		}
	}
	d.again(now)
}

// freezeOverlaid freezes what the overlay says, but no service that is not known yet: a balancer that
// is new would be left without backends.
func (d *Discovery) freezeOverlaid(now time.Time) {
	for _, one := range d.overlay {
		o, frozen := d.overlay.Frozen(one.Service, now)
		s, _ := d.governor.Service(governor.Key{Source: ConsulSource, Service: one.Service})
		if frozen && s.Known {
			d.freezeByOverlay(o, now)
		}
	}
}

func (d *Discovery) freezeByOverlay(o consul.Override, now time.Time) {
	want := governor.Freeze{Author: fmt.Sprintf("%s (%s)", o.Author, o.Key), Reason: o.Reason, Expiry: o.Expires}
	if is, ok := d.governor.Frozen()[o.Service]; ok && is.Author == want.Author && is.Reason == want.Reason && is.Expiry.Equal(want.Expiry) {
		return
	} else if ok && !d.overlaid[o.Service] && is.Expiry.After(want.Expiry) {
		return // an operator's, which lasts longer
	}
	r, err := d.governor.Freeze(o.Service, want, now)
	if err != nil {
		return // it has ended this moment
	}
	d.overlaid[o.Service], d.unsaved = true, true
	d.note(r)
}
