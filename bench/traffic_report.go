// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// TrafficReport is what Traffic has measured.
type TrafficReport struct {
	Head
	// Searches are the highest rates without loss, if they were looked for.
	Searches []Search `json:"searches,omitempty"`
	// Trials are all that were made, in their order.
	Trials []Trial `json:"trials"`
}

// Why a trial was made.
const (
	roleFixed   = "fixed"   // at the rate that was asked for
	roleFree    = "free"    // as fast as possible
	roleSearch  = "search"  // in search of the highest rate
	roleLatency = "latency" // at the highest rate
	roleCurve   = "curve"   // for the loss curve
)

// Trial is one load that was sent for some time.
type Trial struct {
	Role string `json:"role"`
	// Target is the lab's program; empty for what is behind interfaces.
	Target      string `json:"target,omitempty"`
	Generator   string `json:"generator"`
	Placement   string `json:"placement"`
	Threads     int    `json:"threads"`
	Size        string `json:"size"`
	Destination string `json:"destination"`
	Flows       int    `json:"flows"`
	// Offered is the rate asked for, in packets a second; 0: as fast as possible.
	Offered  float64 `json:"offered_pps"`
	Seconds  float64 `json:"seconds"`
	Sent     uint64  `json:"sent"`
	Received uint64  `json:"received"`
	Lost     uint64  `json:"lost"`
	// Disordered are packets that came behind a later one of their flow, Plain those without an outer
	// header, Uncounted those to more servers than there is room for.
	Disordered   uint64  `json:"disordered"`
	Plain        uint64  `json:"plain"`
	Uncounted    uint64  `json:"uncounted,omitempty"`
	SentMpps     float64 `json:"sent_mpps"`
	ReceivedMpps float64 `json:"received_mpps"`
	// WireMbps is what the received packets, as they were sent, take of a wire, with gaps and preambles.
	WireMbps float64 `json:"wire_mbps"`
	// CPUPerMpps is how many CPUs a rate of 1 Mpps keeps busy; 0: unknown.
	CPUPerMpps float64 `json:"cpu_per_mpps,omitempty"`
	Latency    Latency `json:"latency"`
	Balance    Balance `json:"balance"`
	// Counters are those of the drivers that changed, by interface and name.
	Counters map[string]uint64 `json:"counters,omitempty"`
}

// Search is the highest rate that was received without loss.
type Search struct {
	Size        string  `json:"size"`
	Destination string  `json:"destination"`
	Threads     int     `json:"threads"`
	MaxLoss     float64 `json:"max_loss"`
	// Mpps is the rate; 0: there is none.
	Mpps     float64 `json:"mpps"`
	WireMbps float64 `json:"wire_mbps"`
	// GeneratorBound tells that the generator makes no more, so that the balancer may do more.
	GeneratorBound bool `json:"generator_bound"`
	// Trials is how many rates were asked for.
	Trials     int     `json:"trials"`
	CPUPerMpps float64 `json:"cpu_per_mpps,omitempty"`
	Latency    Latency `json:"latency"`
}

func (t Trial) lossShare() float64 {
	if t.Sent == 0 {
		return 0
	}
	return float64(t.Lost) / float64(t.Sent)
}

// label names the load.
func (t Trial) label() string {
	text := t.Size + " bytes to " + t.Destination
	if t.Target != "" {
		text = t.Target + ", " + text
	}
	if t.Threads > 1 {
		text += fmt.Sprintf(", %d threads", t.Threads)
	}
	if t.Target != "" {
		text += ", " + t.Placement
	}
	return text
}

// Err is one error for all trials that received nothing, or had packets out of order.
func (r TrafficReport) Err() error {
	var errs []error
	for _, t := range r.Trials {
		switch {
		case t.Received == 0:
			errs = append(errs, fmt.Errorf("%s: none of %d packets came back", t.label(), t.Sent))
		case t.Disordered > 0:
			errs = append(errs, fmt.Errorf("%s: %d packets came out of order", t.label(), t.Disordered))
		}
	}
	return errors.Join(errs...)
}

