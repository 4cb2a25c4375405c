// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"fmt"
)

// ControlReport is what Control has measured.
type ControlReport struct {
	Head
	Rows []ControlRow `json:"rows"`
}

// ControlRow is one scale.
type ControlRow struct {
	ControlScale
	// FirstApply is the time to bring everything into an empty data plane, ChangeAll that to take one
	// server from nearly all VIPs, both in seconds.
	FirstApply float64 `json:"first_apply_s"`
	ChangeAll  float64 `json:"change_all_s"`
	// Change is the time from a change of one VIP to the first packet that follows it, in ms.
	Change Spread `json:"change_to_packet_ms"`
	// HeapMB is the memory of the control plane, MapsMB that of the maps.
	HeapMB float64 `json:"heap_mb"`
	MapsMB float64 `json:"maps_mb"`
	// Start is the time in seconds of a start of the daemon with nothing there until all is forwarded,
	// Adopt that with what an earlier one left; 0: not measured. StartMB is the most memory of the first.
	Start   float64 `json:"start_s,omitempty"`
	Adopt   float64 `json:"adopt_s,omitempty"`
	StartMB float64 `json:"start_mb,omitempty"`
	// Error says what could not be measured.
	Error string `json:"error,omitempty"`
}

// Aims for 10 000 VIPs of 100 reals, in seconds.
const (
	startAim = 5
	adoptAim = 2
)

// Err returns one error for everything that could not be measured.
func (r ControlReport) Err() error {
	var errs []error
	for _, row := range r.Rows {
		if row.Error != "" {
			errs = append(errs, fmt.Errorf("%s: %s", row, row.Error))
		}
	}
	return errors.Join(errs...)
}

func (r ControlReport) validate() error {
	var c checks
	c.that(len(r.Rows) > 0 || r.Interrupted, "rows: there are none")
	for i, row := range r.Rows {
		at := fmt.Sprintf("rows[%d]", i)
		c.that(row.VIPs > 0 && row.Reals > 0 && row.RingSize > 0, "%s: vips, reals or ring_size is missing", at)
		row.Change.check(&c, at+".change_to_packet_ms")
		for _, v := range []float64{row.FirstApply, row.ChangeAll, row.HeapMB, row.MapsMB, row.Start, row.Adopt, row.StartMB} {
			c.figure(at, v)
		}
	}
	return c.err()
}

func (r ControlReport) sheet() sheet {
	t := table{header: []string{
		"VIPs", "reals each", "slots", "first apply s", "one VIP changes: ms to a packet (p10-p90)", "all change s", "start s", "adopt s", "maps MiB", "heap MiB", "most of a start MiB",
	}}
	for _, row := range r.Rows {
		t.rows = append(t.rows, []string{
			decimal(row.VIPs), decimal(row.Reals), decimal(int(row.RingSize)), known(row.FirstApply, 2), row.Change.String(), known(row.ChangeAll, 2),
			known(row.Start, 2), known(row.Adopt, 2), fixed(row.MapsMB, 0), fixed(row.HeapMB, 0), known(row.StartMB, 0),
		})
	}
	return r.Head.sheet(t)
}

func (r ControlReport) figures() []figure {
	var starts, changes []bar
	for _, row := range r.Rows {
		name := row.String()
		if row.Start > 0 {
			start, adopt := bar{label: "start, " + name, value: row.Start}, bar{label: "adopt, " + name, value: row.Adopt}
			if row.VIPs == 10_000 && row.Reals == 100 {
				start.mark, adopt.mark = startAim, adoptAim
			}
			starts = append(starts, start, adopt)
		}
		changes = append(changes, bar{label: name, value: row.Change.Median, least: row.Change.P10, most: row.Change.P90})
	}
	return []figure{
		barChart("Start and adoption; marked is what is aimed at for 10000 VIPs of 100 reals", "s", 0, "", starts),
		barChart("From a change to the first packet that follows it", "ms", 0, "", changes),
	}
}
