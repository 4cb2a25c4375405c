// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/remora-lb/remora/lb/doctor"
)

func printDoctorJSON(out io.Writer, r doctor.Report) error {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

// printDoctor prints the findings, the worst first, and how many there are of each kind.
func printDoctor(out io.Writer, r doctor.Report, verbose bool) error {
	var text strings.Builder
	for _, f := range r.Sorted() {
		if f.Verdict == doctor.OK && !verbose {
			continue
		}
		printFinding(&text, f)
	}
	fmt.Fprintf(&text, "%d fail, %d warn, %d cannot tell, %d note, %d ok\n",
		r.Count(doctor.Fail), r.Count(doctor.Warn), r.Count(doctor.CannotTell), r.Count(doctor.Note), r.Count(doctor.OK))
	if ids := r.Unprivileged(); len(ids) > 0 {
		fmt.Fprintf(&text, "not checked for want of privileges, run as root: %s\n", strings.Join(ids, ", "))
	}
	_, err := io.WriteString(out, text.String())
	return err
}

func printFinding(out io.Writer, f doctor.Finding) {
	title := f.ID
	if f.Object != "" {
		title += ": " + f.Object
	}
	fmt.Fprintf(out, "%-11s  [%s] %s\n               %s\n", strings.ToUpper(f.Verdict.String()), f.Group, title, indent(f.Facts))
	if f.Cure != "" {
		fmt.Fprintf(out, "        cure:  %s\n", indent(f.Cure))
	}
	if f.Needs != "" {
		fmt.Fprintf(out, "       needs:  %s\n", indent(f.Needs))
	}
	fmt.Fprintln(out)
}