func (r TrafficReport) validate() error {
	var c checks
	c.that(len(r.Trials) > 0 || r.Interrupted, "trials: there are none")
	for i, t := range r.Trials {
		at := fmt.Sprintf("trials[%d]", i)
		c.that(t.Size != "" && t.Destination != "" && t.Generator != "", "%s: size, destination or generator is missing", at)
		c.that(slices.Contains([]string{roleFixed, roleFree, roleSearch, roleLatency, roleCurve}, t.Role), "%s.role: %q is unknown", at, t.Role)
		c.that(t.Threads > 0 && t.Flows > 0, "%s: threads or flows is missing", at)
		c.that(t.Lost <= t.Sent, "%s: more packets lost than sent", at)
		l := t.Latency
		c.that(l.P50 <= l.P90 && l.P90 <= l.P99 && l.P99 <= l.P999 && l.P999 <= l.Max, "%s.latency: it is not in order", at)
		for _, v := range []float64{
			t.Offered, t.Seconds, t.SentMpps, t.ReceivedMpps, t.WireMbps, t.CPUPerMpps, l.P50, l.Max, t.Balance.Least, t.Balance.Most,
			t.Balance.Deviation, t.Balance.Chance,
		} {
			c.figure(at, v)
		}
	}
	for i, s := range r.Searches {
		c.that(s.Size != "" && s.Destination != "", "searches[%d]: size or destination is missing", i)
		c.figure(fmt.Sprintf("searches[%d].mpps", i), s.Mpps)
	}
	return c.err()
}

func (r TrafficReport) sheet() sheet {
	var tables []table
	if len(r.Searches) > 0 {
		tables = append(tables, r.searchTable())
	}
	s := r.Head.sheet(append(tables, r.trialTable(), r.balanceTable(), r.counterTable())...)
	s.tables = slices.DeleteFunc(s.tables, func(t table) bool { return len(t.rows) == 0 })
	return s
}

func (r TrafficReport) searchTable() table {
	t := table{header: []string{"highest rate", "to", "threads", "loss allowed", "Mpps", "Mbit/s on a wire", "CPUs per Mpps", "p50 µs", "p99 µs", "p99.9 µs", "max µs", "bound by"}}
	for _, s := range r.Searches {
		bound := "balancer"
		if s.GeneratorBound {
			bound = "generator"
		}
		t.rows = append(t.rows, []string{
			s.Size, s.Destination, decimal(s.Threads), fmt.Sprintf("%g", s.MaxLoss), fixed(s.Mpps, 3), fixed(s.WireMbps, 0),
			known(s.CPUPerMpps, 3), fixed(s.Latency.P50, 1), fixed(s.Latency.P99, 1), fixed(s.Latency.P999, 1), fixed(s.Latency.Max, 1), bound,
		})
	}
	return t
}

func (r TrafficReport) trialTable() table {
	t := table{header: []string{
		"trial", "target", "placement", "threads", "size", "to", "offered Mpps", "sent Mpps", "received Mpps", "lost", "share", "disordered", "CPUs per Mpps", "p50 µs", "p99 µs", "max µs",
	}}
	for _, one := range r.Trials {
		if one.Role == roleSearch && len(r.Searches) > 0 {
			continue // what they found is told; they are in the JSON
		}
		offered := "as fast as possible"
		if one.Offered > 0 {
			offered = fixed(one.Offered/1e6, 3)
		}
		t.rows = append(t.rows, []string{
			one.Role, one.Target, one.Placement, decimal(one.Threads), one.Size, one.Destination, offered, fixed(one.SentMpps, 3), fixed(one.ReceivedMpps, 3),
			strconv.FormatUint(one.Lost, 10), fmt.Sprintf("%.4f %%", 100*one.lossShare()), strconv.FormatUint(one.Disordered, 10),
			known(one.CPUPerMpps, 3), fixed(one.Latency.P50, 1), fixed(one.Latency.P99, 1), fixed(one.Latency.Max, 1),
		})
	}
	return t
}

