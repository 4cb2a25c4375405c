// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/remora-lb/remora/lb"
)

// CollectorConfig is what a collector shows.
type CollectorConfig struct {
	// Source is what is read. Required.
	Source Source
	// PerReal asks for series of each real. Default false.
	PerReal bool
	// MaxSeries bounds the series of reals, and those of watches: if there would be more, all of these
	// are left out. At least 1. Default 20 000.
	MaxSeries int
}

// DefaultMaxSeries is the default of CollectorConfig.MaxSeries.
const DefaultMaxSeries = 20_000

// Collector implements prometheus.Collector. It reads once per scrape, one scrape at a time. There is
// nothing to close.
type Collector struct {
	cfg CollectorConfig
	f   *families

	mu   sync.Mutex // held during a scrape
	sums *sums      // guarded by mu
}

// NewCollector checks cfg and reads nothing.
func NewCollector(cfg CollectorConfig) (*Collector, error) {
	var errs []error
	if cfg.Source == nil {
		errs = append(errs, errors.New("Source: there is none"))
	}
	if cfg.MaxSeries < 0 {
		errs = append(errs, fmt.Errorf("MaxSeries: %d is negative", cfg.MaxSeries))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("check configuration of metrics: %v", err)
	}
	if cfg.MaxSeries == 0 {
		cfg.MaxSeries = DefaultMaxSeries
	}
	return &Collector{cfg: cfg, f: newFamilies(), sums: newSums()}, nil
}

// Start reads the counters that VIPs are counted from. What was counted before is not part of the VIPs'
// counters, so that they begin at 0 like those of any program that starts.
func (c *Collector) Start(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if dp := c.cfg.Source.Snapshot(ctx).DataPlane; dp != nil {
		c.sums.update(dp.VIPs)
	}
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range c.f.all {
		ch <- m.desc
	}
}

// collectTime bounds the reading for one scrape.
const collectTime = 10 * time.Second

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), collectTime)
	defer cancel()
	began := time.Now()
	s := c.cfg.Source.Snapshot(ctx)
	x := &scrape{families: c.f, ch: ch, limit: c.cfg.MaxSeries}
	x.put(x.buildInfo, 1, s.Version, runtime.Version())
	x.put(x.dataPlaneReadable, truth(s.DataPlane != nil))
	for _, i := range s.Interfaces {
		x.put(x.interfaceInfo, 1, i.Name, i.Mode, i.Reason)
	}
	if s.DataPlane != nil {
		c.sums.update(s.DataPlane.VIPs)
		x.dataPlane(s.DataPlane, c.sums)
		if c.cfg.PerReal {
			x.perReal(s.DataPlane.VIPs, c.sums)
		}
	}
	x.engine(s.Engine)
	x.checked(s.Checks)
	x.put(x.hopProbes, float64(s.NextHops.Probes))
	x.put(x.hopResyncs, float64(s.NextHops.Resyncs))
	x.watches(s.Watches)
	x.governed(s.Governor)
	if s.BGP != nil {
		x.bgp(s.BGP)
	}
	x.reloaded(s.Reloads)
	for kind, n := range s.Events {
		x.put(x.events, float64(n), kind)
	}
	x.put(x.seriesDropped, float64(x.dropped))
	x.put(x.readSeconds, time.Since(began).Seconds())
}

// scrape is one scrape under way.
type scrape struct {
	*families
	ch             chan<- prometheus.Metric
	limit, dropped int
}

// put sends one series.
func (x *scrape) put(m *metric, value float64, labels ...string) {
	for i := range labels {
		labels[i] = labelText(labels[i])
	}
	x.ch <- prometheus.MustNewConstMetric(m.desc, m.kind, value, labels...)
}

// labelText is text as a label may have it: what was cut off within a letter, as by the room of a map, is
// mended.
func labelText(text string) string { return strings.ToValidUTF8(text, "?") }

