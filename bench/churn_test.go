// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/require"
)

// oneServer is a balancer that sends all packets to an address that is no server's.
type oneServer struct {
	program *ebpf.Program
	applied int
	apply   error
	open    *int
}

func (b *oneServer) Program() *ebpf.Program { return b.program }

func (b *oneServer) Apply(context.Context, Fleet) error { b.applied++; return b.apply }

func (b *oneServer) HandOver(context.Context, ChurnBalancer) error { return nil }

func (b *oneServer) Close() (uint64, error) { *b.open--; return 7, nil }

func quickChurn(t *testing.T, names ...string) ChurnOptions {
	t.Helper()
	require.Root(t)
	scenarios, err := SelectScenarios(names)
	if err != nil {
		t.Fatal(err)
	}
	return ChurnOptions{
		Flows: 200, Servers: 10, Window: 2 * time.Second, Seed: 1, Gate: true,
		Modes: []lb.FlowMode{lb.FlowTransitions}, Scenarios: scenarios,
	}
}

// A balancer that sends packets where they do not belong is found out.
func TestChurnFindsStrangers(t *testing.T) {
	o := quickChurn(t, "lost-shared")
	program, _ := loadTarget(t, floor(t, "encap_const"))
	open, made := 0, []*oneServer{}
	o.New = func(s ChurnSettings) (ChurnBalancer, error) {
		if s.Window != o.Window || s.VIP.Flows != lb.FlowTransitions || s.Servers != 20 {
			t.Errorf("settings are %+v", s)
		}
		made = append(made, &oneServer{program: program, open: &open})
		open++
		return made[len(made)-1], nil
	}
	r, err := Churn(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	row := r.Rows[0]
	if row.Stranger == 0 || row.Moved != 0 || row.Lost != 0 || row.Refused != 14 || row.Changes != 15 {
		t.Errorf("row is %+v", row)
	}
	if err := r.Err(); err == nil || !strings.Contains(err.Error(), "lost-shared, transitions: flows broken: ") {
		t.Errorf("it gives %v", err)
	}
	// The first set of both, 12 changes of both, and 3 of the one that is left.
	if made[0].applied != 16 || made[1].applied != 13 || open != 0 {
		t.Errorf("applied %d and %d times, %d left open", made[0].applied, made[1].applied, open)
	}
}

func TestChurnEndsEverything(t *testing.T) {
	program, _ := loadTarget(t, floor(t, "encap_const"))
	for _, tc := range []struct {
		name string
		make func(open *int, cancel func()) (ChurnBalancer, error)
		want error
	}{
		{"no balancer", func(*int, func()) (ChurnBalancer, error) { return nil, errNo }, errNo},
		{"change fails", func(open *int, _ func()) (ChurnBalancer, error) {
			*open++
			return &oneServer{program: program, open: open, apply: errNo}, nil
		}, errNo},
		{"cancelled", func(open *int, cancel func()) (ChurnBalancer, error) {
			*open++
			time.AfterFunc(300*time.Millisecond, cancel)
			return &oneServer{program: program, open: open}, nil
		}, context.Canceled},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o, open := quickChurn(t, "add"), 0
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			o.New = func(ChurnSettings) (ChurnBalancer, error) { return tc.make(&open, cancel) }
			before := openFiles(t)
			if _, err := Churn(ctx, o); !errors.Is(err, tc.want) {
				t.Errorf("it gives %v, want %v", err, tc.want)
			}
			if after := openFiles(t); open != 0 || after > before {
				t.Errorf("%d balancers and %d files left open", open, after-before)
			}
		})
	}
}

var errNo = errors.New("no")

func TestChurnOptionsRefused(t *testing.T) {
	o := ChurnOptions{Flows: 99, Servers: 9, Window: time.Second, Runs: -1, Modes: []lb.FlowMode{lb.FlowQUIC}}
	_, err := Churn(t.Context(), o)
	for _, want := range []string{
		"flows: 99 is not", "servers: 9 is not", "window: 1s is less", "runs: -1 is not", "not for TCP", "no scenarios",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in %v", want, err)
		}
	}
	if err := DefaultChurnOptions().Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
}

func TestSelectScenarios(t *testing.T) {
	some, err := SelectScenarios([]string{"flap", "add"})
	if err != nil || len(some) != 2 || some[0].Name != "add" {
		t.Errorf("it gives %v, %v", some, err)
	}
	if _, err := SelectScenarios([]string{"ad"}); err == nil || !strings.Contains(err.Error(), `"ad" is not one of add, remove`) {
		t.Errorf("it gives %v", err)
	}
}

func TestChurnReport(t *testing.T) {
	r := ChurnReport{Head: testHead(KindChurn), Gated: true, Flows: 100, Servers: 10, Window: 4, Seed: 1, Rows: []ChurnRow{
		{Scenario: "add", Mode: "transitions", Changes: 3, Began: 120, Packets: 999, Promised: true},
		{Scenario: "add", Mode: "never", Changes: 3, Began: 140, Packets: 998, Moved: 20, Ages: []AgeRow{{AgeOlder, 0, 20}}},
		{Scenario: "flap", Mode: "transitions", Moved: 2, Dropped: 1, Lost: 4, Refused: 4, Promised: true, Ages: []AgeRow{{AgeBetween, 7, 2}}},
	}}
	var text bytes.Buffer
	if err := WriteText(&text, r); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"# 100 flows, 10 servers at the start, two balancers, window 4 s, seed 1\n",
		"add       transitions  3        120    999      0      0      0         0        0       0       0     0        kept\n",
		"BROKEN: 2 moved, 1 dropped\n",
		"add       never        older than the changes  -                 20\n",
		"flap      transitions  between the changes     7                 2\n",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is missing in\n%s", want, text.String())
		}
	}
	if err := r.Err(); err == nil || err.Error() != "flap, transitions: flows broken: 2 moved, 1 dropped" {
		t.Errorf("it gives %v", err)
	}
}
