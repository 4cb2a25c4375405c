// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/require"
)

// expecting returns a reference program's target that is taken for something else.
func expecting(t *testing.T, name string, e Expectation) Target {
	target := floor(t, name)
	target.Expect = func(Case) Expectation { return e }
	return target
}

func TestProgRejectsWrongPrograms(t *testing.T) {
	require.Root(t)
	for _, tc := range []struct {
		name, program string
		expect        Expectation
		want          string
	}{
		{"verdict", "drop", Expectation{lb.TX, 0}, "verdict and growth are drop +0, expected tx +0"},
		{"growth", "encap_const", Expectation{lb.TX, 40}, "verdict and growth are tx +20, expected tx +40"},
		{"no growth", "tx", Expectation{lb.TX, 20}, "verdict and growth are tx +0, expected tx +20"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ack := []Case{caseNamed(t, "tcp4-ack")}
			r, err := Prog(t.Context(), quick(), []Target{expecting(t, tc.program, tc.expect)}, ack, []int{1})
			if err != nil {
				t.Fatal(err)
			}
			if len(r.Rows) != 2 {
				t.Fatalf("%d rows, want those of %s and %s", len(r.Rows), Unit, tc.program)
			}
			if r.Rows[0].Target != Unit || r.Rows[0].Error != "" || r.Rows[0].Ratio != 1 {
				t.Errorf("row of the unit is %+v", r.Rows[0])
			}
			bad := r.Rows[1]
			if bad.Error != tc.want || bad.Ratio != 0 || bad.NetP10 != 0 || len(bad.Ratios) != 0 {
				t.Errorf("row is %+v, want no figures and error %q", bad, tc.want)
			}
		})
	}
}

// Each case's expectations of the reference programs hold, with one flow and with many.
func TestProgMeasuresReferencePrograms(t *testing.T) {
	require.Root(t)
	r, err := Prog(t.Context(), quick(), Floors(), Cases(), []int{1, 64})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Err(); err != nil {
		t.Error(err)
	}
	const units = 5 // cases that lb_stats is measured on; all but the echo have many flows, too
	if want := 2*units + len(Floors())*(2*len(Cases())-1); len(r.Rows) != want {
		t.Errorf("%d rows, want %d", len(r.Rows), want)
	}
	for _, p := range r.Programs {
		if p.Instructions == 0 || p.Walked == 0 {
			t.Errorf("size of %s is unknown: %+v", p.Name, p)
		}
	}
}

func TestProgEnds(t *testing.T) {
	require.Root(t)
	ack := []Case{caseNamed(t, "tcp4-ack")}
	ctx, cancel := context.WithCancel(t.Context())
	target := floor(t, "drop")
	load := target.Load
	target.Load = func() (*ebpf.Program, io.Closer, error) {
		cancel()
		return load()
	}
	if _, err := Prog(ctx, quick(), []Target{target}, ack, []int{1}); !errors.Is(err, context.Canceled) {
		t.Errorf("after cancellation it gives %v", err)
	}
	target.Load = func() (*ebpf.Program, io.Closer, error) { return nil, nil, errors.New("no such program") }
	if _, err := Prog(t.Context(), quick(), []Target{target}, ack, []int{1}); err == nil || !strings.Contains(err.Error(), "load drop: no such program") {
		t.Errorf("a target that cannot be loaded gives %v", err)
	}
}

// What was measured before an interruption is kept, also of the first reload.
func TestProgInterrupted(t *testing.T) {
	require.Root(t)
	o := quick()
	o.Rounds = 1 << 30
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	r, err := Prog(ctx, o, []Target{floor(t, "tx")}, []Case{caseNamed(t, "tcp4-ack")}, []int{1})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it gives %v", err)
	}
	if err := r.validate(); err != nil || !r.Interrupted || len(r.Rows) != 2 || len(r.Rows[1].Ratios) != 1 {
		t.Errorf("report is %+v, %v", r, err)
	}
}

// counted returns the packets that lb_stats has counted, and by how many reals.
func counted(t *testing.T, maps map[string]*ebpf.Map) (packets uint64, reals int) {
	t.Helper()
	for id := range uint32(realsByVIP + 1) {
		var byCPU []referenceCounter
		if err := maps["ref_counters"].Lookup(id, &byCPU); err != nil {
			t.Fatal(err)
		}
		var sum uint64
		for _, c := range byCPU {
			sum += c.Pkts
		}
		if packets += sum; sum > 0 {
			reals++
		}
	}
	return packets, reals
}

