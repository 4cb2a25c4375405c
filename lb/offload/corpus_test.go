// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package offload

import (
	"slices"
	"testing"

	"github.com/remora-lb/remora/test/corpus"
)

// leastQuestions is how many programs there are at least.
const leastQuestions = 80

// TestCorpus: the check gives the answer of each program, by the rule that the program is about alone,
// and tells the line.
func TestCorpus(t *testing.T) {
	profile, err := ParseProfile("nfp")
	if err != nil {
		t.Fatal(err)
	}
	questions, err := corpus.Questions()
	if err != nil {
		t.Fatal(err)
	}
	if len(questions) < leastQuestions {
		t.Errorf("%d programs, want at least %d", len(questions), leastQuestions)
	}
	asked := map[Rule]bool{}
	for _, q := range questions {
		asked[Rule(q.Rule)] = true
		t.Run(q.Name, func(t *testing.T) {
			report, err := CheckSpec(q.Spec, profile)
			if err != nil {
				t.Fatal(err)
			}
			checkAnswer(t, q, report)
		})
	}
	for _, r := range Rules() {
		if !asked[r] {
			t.Errorf("no program asks about rule %s", r)
		}
	}
}

func checkAnswer(t *testing.T, q corpus.Question, report Report) {
	t.Helper()
	severity := Error
	switch q.Answer {
	case corpus.Accept:
		if len(report.Findings) != 0 {
			t.Errorf("findings: %v", report.Findings)
		}
		return
	case corpus.Warn:
		severity = Warning
	case corpus.Refuse, corpus.Differ, corpus.Strict:
	default:
		t.Fatalf("the name begins with no answer")
	}
	if report.Accepted != (severity == Warning) {
		t.Errorf("accepted: %t", report.Accepted)
	}
	if !slices.ContainsFunc(report.Findings, func(f Finding) bool { return f.Rule == Rule(q.Rule) && f.Severity == severity }) {
		t.Errorf("no %s by rule %s in %v", severity, q.Rule, report.Findings)
	}
	for _, f := range report.Findings {
		if f.Instruction >= 0 && (f.File == "" || f.Line == 0) {
			t.Errorf("%v: does not tell the line", f)
		}
	}
}
