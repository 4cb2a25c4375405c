// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// part is what one machine does. Parts do not share a machine: a module that breaks the kernel
// breaks one part.
type part struct {
	name string
	// modules are loaded in this order, each after those that it depends on.
	modules []string
	tests   []tests
}

// tests are tests of one package.
type tests struct {
	// pkg is the package's folder in the repository.
	pkg string
	// run chooses the tests that run by default; empty: all.
	run string
	// whole runs all tests of the package if everything is to be run.
	whole bool
	// quiet shows failures only.
	quiet bool
	// from is the oldest kernel that has what the package needs; empty: all have.
	from string
}

// guest is the package of the tests that need such a machine.
const guest = "test/vm/guest"

func parts() []part {
	lab := func(more ...string) []string {
		return append([]string{"veth", "bridge", "virtio_pci", "virtio_net"}, more...)
	}
	return []part{
		{
			name:    "load",
			modules: lab(),
			tests: []tests{
				{pkg: guest, run: "^TestLoad"},
				{pkg: "lb/attach", quiet: true},
				{pkg: "lb/decap", quiet: true},
				{pkg: "lb/probetunnel", quiet: true, from: "6.6"}, // TCX
				{pkg: "lb/dataplane", quiet: true, whole: true,
					run: "^Test(Attach|OpenAdopts|BPFFSIsMounted|Verdicts|WorkedPackets|FlowTransitions|Growth|VerifierWalk|PinnedMapsCarryBTF|LargeMTU)$"},
			},
		},
		{
			name:    "forward",
			modules: lab("ipip", "sit", "ip6_tunnel", "fou", "fou6", "pktgen"),
			tests:   []tests{{pkg: guest, run: "^TestForward"}},
		},
		{
			name:    "card",
			modules: lab("netdevsim", "nfpsim"),
			tests:   []tests{{pkg: guest, run: "^TestCard"}},
		},
	}
}

func partNames() string {
	var names []string
	for _, p := range parts() {
		names = append(names, p.name)
	}
	return strings.Join(names, ", ")
}

// choose are the parts to run, with the tests to run of each.
func choose(opts options) ([]part, error) {
	var chosen []part
	for _, p := range parts() {
		if opts.only != "" && opts.only != p.name {
			continue
		}
		var kept []tests
		for _, t := range p.tests {
			if older(opts.kernel, t.from) {
				continue
			}
			if t.whole && opts.full {
				t.run = ""
			}
			if opts.run != "" {
				t.run = opts.run
			}
			kept = append(kept, t)
		}
		p.tests = kept
		chosen = append(chosen, p)
	}
	if chosen == nil {
		return nil, fmt.Errorf("no part is called %q; there are: %s", opts.only, partNames())
	}
	return chosen, nil
}

// older tells whether a series of kernels is older than another; none is older than "".
func older(series, than string) bool {
	var a, b [2]int
	// What is no number counts as 0.
	_, _ = fmt.Sscanf(series, "%d.%d", &a[0], &a[1])
	_, _ = fmt.Sscanf(than, "%d.%d", &b[0], &b[1])
	return slices.Compare(a[:], b[:]) < 0
}

// binary is the name of the test program.
func (t tests) binary() string { return strings.ReplaceAll(t.pkg, "/", "-") + ".test" }

// command is how the machine's shell runs the tests, in the package's folder of the source tree.
func (t tests) command() string {
	args := []string{"/tests/" + t.binary(), "-test.timeout", "10m"}
	if !t.quiet {
		args = append(args, "-test.v")
	}
	if t.run != "" {
		args = append(args, "-test.run", "'"+t.run+"'")
	}
	return fmt.Sprintf("run %s %s", path.Join("/source", t.pkg), strings.Join(args, " "))
}
