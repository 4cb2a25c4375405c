// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/remora-lb/remora/lb"
)

// ChurnReport is what Churn has counted.
type ChurnReport struct {
	Head
	Flows   int `json:"flows"`
	Servers int `json:"servers"`
	// Window is in seconds.
	Window float64 `json:"window_s"`
	Seed   uint64  `json:"seed"`
	// Gated tells that a broken promise is an error.
	Gated bool       `json:"gated,omitempty"`
	Rows  []ChurnRow `json:"rows"`
}

// ChurnRow is one scenario in one mode.
type ChurnRow struct {
	Scenario string `json:"scenario"`
	About    string `json:"about"`
	Mode     string `json:"mode"`
	Changes  int    `json:"changes"`
	// Began counts the flows of the run, Packets theirs, Flood those of a flood beside them.
	Began   uint64 `json:"flows_began"`
	Packets uint64 `json:"packets"`
	Flood   uint64 `json:"flood_packets"`
	// Lost are packets that did not come back, Refused those of them that a balancer dropped. They
	// were sent again.
	Lost    uint64 `json:"lost"`
	Refused uint64 `json:"refused"`
	// Moved, Stranger and Dropped are broken flows that break a promise; Killed are those of servers
	// that were down. Silent ones are not judged.
	Moved    uint64 `json:"moved"`
	Stranger uint64 `json:"stranger"`
	Dropped  uint64 `json:"dropped"`
	Killed   uint64 `json:"killed"`
	Silent   uint64 `json:"silent"`
	// Ages are the flows that were moved, and those that lived when a balancer was lost, by age.
	Ages []AgeRow `json:"ages,omitempty"`
	// Promised is that no flow is moved; if it is not, those that have seen no change still must not be.
	Promised bool `json:"promised"`
}

// AgeRow is the flows of one age.
type AgeRow struct {
	Age   Age    `json:"age"`
	Live  uint64 `json:"live"`
	Moved uint64 `json:"moved"`
}

func (r *churnRun) row(mode lb.FlowMode) ChurnRow {
	t := r.judge.tally
	row := ChurnRow{
		Scenario: r.scenario.Name, About: r.scenario.About, Mode: mode.String(), Changes: len(r.servers.changes),
		Began: t.flows, Packets: t.packets, Flood: t.flood, Lost: t.lost, Refused: r.refused,
		Moved: t.broken[CauseMoved], Stranger: t.broken[CauseStranger], Dropped: t.broken[CauseDropped],
		Killed: t.broken[CauseKilled], Silent: t.broken[CauseSilent],
		Promised: mode == lb.FlowTransitions && !r.scenario.Free,
	}
	for _, age := range Ages() {
		if t.live[age]+t.moved[age] > 0 {
			row.Ages = append(row.Ages, AgeRow{age, t.live[age], t.moved[age]})
		}
	}
	return row
}

// movedAt is how many flows of that age were moved.
func (r ChurnRow) movedAt(age Age) (n uint64) {
	for _, a := range r.Ages {
		if a.Age == age {
			n += a.Moved
		}
	}
	return n
}

// problem says how a promise was broken; empty if none was.
func (r ChurnRow) problem() string {
	var broken []string
	for _, b := range []struct {
		n     uint64
		cause Cause
		held  bool
	}{
		{r.Moved, CauseMoved, r.Promised},
		{r.movedAt(AgeQuiet), CauseMoved + " without a change", !r.Promised},
		{r.Stranger, CauseStranger, true},
		{r.Dropped, CauseDropped, true},
	} {
		if b.held && b.n > 0 {
			broken = append(broken, fmt.Sprintf("%d %s", b.n, b.cause))
		}
	}
	return strings.Join(broken, ", ")
}

// Err returns one error for all rows that break a promise, nil if none does, or if that is not asked for.
func (r ChurnReport) Err() error {
	var errs []error
	for _, row := range r.Rows {
		if !r.Gated {
			break
		}
		if p := row.problem(); p != "" {
			errs = append(errs, fmt.Errorf("%s, %s: flows broken: %s", row.Scenario, row.Mode, p))
		}
	}
	return errors.Join(errs...)
}

func (r ChurnReport) validate() error {
	var c checks
	c.that(len(r.Rows) > 0 || r.Interrupted, "rows: there are none")
	c.that(r.Flows > 0 && r.Servers > 0, "flows or servers is missing")
	for i, row := range r.Rows {
		c.that(row.Scenario != "" && row.Mode != "", "rows[%d]: scenario or mode is missing", i)
	}
	return c.err()
}

func (r ChurnReport) figures() []figure {
	var bars []bar
	for _, row := range r.Rows {
		bars = append(bars, bar{label: row.Scenario + ", " + row.Mode, value: float64(row.Moved)})
	}
	return []figure{barChart("Flows that went to another server, though theirs was there", "flows", 0, "", bars)}
}

func (r ChurnReport) sheet() sheet {
	s := r.Head.sheet(r.causeTable(), r.ageTable())
	s.facts = append(s.facts, fmt.Sprintf("%d flows, %d servers at the start, two balancers, window %g s, seed %d", r.Flows, r.Servers, r.Window, r.Seed))
	return s
}

func (r ChurnReport) causeTable() table {
	t := table{header: []string{
		"scenario", "mode", "changes", "flows", "packets", "flood", "moved", "stranger", "dropped", "killed", "silent", "lost", "refused", "promise",
	}}
	for _, row := range r.Rows {
		promise := "-"
		if row.Promised {
			promise = "kept"
		}
		if p := row.problem(); p != "" {
			promise = "BROKEN: " + p
		}
		cells := []string{row.Scenario, row.Mode, decimal(row.Changes)}
		for _, n := range []uint64{
			row.Began, row.Packets, row.Flood, row.Moved, row.Stranger, row.Dropped, row.Killed, row.Silent, row.Lost, row.Refused,
		} {
			cells = append(cells, strconv.FormatUint(n, 10))
		}
		t.rows = append(t.rows, append(cells, promise))
	}
	return t
}

// ageTable is about the rows with moved flows.
func (r ChurnReport) ageTable() table {
	t := table{header: []string{"scenario", "mode", "age of the flow", "live at the loss", "moved"}}
	for _, row := range r.Rows {
		if row.Moved == 0 {
			continue
		}
		for _, a := range row.Ages {
			live := "-"
			if a.Live > 0 {
				live = strconv.FormatUint(a.Live, 10)
			}
			t.rows = append(t.rows, []string{row.Scenario, row.Mode, string(a.Age), live, strconv.FormatUint(a.Moved, 10)})
		}
	}
	return t
}
