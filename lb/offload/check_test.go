// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package offload

import (
	"bytes"
	"encoding/binary"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/google/go-cmp/cmp"

	"github.com/remora-lb/remora/test/corpus"
	"github.com/remora-lb/remora/test/require"
)

func profileNamed(tb testing.TB, name string) Profile {
	tb.Helper()
	p, err := ParseProfile(name)
	require.NoError(tb, err)
	return p
}

func checkOwn(t *testing.T, s Sizes, p Profile) Report {
	t.Helper()
	spec, err := Spec(s)
	require.NoError(t, err)
	r, err := CheckSpec(spec, p)
	require.NoError(t, err)
	return r
}

// TestOwnProgram: every kind of card takes remora's program, with room for much more.
func TestOwnProgram(t *testing.T) {
	for _, p := range Profiles() {
		t.Run(p.Name, func(t *testing.T) {
			r := checkOwn(t, SizesFor(300, 20_000, 65537), p)
			if !r.Accepted {
				t.Fatalf("refused: %v", r.Findings)
			}
			for _, f := range r.Findings {
				if f.Rule != RuleAdjustHead {
					t.Errorf("unexpected finding %v", f)
				}
			}
			const most = 1400
			if n := r.Programs[0].Estimated; n > most {
				t.Errorf("%d instructions of the card, estimated; want at most %d", n, most)
			}
		})
	}
}

// TestEstimate compares with what the driver's translator, run on Linux 6.1, made of some programs.
func TestEstimate(t *testing.T) {
	translated := map[string]int{
		"accept_update_hash": 63, "accept_element_64": 53, "accept_frame_variable_offset": 61, "accept_subprogram": 56,
		"accept_count_and_read_other_map": 76, "accept_divide_by_constant": 56, "warn_W2_long": 2428,
	}
	questions, err := corpus.Questions()
	require.NoError(t, err)
	for _, q := range questions {
		want, ok := translated[q.Name]
		if !ok {
			continue
		}
		delete(translated, q.Name)
		r, err := CheckSpec(q.Spec, profileNamed(t, "nfp"))
		require.NoError(t, err)
		if got := r.Programs[0].Estimated; got*100 < want*85 || got*100 > want*115 {
			t.Errorf("%s: %d instructions estimated, the driver's are %d", q.Name, got, want)
		}
	}
	if len(translated) != 0 {
		t.Errorf("programs that are not there: %v", translated)
	}
}

// TestHostProgram: what runs on the host is refused, for reasons of each kind.
func TestHostProgram(t *testing.T) {
	object, err := os.ReadFile("../dataplane/native_bpfel.o")
	require.NoError(t, err)
	r, err := Check(bytes.NewReader(object), profileNamed(t, "nfp"))
	require.NoError(t, err)
	if r.Accepted {
		t.Error("accepted")
	}
	for _, rule := range []Rule{RuleMapType, RuleMapFlags, RuleElementBytes, RuleData, RuleHelper, RuleMemory, RuleLength} {
		if !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Rule == rule }) {
			t.Errorf("no finding by rule %s", rule)
		}
	}
	again, err := Check(bytes.NewReader(object), profileNamed(t, "nfp"))
	require.NoError(t, err)
	if diff := cmp.Diff(r, again); diff != "" {
		t.Errorf("two runs differ:\n%s", diff)
	}
}

// TestWordUseOverPrograms: a word that one program reads and another adds to is found.
func TestWordUseOverPrograms(t *testing.T) {
	questions, err := corpus.Questions()
	require.NoError(t, err)
	both := &ebpf.CollectionSpec{Maps: map[string]*ebpf.MapSpec{}, Programs: map[string]*ebpf.ProgramSpec{}}
	for _, q := range questions {
		if q.Name == "accept_lookup_array" || q.Name == "accept_count_64" {
			both.Programs[q.Name] = q.Spec.Programs[q.Name]
			both.Maps["arr"] = q.Spec.Maps["arr"]
		}
	}
	r, err := CheckSpec(both, profileNamed(t, "nfp"))
	require.NoError(t, err)
	if r.Accepted || len(r.Findings) != 2 || r.Findings[0].Rule != RuleWordUse { // a finding for each half
		t.Errorf("findings: %v", r.Findings)
	}
}

func TestObjectsThatAreNone(t *testing.T) {
	program := func(instructions ...asm.Instruction) *ebpf.CollectionSpec {
		return &ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{
			"p": {Name: "p", Type: ebpf.XDP, Instructions: instructions},
		}}
	}
	cases := map[string]struct {
		spec *ebpf.CollectionSpec
		says string
	}{
		"no program":      {&ebpf.CollectionSpec{}, "it has no program"},
		"no instructions": {program(), "it has no instructions"},
		"no end":          {program(asm.Mov.Imm(asm.R0, 2)), "leads out of the program"},
		"jump outside":    {program(asm.Instruction{OpCode: asm.Ja.Op(asm.ImmSource), Offset: 5}, asm.Return()), "leads out of the program"},
		"register 12":     {program(asm.Mov.Imm(12, 2), asm.Return()), "names a register that there is not"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := CheckSpec(c.spec, profileNamed(t, "nfp"))
			require.ErrorSays(t, err, c.says)
		})
	}
	t.Run("no object", func(t *testing.T) {
		_, err := Check(strings.NewReader("no ELF"), profileNamed(t, "nfp"))
		require.ErrorSays(t, err, "read object")
	})
	t.Run("of another type", func(t *testing.T) {
		spec := program(asm.Mov.Imm(asm.R0, 2), asm.Return())
		spec.Programs["p"].Type = ebpf.SchedCLS
		r, err := CheckSpec(spec, profileNamed(t, "nfp"))
		require.NoError(t, err)
		if r.Accepted || r.Findings[0].Rule != RuleProgram {
			t.Errorf("findings: %v", r.Findings)
		}
	})
}

func TestParseProfile(t *testing.T) {
	_, err := ParseProfile("fpga")
	require.ErrorSays(t, err, `"fpga"`, "nfp and array-hash")
}

func TestEveryRuleHasATitle(t *testing.T) {
	for _, r := range Rules() {
		if r.Title() == "" {
			t.Errorf("rule %s has none", r)
		}
	}
}

// FuzzCheck: any instructions are judged, without panic and without end.
func FuzzCheck(f *testing.F) {
	questions, err := corpus.Questions()
	if err != nil {
		f.Fatal(err)
	}
	for _, q := range questions {
		var b bytes.Buffer
		if err := q.Spec.Programs[q.Name].Instructions.Marshal(&b, binary.LittleEndian); err == nil {
			f.Add(b.Bytes())
		}
	}
	profile := profileNamed(f, "nfp")
	f.Fuzz(func(t *testing.T, code []byte) {
		instructions, err := asm.AppendInstructions(nil, bytes.NewReader(code), binary.LittleEndian, "linux")
		if err != nil {
			return
		}
		spec := &ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{
			"p": {Name: "p", Type: ebpf.XDP, Instructions: instructions},
		}}
		r, err := CheckSpec(spec, profile)
		if err == nil && r.Accepted == slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Severity == Error }) {
			t.Errorf("accepted %t with findings %v", r.Accepted, r.Findings)
		}
	})
}