// known writes a figure that may be unknown.
func known(v float64, decimals int) string {
	if v == 0 {
		return "-"
	}
	return fixed(v, decimals)
}

// balanceTable has the longest trial of each load.
func (r TrafficReport) balanceTable() table {
	t := table{header: []string{"balance", "flows", "servers", "least share", "greatest share", "deviation", "by chance"}}
	for _, one := range r.longest() {
		b := one.Balance
		if b.Servers == 0 {
			continue
		}
		t.rows = append(t.rows, []string{
			one.label(), decimal(one.Flows), decimal(b.Servers), fixed(b.Least, 3), fixed(b.Most, 3), fixed(b.Deviation, 4), fixed(b.Chance, 4),
		})
	}
	return t
}

// longest is the trial of each load with the most packets.
func (r TrafficReport) longest() (found []Trial) {
	for _, t := range r.Trials {
		i := slices.IndexFunc(found, func(f Trial) bool { return f.label() == t.label() })
		if i < 0 {
			found = append(found, t)
		} else if t.Received > found[i].Received {
			found[i] = t
		}
	}
	return found
}

// counterTable sums the counters of all trials.
func (r TrafficReport) counterTable() table {
	t := table{header: []string{"counter of the driver", "change"}}
	sums := map[string]uint64{}
	for _, one := range r.Trials {
		for name, n := range one.Counters {
			sums[name] += n
		}
	}
	for _, name := range slices.Sorted(maps.Keys(sums)) {
		t.rows = append(t.rows, []string{name, strconv.FormatUint(sums[name], 10)})
	}
	return t
}

func (r TrafficReport) figures() (all []figure) {
	var rates []bar
	for _, s := range r.Searches {
		rates = append(rates, bar{label: s.Size + " bytes to " + s.Destination, value: s.Mpps})
	}
	if len(rates) > 0 {
		all = append(all, barChart("Highest rate without loss", "Mpps", 0, "", rates))
	} else {
		for _, t := range r.Trials {
			rates = append(rates, bar{label: t.label(), value: t.ReceivedMpps})
		}
		all = append(all, barChart("Received", "Mpps", 0, "", rates))
	}
	if curve := r.lossFigure(); curve != nil {
		all = append(all, *curve)
	}
	return append(all, r.latencyFigure())
}

// lossFigure is the share of lost packets by the offered rate, of each load.
func (r TrafficReport) lossFigure() *figure {
	var lines []series
	for _, t := range r.Trials {
		if t.Offered == 0 {
			continue
		}
		i := slices.IndexFunc(lines, func(s series) bool { return s.name == t.label() })
		if i < 0 {
			i, lines = len(lines), append(lines, series{name: t.label()})
		}
		lines[i].points = append(lines[i].points, [2]float64{t.Offered / 1e6, 100 * t.lossShare()})
	}
	if len(lines) == 0 {
		return nil
	}
	f := lineChart("Loss", "offered Mpps", "% lost", lines)
	return &f
}

// latencyFigure has the percentiles of each load, at its highest rate where that was looked for.
func (r TrafficReport) latencyFigure() figure {
	var bars []bar
	for _, t := range r.Trials {
		if t.Role != roleLatency && t.Role != roleFixed {
			continue
		}
		for _, p := range []struct {
			name string
			us   float64
		}{{"p50", t.Latency.P50}, {"p90", t.Latency.P90}, {"p99", t.Latency.P99}, {"p99.9", t.Latency.P999}} {
			bars = append(bars, bar{label: strings.TrimPrefix(t.label(), t.Target+", ") + ", " + p.name, value: p.us})
		}
	}
	return barChart("Latency", "µs", 0, "", bars[:min(len(bars), 40)])
}
