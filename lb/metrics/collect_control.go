// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

func (x *scrape) engine(e Engine) {
	x.put(x.enginePasses, float64(e.Passes))
	x.put(x.engineErrors, float64(e.Failures))
	x.put(x.engineChanges, float64(e.Changes))
	x.put(x.engineFailing, truth(e.Failing))
	x.put(x.engineSettled, truth(e.Settled))
	x.put(x.engineProblems, float64(e.Problems))
	x.put(x.engineLastPass, seconds(e.LastPass))
	x.put(x.engineLastApply, seconds(e.LastApply))
}

func (x *scrape) checked(c Checks) {
	for result, n := range c.Results {
		x.put(x.checks, float64(n), result)
	}
	d := c.Durations
	buckets := make(map[float64]uint64, len(d.Bounds))
	for i, bound := range d.Bounds {
		buckets[bound] = d.Counts[i]
	}
	x.ch <- prometheus.MustNewConstHistogram(x.checkDuration.desc, d.Count, d.Sum, buckets)
}

// watchSeries is how many series a watch has.
const watchSeries = 5

// watches sends the series of watches. Of two of one name there is the first alone: a series that is there
// twice would fail the whole scrape.
func (x *scrape) watches(list []Watch) {
	list = uniqueWatches(list)
	if !x.fits(watchSeries * len(list)) {
		return
	}
	for _, w := range list {
		x.put(x.watchIndex, float64(w.Index), w.Kind, w.Name)
		x.put(x.watchChanged, seconds(w.Changed), w.Kind, w.Name)
		x.put(x.watchAnswered, seconds(w.Answered), w.Kind, w.Name)
		x.put(x.watchErrors, float64(w.Errors), w.Kind, w.Name)
		x.put(x.watchFailing, truth(w.Failing), w.Kind, w.Name)
	}
}

func uniqueWatches(list []Watch) (unique []Watch) {
	type key struct{ kind, name string }
	seen := make(map[key]bool, len(list))
	for _, w := range list {
		if k := (key{labelText(w.Kind), labelText(w.Name)}); !seen[k] {
			seen[k] = true
			unique = append(unique, w)
		}
	}
	return unique
}

func (x *scrape) governed(g Governor) {
	for rule, n := range g.Refused {
		x.put(x.refusedAnswers, float64(n), rule)
	}
	for rule, n := range g.Held {
		x.put(x.heldChanges, float64(n), rule)
	}
	for outcome, n := range g.Ended {
		x.put(x.holdsEnded, float64(n), outcome)
	}
	for rule, n := range g.Holding {
		x.put(x.holds, float64(n), rule)
	}
	x.put(x.unusable, float64(g.Unusable))
}

func (x *scrape) bgp(b *BGP) {
	x.put(x.nodeDrained, truth(b.Drained))
	for _, s := range b.Sessions {
		peer, asn := s.Peer.String(), strconv.FormatUint(uint64(s.ASN), 10)
		for _, state := range SessionStates() {
			x.put(x.sessionState, truth(s.State == state), peer, asn, state)
		}
		x.put(x.sessionSince, seconds(s.Since), peer, asn)
		x.put(x.sessionRoutes, float64(s.Routes), peer, asn)
		x.put(x.sessionFlaps, float64(s.Flaps), peer, asn)
		if s.BFD != "off" {
			x.put(x.bfdUp, truth(s.BFD == "up"), peer, asn)
		}
	}
	for _, v := range b.VIPs {
		x.put(x.vipAnnounced, truth(v.Announced), v.VIP.String())
		x.put(x.announceState, 1, v.VIP.String(), v.State, v.Code)
	}
}

func (x *scrape) reloaded(r Reloads) {
	x.put(x.reloadOK, truth(r.LastOK))
	x.put(x.reloadAt, seconds(r.At))
	x.put(x.reloads, float64(r.Succeeded), "success")
	x.put(x.reloads, float64(r.Failed), "failure")
}
