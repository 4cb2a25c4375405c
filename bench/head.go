// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Schema is the version of the written form of reports. A reader refuses all others.
const Schema = 1

// Kinds of reports.
const (
	KindProg    = "prog"
	KindVeth    = "veth"
	KindRing    = "ring"
	KindChurn   = "churn"
	KindTraffic = "traffic"
	KindControl = "control"
)

// Head is what all reports begin with.
type Head struct {
	Schema int    `json:"schema"`
	Kind   string `json:"kind"`
	// Taken is when the measurement began.
	Taken   time.Time `json:"taken"`
	Machine Machine   `json:"machine"`
	// Notes say what makes the figures less certain.
	Notes []string `json:"notes,omitempty"`
	// Interrupted tells that the measurement was ended early: there are fewer figures than were asked
	// for.
	Interrupted bool `json:"interrupted,omitempty"`
}

func newHead(kind string) Head {
	h := Head{Schema: Schema, Kind: kind, Taken: time.Now().UTC().Truncate(time.Second), Machine: ReadMachine()}
	h.Notes = h.Machine.notes()
	return h
}

// note adds those that are not there yet.
func (h *Head) note(notes ...string) {
	for _, n := range notes {
		if !slices.Contains(h.Notes, n) {
			h.Notes = append(h.Notes, n)
		}
	}
}

// end is called once everything is measured, or after an error that ended it early.
func (h *Head) end(err error) {
	h.Machine.LoadAfter = loadAverages()
	if err != nil {
		h.Interrupted = true
	}
}

// Header implements a part of Report.
func (h Head) Header() Head { return h }

// sheet has the facts and notes.
func (h Head) sheet(tables ...table) sheet {
	s := sheet{facts: h.Machine.facts(), notes: h.Notes, tables: tables}
	if h.Interrupted {
		s.notes = append([]string{"interrupted: this is what was measured until then"}, s.notes...)
	}
	return s
}

// Report is what a measurement has found: ProgramReport, RingReport, ChurnReport, TrafficReport or
// ControlReport.
type Report interface {
	Tabular
	Header() Head
	// Err is one error for everything in the report that is no figure, or breaks a promise.
	Err() error

	figures() []figure
	// validate refuses what no measurement writes.
	validate() error
}

// Tabular is what can be written as tables: a Report or a Comparison.
type Tabular interface{ sheet() sheet }

// WriteText writes tables for people.
func WriteText(w io.Writer, t Tabular) error { return t.sheet().writeText(w) }

// WriteMarkdown writes tables for documents.
func WriteMarkdown(w io.Writer, t Tabular) error { return t.sheet().writeMarkdown(w) }

// WriteJSON writes everything. ReadReport reads a Report of it.
func WriteJSON(w io.Writer, r Tabular) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// maxReport is the length of the longest report that is read, in bytes.
const maxReport = 16 << 20

// ReadReport reads what WriteJSON has written, and refuses everything else.
func ReadReport(r io.Reader) (Report, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxReport+1))
	if err != nil {
		return nil, fmt.Errorf("read report: %w", err)
	}
	if len(raw) > maxReport {
		return nil, fmt.Errorf("read report: it has more than %d bytes", maxReport)
	}
	report, err := parseReport(raw)
	if err != nil {
		return nil, fmt.Errorf("read report: %v", err)
	}
	return report, nil
}

func parseReport(raw []byte) (Report, error) {
	var h struct {
		Schema int
		Kind   string
	}
	if err := json.Unmarshal(raw, &h); err != nil {
		return nil, err
	}
	if h.Schema != Schema {
		return nil, fmt.Errorf("schema %d, this program reads %d", h.Schema, Schema)
	}
	switch h.Kind {
	case KindProg, KindVeth:
		return decodeReport[ProgramReport](raw)
	case KindRing:
		return decodeReport[RingReport](raw)
	case KindChurn:
		return decodeReport[ChurnReport](raw)
	case KindTraffic:
		return decodeReport[TrafficReport](raw)
	case KindControl:
		return decodeReport[ControlReport](raw)
	}
	return nil, fmt.Errorf("kind %q is none of this program's", h.Kind)
}

func decodeReport[R Report](raw []byte) (Report, error) {
	var r R
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is something behind the report")
	}
	if err := errors.Join(r.Header().validate(), r.validate()); err != nil {
		return nil, err
	}
	return r, nil
}

func (h Head) validate() error {
	var errs []error
	if h.Taken.IsZero() {
		errs = append(errs, errors.New("taken: it has no time"))
	}
	if h.Machine.Kernel == "" || h.Machine.Arch == "" || h.Machine.CPUs < 1 {
		errs = append(errs, errors.New("machine: kernel, arch or cpus are missing"))
	}
	return errors.Join(errs...)
}

// checks collects the problems of a report that is read.
type checks struct{ errs []error }

// that adds a problem unless ok.
func (c *checks) that(ok bool, format string, args ...any) {
	if !ok {
		c.errs = append(c.errs, fmt.Errorf(format, args...))
	}
}

func (c *checks) err() error { return errors.Join(c.errs...) }

// maxFigure is more than anything that is measured, in whatever unit.
const maxFigure = 1e15

// figure adds a problem unless v is a figure that may have been measured.
func (c *checks) figure(name string, v float64) {
	c.that(v >= 0 && v < maxFigure, "%s: %g is no figure", name, v)
}

// Measured tells whether a report has any figures.
func Measured(r Report) bool {
	tables := r.sheet().tables
	return len(tables) > 0 && len(tables[0].rows) > 0
}
