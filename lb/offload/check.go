// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package offload

import (
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// Check judges an XDP object (ELF, little-endian) by a card's rules. It reads the object only: no
// privilege, no kernel support and no card are needed. It may refuse what a card takes, where it cannot
// follow the program; it is not to accept what a card refuses. The error is about objects that cannot be
// read at all.
func Check(object io.ReaderAt, p Profile) (Report, error) {
	spec, err := ebpf.LoadCollectionSpecFromReader(object)
	if err != nil {
		return Report{}, fmt.Errorf("read object: %v", err)
	}
	return CheckSpec(spec, p)
}

// CheckSpec is Check of an object that was read, and perhaps sized, before. It leaves spec as it is.
func CheckSpec(spec *ebpf.CollectionSpec, p Profile) (Report, error) {
	if len(spec.Programs) == 0 {
		return Report{}, fmt.Errorf("check object: it has no program")
	}
	c := &checker{profile: p, spec: spec, words: map[wordName]*wordUse{}, report: Report{Profile: p.Name, Findings: []Finding{}}}
	c.checkMaps()
	for _, name := range slices.Sorted(maps.Keys(spec.Programs)) {
		if err := c.checkProgram(spec.Programs[name]); err != nil {
			return Report{}, fmt.Errorf("check program %s: %v", name, err)
		}
	}
	c.checkUpdates()
	c.report.finish()
	return c.report, nil
}

// checker is one run of Check.
type checker struct {
	profile Profile
	spec    *ebpf.CollectionSpec
	// words and updates are collected over all programs.
	words   map[wordName]*wordUse
	updates []mapUpdate
	report  Report
}

// find adds a finding if the profile asks for its rule.
func (c *checker) find(f Finding) {
	if c.profile.asks(f.Rule) {
		c.report.add(f)
	}
}

// place is an instruction of a program.
type place struct {
	program string
	at      int // as disassemblers count
	line    *btf.Line
}

// findAt is find for an instruction.
func (c *checker) findAt(where place, r Rule, s Severity, format string, args ...any) {
	f := Finding{Rule: r, Severity: s, Program: where.program, Instruction: where.at, Message: fmt.Sprintf(format, args...)}
	if where.line != nil {
		f.File, f.Line = where.line.FileName(), int(where.line.LineNumber())
	}
	c.find(f)
}

func (c *checker) checkProgram(spec *ebpf.ProgramSpec) error {
	whole := func(r Rule, s Severity, format string, args ...any) {
		c.find(Finding{Rule: r, Severity: s, Program: spec.Name, Instruction: -1, Message: fmt.Sprintf(format, args...)})
	}
	if spec.Type != ebpf.XDP {
		whole(RuleProgram, Error, "its type is %s, not XDP", spec.Type)
		return nil // the context's layout is another
	}
	if spec.Flags != 0 {
		whole(RuleProgram, Error, "it has flags %#x (0x20: several buffers a packet), and a card takes none", spec.Flags)
	}
	a, err := newAnalysis(spec)
	if err != nil {
		return err
	}
	a.solve()
	inspect(c, a)
	r := ProgramReport{
		Name: spec.Name, Instructions: int(a.rawLen), Estimated: a.estimate(),
		StackBytes: a.stackBytes(), PacketBytes: a.packetBytes,
	}
	c.report.Programs = append(c.report.Programs, r)
	limit := func(rule Rule, n, limit int, what string) {
		switch {
		case limit == 0:
		case n > limit:
			whole(rule, Error, "%s: %d, and a card takes %d", what, n, limit)
		case n*10 > limit*8:
			whole(rule, Warning, "%s: %d of %d", what, n, limit)
		}
	}
	limit(RuleLength, r.Estimated, c.profile.Instructions, "instructions of the card, estimated")
	if n := c.profile.PacketBytes; n != 0 && r.PacketBytes > n {
		whole(RulePacket, Warning, "bytes of a packet that are looked at: %d; of packets longer than %d some firmware keeps only a part at hand", r.PacketBytes, n)
	}
	if n := c.profile.StackBytes; n != 0 && r.StackBytes > n {
		whole(RuleStack, Error, "bytes of stack: %d, and a card has %d", r.StackBytes, n)
	}
	return nil
}
