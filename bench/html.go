// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"io"
)

// htmlTemplate is the page. It loads nothing.
//
//go:embed report.html.tmpl
var htmlTemplate string

// htmlSection is one report on the page.
type htmlSection struct {
	Title       string
	Taken       string
	Facts       []string
	Notes       []string
	Interrupted bool
	Problem     string
	Figures     []htmlFigure
	Tables      []htmlTable
}

type htmlFigure struct {
	Title string
	SVG   template.HTML
}

type htmlTable struct {
	Header []string
	Rows   []htmlRow
}

// htmlRow's last cell, a remark, spans the columns that the row lacks.
type htmlRow struct {
	Cells []string
	Rest  string
	Span  int
}

// kindTitle is the heading of a kind.
func kindTitle(kind string) string {
	switch kind {
	case KindProg:
		return "One program"
	case KindVeth:
		return "The whole path over a veth pair"
	case KindRing:
		return "Rings"
	case KindChurn:
		return "Connections while servers change"
	case KindTraffic:
		return "Traffic"
	case KindControl:
		return "Control plane"
	}
	return kind
}

// WriteHTML writes all reports as one page, which needs no network, and can be printed.
func WriteHTML(w io.Writer, reports []Report) error {
	if len(reports) == 0 {
		return errors.New("write page: there are no reports")
	}
	t, err := template.New("report").Parse(htmlTemplate)
	if err != nil {
		return fmt.Errorf("write page: %v", err)
	}
	var sections []htmlSection
	for _, r := range reports {
		sections = append(sections, newSection(r))
	}
	if err := t.Execute(w, sections); err != nil {
		return fmt.Errorf("write page: %w", err)
	}
	return nil
}

func newSection(r Report) htmlSection {
	h, sheet := r.Header(), r.sheet()
	s := htmlSection{
		Title: kindTitle(h.Kind), Taken: h.Taken.Format("2006-01-02 15:04 MST"),
		Facts: sheet.facts, Notes: sheet.notes, Interrupted: h.Interrupted,
	}
	if err := r.Err(); err != nil {
		s.Problem = err.Error()
	}
	for _, f := range r.figures() {
		s.Figures = append(s.Figures, htmlFigure{f.title, f.svg})
	}
	for _, t := range sheet.tables {
		if len(t.rows) > 0 {
			s.Tables = append(s.Tables, newHTMLTable(t))
		}
	}
	return s
}

func newHTMLTable(t table) htmlTable {
	h := htmlTable{Header: t.header}
	for _, row := range t.rows {
		r := htmlRow{Cells: row}
		if missing := len(t.header) - len(row); missing > 0 && len(row) > 0 {
			r = htmlRow{Cells: row[:len(row)-1], Rest: row[len(row)-1], Span: missing + 1}
		}
		h.Rows = append(h.Rows, r)
	}
	return h
}
