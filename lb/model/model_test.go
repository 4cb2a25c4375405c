// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"slices"
	"testing"
)

func TestTrace(t *testing.T) {
	tables := bothFamilies(t)
	var steps, texts []string
	tables.Trace = func(step, text string) {
		steps, texts = append(steps, step), append(texts, text)
	}
	process(t, tables, frame(to(false, tcp)).Bytes())
	if want := []string{"parse", "vip", "ring", "real", "encapsulate", "end"}; !slices.Equal(steps, want) {
		t.Errorf("steps %q, want %q", steps, want)
	}
	want := []string{
		"198.51.100.7:50000 to 203.0.113.10:443, tcp, 45 bytes",
		"203.0.113.10:0/tcp, a ring of 65537 slots, flow mode transitions",
	}
	if !slices.Equal(texts[:2], want) || texts[len(texts)-1] != "forwarded: tx" {
		t.Errorf("texts %q", texts)
	}
}
