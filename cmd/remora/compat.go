// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"

	"github.com/remora-lb/remora/lb/config"
	"github.com/remora-lb/remora/lb/katran"
)

// exitIncompatible is for configurations that must not run beside the other balancer.
const exitIncompatible = 2

// compatHelp is what check says of --compat.
const compatHelp = `With --compat katran, what would differ from Katran is printed instead, each difference on a line:
  choice     some packets get another server than in Katran
  packet     the same server, but other outer headers
  build      the same, if Katran is built or configured so as well
  behaviour  the same while all is well; otherwise, or for other packets, not
docs/katran-migration.md says more.`

// checkCompat refuses names of balancers that are not known here; none is none.
func checkCompat(name string) error {
	if name != "" && name != "katran" {
		return fmt.Errorf("--compat %q: expected katran", name)
	}
	return nil
}

// printCompat prints what differs from Katran. The error says that both must not share VIPs.
func printCompat(out io.Writer, file string, c *config.Config) error {
	bad := 0
	for _, d := range groupDifferences(katran.Compat(c)) {
		if _, err := fmt.Fprintln(out, d); err != nil {
			return fmt.Errorf("print differences: %v", err)
		}
		if d.Kind.Breaks() {
			bad++
		}
	}
	if bad > 0 {
		return &statusError{exitIncompatible, fmt.Sprintf("%s must not run beside Katran: %s of choice or packet", file, plural(bad, "difference"))}
	}
	return nil
}

// groupDifferences makes one of those that are the same at several places.
func groupDifferences(all []katran.Difference) (groups []katran.Difference) {
	places := map[katran.Difference][]string{}
	for _, d := range all {
		same := d
		same.Where = ""
		if places[same] == nil {
			groups = append(groups, same)
		}
		places[same] = append(places[same], d.Where)
	}
	for i, d := range groups {
		where := places[d]
		groups[i].Where = where[0]
		if more := len(where) - 1; more > 0 {
			groups[i].Where += fmt.Sprintf(" and %d more", more)
		}
	}
	return groups
}