func TestStubAlternatesAndVariesFlows(t *testing.T) {
	require.Root(t)
	for _, tc := range []struct {
		name     string
		flows    int
		atLeast  int
		atMost   int
		caseName string
	}{
		{"one flow", 1, 1, 1, "tcp4-ack"},
		{"two flows", 2, 1, 2, "udp4"},
		{"many flows", 4096, realsByVIP, realsByVIP, "tcp4-ack"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			program, maps := loadTarget(t, UnitTarget())
			s, err := newStub(caseNamed(t, tc.caseName), tc.flows, Expectation{lb.TX, 20}, program)
			if err != nil {
				t.Fatal(err)
			}
			defer s.close()
			if _, err := s.run(); err != nil {
				t.Fatal(err)
			}
			packets, reals := counted(t, maps)
			if want := uint64(chunksLen * rewindPackets / 2); packets != want {
				t.Errorf("the target got %d packets, want half of them, %d", packets, want)
			}
			if reals < tc.atLeast || reals > tc.atMost {
				t.Errorf("%d reals got packets, want %d to %d", reals, tc.atLeast, tc.atMost)
			}
		})
	}
}

// The constants of both languages agree.
func TestStubChunkLength(t *testing.T) {
	require.Root(t)
	program, _ := loadTarget(t, floor(t, "tx"))
	s, err := newStub(caseNamed(t, "tcp4-ack"), 1, Expectation{lb.TX, 0}, program)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if _, err := s.program().Run(&ebpf.RunOptions{Data: s.frame, Repeat: 3*rewindPackets + 1}); err != nil {
		t.Fatal(err)
	}
	checkChunks(t, s.coll, 4)
}

// checkChunks checks that so many chunks have begun.
func checkChunks(t *testing.T, coll *ebpf.Collection, want int) {
	t.Helper()
	var times [chunksLen]uint32
	if err := coll.Variables["chunks_ns"].Get(&times); err != nil {
		t.Fatal(err)
	}
	for i, ns := range times {
		if begun := i < want; begun != (ns != 0) {
			t.Errorf("time of chunk %d is %d ns, want %d chunks begun", i, ns, want)
		}
	}
}

// The kernel lets a stub call only programs that are like it.
func TestStubTakesAnyKindOfProgram(t *testing.T) {
	require.Root(t)
	for name, kind := range map[string]struct {
		flags  uint32
		attach ebpf.AttachType
	}{
		"linear":                    {0, ebpf.AttachXDP},
		"fragments":                 {unix.BPF_F_XDP_HAS_FRAGS, ebpf.AttachXDP},
		"no attach type":            {0, ebpf.AttachNone},
		"fragments, no attach type": {unix.BPF_F_XDP_HAS_FRAGS, ebpf.AttachNone},
	} {
		t.Run(name, func(t *testing.T) {
			spec, err := loadReference()
			if err != nil {
				t.Fatal(err)
			}
			if err := keepProgram(spec, "encap_const"); err != nil {
				t.Fatal(err)
			}
			spec.Programs["encap_const"].Flags |= kind.flags
			spec.Programs["encap_const"].AttachType = kind.attach
			coll, err := ebpf.NewCollection(spec)
			if err != nil {
				t.Fatal(err)
			}
			defer coll.Close()
			s, err := newStub(caseNamed(t, "tcp4-ack"), 1, Expectation{lb.TX, 20}, coll.Programs["encap_const"])
			if err != nil {
				t.Fatal(err)
			}
			defer s.close()
			if _, err := s.check(); err != nil {
				t.Error(err)
			}
			if _, err := s.run(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestObjectTarget(t *testing.T) {
	require.Root(t)
	if _, _, err := ObjectTarget("x", "reference_bpfel.o", "").Load(); err == nil || !strings.Contains(err.Error(), "5 XDP programs (drop, encap_const, lb_ring, lb_stats, tx): name one") {
		t.Errorf("no program named gives %v", err)
	}
	if _, _, err := ObjectTarget("x", "reference_bpfel.o", "nat").Load(); err == nil || !strings.Contains(err.Error(), `no program "nat"`) {
		t.Errorf("an unknown program gives %v", err)
	}
	p, _ := loadTarget(t, ObjectTarget("x", "reference_bpfel.o", "drop"))
	if _, err := checkProgram(p, caseNamed(t, "tcp4-ack").Frame, Expectation{lb.Drop, 0}); err != nil {
		t.Error(err)
	}
}
