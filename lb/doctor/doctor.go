// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package doctor finds out why a balancer, or a server behind one, does not do its work. A check
// is a small function that reads the machine and returns findings: what was found, how bad it is,
// and the command or the line of configuration that mends it. Nothing is ever changed.
//
// balancer.go and server.go list the checks; machine.go is what they read, package machine the
// real one. What the daemon, the data plane and Consul say is handed in as plain values.
package doctor

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// Verdict is how bad a finding is.
type Verdict uint8

// The verdicts, worst first.
const (
	// Fail: packets are lost, or will be.
	Fail Verdict = iota
	// Warn: it works now, or in part.
	Warn
	// CannotTell: the check could not be made; Needs says what it takes.
	CannotTell
	// Note: nothing is wrong, but somebody may want to know.
	Note
	// OK: as it should be.
	OK

	verdictLen
)

var verdictNames = [verdictLen]string{"fail", "warn", "cannot tell", "note", "ok"}

func (v Verdict) String() string {
	if v < verdictLen {
		return verdictNames[v]
	}
	return fmt.Sprintf("verdict %d", uint8(v))
}

// MarshalText implements encoding.TextMarshaler.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// Finding is the result of a check.
type Finding struct {
	// ID names what was checked; it is stable.
	ID string `json:"id"`
	// Group is the part of the whole that it belongs to.
	Group string `json:"group"`
	// Object is what it is about: an interface, a real, a VIP; may be empty.
	Object  string  `json:"object,omitempty"`
	Verdict Verdict `json:"verdict"`
	// Facts are what was found, and what it means.
	Facts string `json:"facts"`
	// Cure is the command or the line of configuration that mends it; empty if nothing needs to be.
	Cure string `json:"cure,omitempty"`
	// Needs is what a check needs that could not be made.
	Needs string `json:"needs,omitempty"`
	// Unprivileged tells that it could not be made for want of privileges.
	Unprivileged bool `json:"unprivileged,omitempty"`
}

// cure adds what mends it.
func (f Finding) cure(format string, args ...any) Finding {
	f.Cure = fmt.Sprintf(format, args...)
	return f
}

func finding(v Verdict, id, object, format string, args ...any) Finding {
	return Finding{ID: id, Object: object, Verdict: v, Facts: fmt.Sprintf(format, args...)}
}

func fail(id, object, format string, args ...any) Finding {
	return finding(Fail, id, object, format, args...)
}

func warn(id, object, format string, args ...any) Finding {
	return finding(Warn, id, object, format, args...)
}

func note(id, object, format string, args ...any) Finding {
	return finding(Note, id, object, format, args...)
}

func fine(id, object, format string, args ...any) Finding {
	return finding(OK, id, object, format, args...)
}

// cannotTell is a check that could not be made because of err, and what it takes.
func cannotTell(id, object string, err error, needs string) Finding {
	f := finding(CannotTell, id, object, "%v", err)
	f.Needs = needs
	if errors.Is(err, fs.ErrPermission) {
		f.Unprivileged = true
		f.Needs = "root"
	}
	return f
}

// check is one check of a subject, and the group that its findings belong to.
type check[S any] struct {
	group string
	run   func(S, context.Context) []Finding // a method expression
}

// examine makes the checks, one after the other.
func examine[S any](ctx context.Context, subject S, checks []check[S]) Report {
	findings := []Finding{}
	for _, c := range checks {
		for _, f := range c.run(subject, ctx) {
			f.Group = c.group
			findings = append(findings, f)
		}
	}
	return Report{Findings: findings}
}

// Report is all findings, in the order of the checks.
type Report struct {
	Findings []Finding `json:"findings"`
}

// Count is how many findings have a verdict.
func (r Report) Count(v Verdict) int {
	n := 0
	for _, f := range r.Findings {
		if f.Verdict == v {
			n++
		}
	}
	return n
}

// Status is 2 if anything fails, 1 if there are warnings, and else 0.
func (r Report) Status() int {
	switch {
	case r.Count(Fail) > 0:
		return 2
	case r.Count(Warn) > 0:
		return 1
	}
	return 0
}

// Sorted are the findings, the worst first.
func (r Report) Sorted() []Finding {
	sorted := slices.Clone(r.Findings)
	slices.SortStableFunc(sorted, func(a, b Finding) int { return cmp.Compare(a.Verdict, b.Verdict) })
	return sorted
}

// Unprivileged are the ids of the checks that could not be made for want of privileges.
func (r Report) Unprivileged() []string {
	var ids []string
	for _, f := range r.Findings {
		if f.Unprivileged {
			ids = append(ids, f.ID)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// MarshalJSON implements json.Marshaler: the findings, the worst first, and their counts.
func (r Report) MarshalJSON() ([]byte, error) {
	counts := make(map[string]int)
	for v := range verdictLen {
		counts[strings.ReplaceAll(v.String(), " ", "_")] = r.Count(v)
	}
	return json.Marshal(struct {
		Status   int            `json:"status"`
		Counts   map[string]int `json:"counts"`
		Findings []Finding      `json:"findings"`
	}{r.Status(), counts, r.Sorted()})
}

// some lists the first few of a list, and says how many there are beside them.
func some(list []string) string {
	const most = 5
	if len(list) <= most {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:most], ", "), len(list)-most)
}
