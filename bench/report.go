// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Report is what Prog and Veth have measured.
type Report struct {
	// Kind is "prog" or "veth".
	Kind string `json:"kind"`
	// Unit is the program whose cost is 1: lb_stats for prog, drop for veth.
	Unit    string  `json:"unit"`
	Machine Machine `json:"machine"`
	// Notes say what makes the figures less certain.
	Notes    []string    `json:"notes,omitempty"`
	Programs []Program   `json:"programs"`
	Rows     []Row       `json:"rows"`
	Gate     []Judgement `json:"gate,omitempty"`
}

const (
	kindProg = "prog"
	kindVeth = "veth"
)

// Program is the size of a target, as the kernel tells it; 0 is unknown.
type Program struct {
	Name         string `json:"name"`
	Instructions int    `json:"instructions"`
	JITedBytes   uint32 `json:"jited_bytes"`
	// Walked is the number of instructions that the verifier went through.
	Walked uint32 `json:"walked"`
	// LoadMS is the time to load the program and to fill its maps, median over the reloads.
	LoadMS float64 `json:"load_ms"`
}

// Row is one target with one case and number of flows.
type Row struct {
	Target string `json:"target"`
	Case   string `json:"case"`
	// UnitCase is the case on which the unit was measured.
	UnitCase string `json:"unit_case"`
	Flows    int    `json:"flows"`
	Verdict  string `json:"verdict"`
	Growth   int    `json:"growth"`
	// Error says why there are no figures.
	Error string `json:"error,omitempty"`
	// Ratio is the cost as a multiple of the unit's: the median over the reloads, of which Spread is
	// half the range. Both are of costs relative to the baseline next to them. Of Veth, it is the
	// whole path's cost.
	Ratio  float64   `json:"ratio"`
	Spread float64   `json:"spread"`
	Ratios []float64 `json:"ratios,omitempty"`
	// NetP10 and NetMedian are ns per packet above the baseline, over all runs.
	NetP10    float64 `json:"net_p10_ns"`
	NetMedian float64 `json:"net_median_ns"`
	// PathP10 is the whole path's ns per packet (Veth), and Lost the frames that did not arrive.
	PathP10 float64 `json:"path_p10_ns,omitempty"`
	Lost    uint64  `json:"lost,omitempty"`
}

// WriteText writes tables for people.
func (r Report) WriteText(w io.Writer) error { return r.sheet().writeText(w) }

// WriteMarkdown writes tables for documents.
func (r Report) WriteMarkdown(w io.Writer) error { return r.sheet().writeMarkdown(w) }

// WriteJSON writes everything.
func (r Report) WriteJSON(w io.Writer) error { return writeJSON(w, r) }

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func (r Report) sheet() sheet {
	s := sheet{facts: r.Machine.facts(), notes: r.Notes}
	s.tables = append(s.tables, r.rowTable(), r.programTable())
	if len(r.Gate) > 0 {
		s.tables = append(s.tables, gateTable(r.Gate))
	}
	return s
}

func (r Report) rowTable() table {
	t := table{header: []string{"target", "case", "flows", "verdict", "grows", "x " + r.Unit, "net ns p10", "median"}}
	if r.Kind == kindVeth {
		t.header = append(t.header, "path ns", "Mpps", "lost")
	}
	for _, row := range r.Rows {
		cells := []string{row.Target, row.Case, decimal(row.Flows), row.Verdict, fmt.Sprintf("%+d", row.Growth)}
		if row.Error != "" {
			t.rows = append(t.rows, append(cells, "error: "+row.Error))
			continue
		}
		ratio := fixed(row.Ratio, 2) + " ±" + fixed(row.Spread, 2)
		if row.UnitCase != row.Case {
			ratio += " (of " + row.UnitCase + ")"
		}
		cells = append(cells, ratio, fixed(row.NetP10, 1), fixed(row.NetMedian, 1))
		if r.Kind == kindVeth {
			cells = append(cells, fixed(row.PathP10, 0), fixed(mpps(row.PathP10), 2), strconv.FormatUint(row.Lost, 10))
		}
		t.rows = append(t.rows, cells)
	}
	return t
}

// mpps is the packets per microsecond at so many ns each.
func mpps(ns float64) float64 {
	if ns == 0 {
		return 0
	}
	return 1e3 / ns
}

func (r Report) programTable() table {
	t := table{header: []string{"program", "instructions", "JITed bytes", "walked", "load ms"}}
	for _, p := range r.Programs {
		t.rows = append(t.rows, []string{
			p.Name, decimal(p.Instructions), decimal(int(p.JITedBytes)), decimal(int(p.Walked)), fixed(p.LoadMS, 1),
		})
	}
	return t
}

// Err returns one error for all rows without figures and all rows with lost frames, nil if there
// are none.
func (r Report) Err() error {
	var errs []error
	for _, row := range r.Rows {
		if row.Error != "" {
			errs = append(errs, fmt.Errorf("%s, %s, %s: %s", row.Target, row.Case, flowsText(row.Flows), row.Error))
		}
		if row.Lost > 0 {
			errs = append(errs, fmt.Errorf("%s, %s, %s: %d frames lost", row.Target, row.Case, flowsText(row.Flows), row.Lost))
		}
	}
	return errors.Join(errs...)
}

func flowsText(n int) string {
	if n == 1 {
		return "1 flow"
	}
	return decimal(n) + " flows"
}

// fixed writes v with so many decimals, and no sign at what rounds to zero.
func fixed(v float64, decimals int) string {
	s := strconv.FormatFloat(v, 'f', decimals, 64)
	if strings.Trim(s, "-0.") == "" {
		return strings.TrimPrefix(s, "-")
	}
	return s
}

func decimal(n int) string { return strconv.Itoa(n) }