// fits tells whether so many series may be sent, and counts them as dropped if not.
func (x *scrape) fits(series int) bool {
	if series <= x.limit {
		return true
	}
	x.dropped += series
	return false
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// seconds is a time as Prometheus has it; 0 for the zero time.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

func (x *scrape) dataPlane(dp *DataPlane, s *sums) {
	x.put(x.attachedAt, seconds(dp.Attached))
	for r, n := range dp.Reasons {
		reason := lb.Reason(r)
		x.put(x.packets, float64(n), reason.String(), reason.Verdict().String())
	}
	x.put(x.removedPackets, float64(dp.Removed.Packets))
	x.put(x.removedBytes, float64(dp.Removed.Bytes))
	x.put(x.flowEntries, float64(dp.Flows))
	x.put(x.flowCapacity, float64(dp.Places))
	for e, n := range dp.FlowEvents {
		x.put(x.flowEvents, float64(n), lb.FlowEvent(e).String())
	}
	for _, m := range dp.Maps {
		x.put(x.mapEntries, float64(m.Used), m.Name)
		x.put(x.mapCapacity, float64(m.Capacity), m.Name)
	}
	hops := map[string]int{"resolved": 0, "stale": 0, "unresolved": 0}
	seen := make(map[netip.Addr]bool)
	for _, v := range dp.VIPs {
		x.vip(v, s.vips[v.VIP])
		for _, r := range v.Reals {
			if to := r.Tunnel.Destination; !seen[to] && r.Tunnel.Encap != lb.Local {
				seen[to] = true
				hops[hopState(r.NextHop)]++
			}
		}
	}
	for state, n := range hops {
		x.put(x.nextHops, float64(n), state)
	}
}

func hopState(h lb.NextHop) string {
	switch {
	case !h.Resolved():
		return "unresolved"
	case h.Stale:
		return "stale"
	}
	return "resolved"
}

func (x *scrape) vip(v VIP, t Traffic) {
	service, vip := v.Service, v.VIP.String()
	x.put(x.vipPackets, float64(t.Packets), service, vip)
	x.put(x.vipBytes, float64(t.Bytes), service, vip)
	for state, n := range v.Slots {
		x.put(x.ringSlots, float64(n), service, vip, lb.SlotState(state).String())
	}
	x.put(x.ringInfo, 1, service, vip, v.Digest, v.Ring.Hash.String(), strconv.FormatUint(uint64(v.Ring.Size), 10))
	uses := map[lb.RealUse]int{lb.RealActive: 0, lb.RealDraining: 0, lb.RealRetired: 0}
	health := make(map[string]int)
	for _, r := range v.Reals {
		uses[r.Use]++
		health[r.State]++
	}
	for use, n := range uses {
		x.put(x.reals, float64(n), service, vip, use.String())
	}
	for _, state := range HealthStates() {
		x.put(x.backends, float64(health[state]), service, vip, state)
	}
	if h := v.Health; h != nil {
		x.put(x.vipFailOpen, truth(h.FailOpen), service, vip)
		x.put(x.vipServable, truth(h.Servable), service, vip)
	}
}

// perReal sends the series of reals, if there are not too many. Reals of one address, of which one takes
// the place of the other, are one for Prometheus.
func (x *scrape) perReal(vips []VIP, s *sums) {
	list := mergeReals(vips, s)
	series := 0
	for _, r := range list {
		series += 2
		if r.draining {
			series += 2
		}
	}
	if !x.fits(series) {
		return
	}
	for _, r := range list {
		x.put(x.realPackets, float64(r.Packets), r.labels...)
		x.put(x.realBytes, float64(r.Bytes), r.labels...)
		if r.draining {
			x.put(x.drainingFlows, float64(r.flows), r.labels...)
			x.put(x.drainingActive, float64(r.active), r.labels...)
		}
	}
}

// mergedReal is what the reals of one backend of a VIP have together.
type mergedReal struct {
	Traffic
	labels        []string
	draining      bool
	flows, active int
}

func mergeReals(vips []VIP, s *sums) []*mergedReal {
	var list []*mergedReal
	for _, v := range vips {
		vip := v.VIP.String()
		byAddr := make(map[netip.Addr]*mergedReal, len(v.Reals))
		for _, r := range v.Reals {
			m := byAddr[r.Backend.Addr]
			if m == nil {
				m = &mergedReal{
					Traffic: s.backends[lb.Target{VIP: v.VIP, Backend: r.Backend.Addr}],
					labels:  []string{v.Service, vip, r.Backend.Addr.String()},
				}
				byAddr[r.Backend.Addr] = m
				list = append(list, m)
			}
			if r.Use == lb.RealDraining {
				m.draining = true
				m.flows += r.Flows
				m.active += r.Active
			}
		}
	}
	return list
}
