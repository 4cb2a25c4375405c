// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	_ "embed"
	"fmt"
	"strings"
)

// record is the committed report of the gate.
//
//go:embed record.json
var record []byte

// CommittedRecord is the report of the gate that was taken when the packet program last changed on purpose.
func CommittedRecord() (ProgramReport, error) {
	r, err := ReadReport(bytes.NewReader(record))
	if err != nil {
		return ProgramReport{}, fmt.Errorf("read committed record: %w", err)
	}
	p, ok := r.(ProgramReport)
	if !ok || p.Kind != KindProg {
		return ProgramReport{}, fmt.Errorf("read committed record: its kind is %q", r.Header().Kind)
	}
	return p, nil
}

// CompareRecord compares a report of the gate with a record of it. It is judged only where the record
// was taken: on another CPU, with other mitigations or with another kernel, even ratios differ.
func CompareRecord(record, r ProgramReport) (Comparison, error) {
	c, err := Compare(record, r)
	if err != nil {
		return Comparison{}, err
	}
	if other := record.Machine.differences(r.Machine); len(other) > 0 {
		c.Unjudged = "the record is of another machine (" + strings.Join(other, "; ") + ")"
	}
	return c, nil
}
