// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/require"
)

func TestControlFleet(t *testing.T) {
	f := newControlFleet(ControlScale{VIPs: 202, Reals: 3, RingSize: 251})
	var sizes []int
	seen := map[lb.VIP]bool{}
	for _, s := range f.services {
		sizes = append(sizes, len(s.VIPs))
		for _, v := range s.VIPs {
			seen[v.VIP] = true
		}
	}
	if diff := cmp.Diff([]int{1, 100, 100, 1}, sizes); diff != "" || len(seen) != 202 {
		t.Errorf("%d VIPs, by service:\n%s", len(seen), diff)
	}
	without := f.backends(0, 2)
	if got := without["bench-0"]; len(got) != 2 || got[0].Addr != controlServer(1) {
		t.Errorf("the first service has %v", got)
	}
	if got := without["bench-3"]; len(got) != 2 || got[1].Addr != controlServer(1) {
		t.Errorf("the last service has %v", got)
	}
	want := "interface: b0\nmode: native\nnext_hop:\n  mac: \"02:00:00:00:00:02\"\n  mtu: 1500\nservices:\n" +
		"  - name: bench-0\n    ring:\n      size: 251\n    vips:\n      - 198.18.0.0:80/tcp\n    backends:\n      - 10.202.0.0\n      - 10.202.0.1\n"
	if diff := cmp.Diff(want, string(newControlFleet(ControlScale{1, 2, 251}).document("b0"))); diff != "" {
		t.Error(diff)
	}
}

// script is a program that stands for remora.
func script(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "remora")
	if err := os.WriteFile(name, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return name
}

// What cannot be measured is told, the rest is measured, and nothing is left.
func TestControlStarts(t *testing.T) {
	require.Root(t)
	for _, tc := range []struct {
		name, script string
		started      bool
		want         string
	}{
		{"starts", `[ "$1 $2 $3" = "run --once -c" ] && [ -s "$4" ] && [ -d /sys/class/net ]`, true, "no"},
		{"fails", "echo it is broken; exit 3", false, "no\nstart: exit status 3: it is broken"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := ControlOptions{
				New: func(ControlScale) (ControlBalancer, error) { return nil, errNo }, Scales: []ControlScale{{1, 2, 251}}, Changes: 2,
				Binary: script(t, tc.script), BPFFS: "/sys/fs/bpf",
			}
			t.Setenv("TMPDIR", t.TempDir())
			before := openFiles(t)
			r, err := Control(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			row := r.Rows[0]
			if row.Error != tc.want || r.Err() == nil {
				t.Errorf("it gives %q, %v, want %q", row.Error, r.Err(), tc.want)
			}
			if started := row.Start > 0 && row.Adopt > 0 && row.StartMB > 0; started != tc.started {
				t.Errorf("row is %+v", row)
			}
			if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
				t.Errorf("left are %v, %v", left, err)
			}
			if after := openFiles(t); after > before {
				t.Errorf("%d files left open", after-before)
			}
		})
	}
}

func TestControlInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	o := ControlOptions{
		New: func(ControlScale) (ControlBalancer, error) { cancel(); return nil, errNo }, Scales: []ControlScale{{1, 2, 251}}, Changes: 2,
	}
	r, err := Control(ctx, o)
	if !errors.Is(err, context.Canceled) || !r.Interrupted || Measured(r) {
		t.Errorf("it gives %v, %+v", err, r)
	}
}

func TestControlOptionsRefused(t *testing.T) {
	_, err := Control(t.Context(), ControlOptions{Changes: 1, Scales: []ControlScale{{0, 1, 1}}})
	for _, want := range []string{"no way to make a balancer", "changes: 1 is not", "VIPs are not between", "rings have not between"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in %v", want, err)
		}
	}
	if err := (ControlOptions{New: func(ControlScale) (ControlBalancer, error) { return nil, errNo }, Changes: 2, Scales: DefaultControlScales()}).Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
}
