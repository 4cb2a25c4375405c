// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package nexthop

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

const (
	// probeBurst is the greatest number of probes sent at once; probePause the time until the
	// next ones. Thousands of broadcasts in one go would be dropped by switches and the kernel.
	probeBurst = 256
	probePause = 50 * time.Millisecond
)

// confirmAttempts is how often a stale neighbour may be asked in vain before its users are told.
// Every neighbour that only XDP traffic goes to turns stale regularly; one attempt confirms most.
const confirmAttempts = 1

// prober decides when the kernel is asked to resolve a missing neighbour or to confirm a stale one.
type prober struct {
	retryMin, retryMax, staleInterval time.Duration

	attempts    map[netip.Addr]*attempt // neighbours that need one
	pausedUntil time.Time
}

type attempt struct {
	condition condition
	next      time.Time
	wait      time.Duration // after the next one
	count     int           // how many were made
}

// probe is one attempt that is due.
type probe struct {
	addr      netip.Addr
	condition condition
	count     int // 1 for the first
}

// observe takes the present conditions of all neighbours that matter.
func (p *prober) observe(now time.Time, conditions map[netip.Addr]condition) {
	for addr, a := range p.attempts {
		if c, ok := conditions[addr]; !ok || c != a.condition {
			delete(p.attempts, addr)
		}
	}
	for addr, c := range conditions {
		if c == fresh || p.attempts[addr] != nil {
			continue
		}
		if p.attempts == nil {
			p.attempts = make(map[netip.Addr]*attempt)
		}
		p.attempts[addr] = &attempt{condition: c, next: now, wait: p.firstWait(c)}
	}
}

func (p *prober) firstWait(c condition) time.Duration {
	if c == stale {
		return p.staleInterval
	}
	return p.retryMin
}

// unconfirmed tells whether a stale neighbour was asked in vain.
func (p *prober) unconfirmed(addr netip.Addr) bool {
	a := p.attempts[addr]
	return a != nil && a.condition == stale && a.count > confirmAttempts
}

// due returns the attempts to make now, those that waited longest first, and plans the next ones.
func (p *prober) due(now time.Time) []probe {
	if now.Before(p.pausedUntil) {
		return nil
	}
	var addrs []netip.Addr
	for addr, a := range p.attempts {
		if !a.next.After(now) {
			addrs = append(addrs, addr)
		}
	}
	slices.SortFunc(addrs, func(x, y netip.Addr) int {
		return cmp.Or(p.attempts[x].next.Compare(p.attempts[y].next), x.Compare(y))
	})
	if len(addrs) > probeBurst {
		addrs = addrs[:probeBurst]
		p.pausedUntil = now.Add(probePause)
	}
	probes := make([]probe, 0, len(addrs))
	for _, addr := range addrs {
		a := p.attempts[addr]
		a.count++
		a.next = now.Add(a.wait)
		if a.condition == missing {
			a.wait = min(2*a.wait, p.retryMax)
		}
		probes = append(probes, probe{addr: addr, condition: a.condition, count: a.count})
	}
	return probes
}

// next is when due has something to return; zero if never.
func (p *prober) next() time.Time {
	var first time.Time
	for _, a := range p.attempts {
		first = earlier(first, a.next)
	}
	if !first.IsZero() && first.Before(p.pausedUntil) {
		return p.pausedUntil
	}
	return first
}

// earlier is the earlier of two times, where zero stands for never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
