// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// Marks of a region in a document.
const (
	regionStart = "<!-- bench:"
	regionEnd   = "<!-- bench:end -->"
	markEnd     = " -->"
)

// RenewDocument replaces what lies between the marks <!-- bench:KIND --> and <!-- bench:end --> by the facts
// and tables of the reports of that kind. Regions of other kinds stay. A report without a region is an
// error, and so is a region without an end.
func RenewDocument(document []byte, reports []Report) ([]byte, error) {
	used := make([]bool, len(reports))
	var out bytes.Buffer
	rest := string(document)
	for {
		before, region, found := strings.Cut(rest, regionStart)
		out.WriteString(before)
		if !found {
			break
		}
		kind, body, found := strings.Cut(region, markEnd)
		old, after, ended := strings.Cut(body, regionEnd)
		if !found || !ended || strings.Contains(old, regionStart) {
			return nil, errors.New("a region has no end")
		}
		text, err := regionText(kind, reports, used)
		if err != nil {
			return nil, err
		}
		if text == "" {
			text = strings.TrimSpace(old)
		}
		fmt.Fprintf(&out, "%s%s%s\n%s\n%s", regionStart, kind, markEnd, text, regionEnd)
		rest = after
	}
	for i, r := range reports {
		if !used[i] {
			return nil, fmt.Errorf("there is no region for a report of kind %q", r.Header().Kind)
		}
	}
	return out.Bytes(), nil
}

func regionText(kind string, reports []Report, used []bool) (string, error) {
	var text bytes.Buffer
	for i, r := range reports {
		if r.Header().Kind != kind {
			continue
		}
		used[i] = true
		if err := WriteMarkdown(&text, r); err != nil {
			return "", err
		}
		text.WriteString("\n")
	}
	return strings.TrimSpace(text.String()), nil
}
