// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// sheet is a report in the form of text: facts, notes, tables.
type sheet struct {
	facts, notes []string
	tables       []table
}

// table's rows may be shorter than its header; the last cell of those is a remark.
type table struct {
	header []string
	rows   [][]string
}

func (s sheet) writeText(w io.Writer) error {
	var b strings.Builder
	for _, f := range s.facts {
		fmt.Fprintf(&b, "# %s\n", f)
	}
	for _, n := range s.notes {
		fmt.Fprintf(&b, "# note: %s\n", n)
	}
	for _, t := range s.tables {
		b.WriteString("\n")
		t.text(&b)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (s sheet) writeMarkdown(w io.Writer) error {
	var b strings.Builder
	for _, f := range s.facts {
		fmt.Fprintf(&b, "- %s\n", f)
	}
	for _, n := range s.notes {
		fmt.Fprintf(&b, "- Note: %s\n", n)
	}
	for _, t := range s.tables {
		b.WriteString("\n")
		t.markdown(&b)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// text aligns the columns by the rows that have all of them.
func (t table) text(b *strings.Builder) {
	width := make([]int, len(t.header))
	for _, row := range append([][]string{t.header}, t.rows...) {
		for i, cell := range row {
			if i < len(row)-1 || len(row) == len(t.header) {
				width[i] = max(width[i], utf8.RuneCountInString(cell))
			}
		}
	}
	for _, row := range append([][]string{t.header}, t.rows...) {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(cell + strings.Repeat(" ", max(0, width[i]-utf8.RuneCountInString(cell))+2))
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}

func (t table) markdown(b *strings.Builder) {
	line := func(cells []string) {
		b.WriteString("|")
		for i := range t.header {
			cell := ""
			if i < len(cells) {
				cell = strings.ReplaceAll(cells[i], "|", `\|`)
			}
			b.WriteString(" " + cell + " |")
		}
		b.WriteString("\n")
	}
	line(t.header)
	b.WriteString("|" + strings.Repeat("---|", len(t.header)) + "\n")
	for _, row := range t.rows {
		line(row)
	}
}
