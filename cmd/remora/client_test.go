// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/remora-lb/remora/lb"
	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
	"github.com/remora-lb/remora/lb/control"
	"github.com/remora-lb/remora/test/require"
)

// clientDaemon has one backend of two VIPs, and drains as its script says.
type clientDaemon struct {
	mu       sync.Mutex // guards what follows
	targets  []lb.Target
	drained  []control.Drain
	script   []control.DrainState // of the looks at a drain, the last for good; no script is done
	timeout  time.Duration
	document string
}

func newClientDaemon(t *testing.T, script ...control.DrainState) *clientDaemon {
	t.Helper()
	d := &clientDaemon{script: script}
	for _, text := range []string{"192.0.2.10:80/tcp", "[2001:db8:ff::10]:443/udp"} {
		v, err := lb.ParseVIP(text)
		require.NoError(t, err)
		d.targets = append(d.targets, lb.Target{VIP: v, Backend: netip.MustParseAddr("10.20.0.11")})
	}
	return d
}

func (d *clientDaemon) Status(context.Context) (control.Status, error) {
	var s control.Service
	for _, t := range d.targets {
		s.VIPs = append(s.VIPs, control.VIP{
			VIPEntry: lb.VIPEntry{VIP: t.VIP},
			Reals:    []control.Real{{Real: lb.Real{Backend: lb.Backend{Addr: t.Backend}}}},
		})
	}
	return control.Status{Services: []control.Service{s}}, nil
}

func (d *clientDaemon) Drain(_ context.Context, s control.Selection, timeout time.Duration) ([]control.Drain, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.timeout, d.drained = timeout, nil
	for _, t := range d.targets {
		if s.Names(t) {
			d.drained = append(d.drained, control.Drain{Target: t, Deadline: time.Now().Add(time.Hour), Slots: 100, Flows: 7, Active: 3})
		}
	}
	if len(d.drained) == 0 {
		return nil, &control.Error{Code: control.CodeNotFound, Problem: "no such backend"}
	}
	return d.drained, nil
}

func (d *clientDaemon) Undrain(context.Context, control.Selection) (ended []lb.Target, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, drain := range d.drained {
		ended = append(ended, drain.Target)
	}
	d.drained = nil
	return ended, nil
}

func (d *clientDaemon) Drains(context.Context, control.Selection) ([]control.Drain, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	state := control.DrainDone
	if len(d.script) > 0 {
		state = d.script[0]
	}
	if len(d.script) > 1 {
		d.script = d.script[1:]
	}
	if state == control.DrainEnded {
		return nil, nil
	}
	now := slices.Clone(d.drained)
	for i := range now {
		now[i].State = state
	}
	return now, nil
}

// DrainNode implements control.Daemon.
func (d *clientDaemon) DrainNode(context.Context, bool) error {
	return &control.Error{Code: control.CodeRefused, Problem: "the balancer announces nothing"}
}

func (d *clientDaemon) ExportState(_ context.Context, w io.Writer) error {
	if d.document == "" {
		return errors.New("flow table cannot be read")
	}
	_, err := io.WriteString(w, d.document)
	return err
}

func (d *clientDaemon) ImportState(_ context.Context, r io.Reader) (control.Imported, error) {
	document, err := io.ReadAll(r)
	if err != nil {
		return control.Imported{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.document = string(document)
	return control.Imported{Rings: 1, RingsSkipped: 2, Flows: 3, FlowsSkipped: 4}, nil
}

// serveControl serves a daemon until the test ends, and returns the socket's path.
func serveControl(t *testing.T, d control.Daemon) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "control.sock")
	s, err := control.New(control.Config{Socket: socket, Daemon: d, WatchInterval: time.Millisecond})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the server ends with %v", err)
		}
	})
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := control.Dial(t.Context(), socket)
		if err == nil {
			c.Close()
			return socket
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		<-tick.C
	}
}

// runVerb runs a verb, and returns what it prints.
func runVerb(t *testing.T, cmd *cobra.Command, in string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd.SetArgs(args)
	cmd.SetIn(strings.NewReader(in))
	cmd.SetOut(&out)
	cmd.SetErr(io.Discard)
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestClientMistakes(t *testing.T) {
	socket := serveControl(t, newClientDaemon(t))
	none := filepath.Join(t.TempDir(), "none.sock")
	for _, tc := range []struct {
		name string
		cmd  func() *cobra.Command
		args []string
		want []string
	}{
		{"drain nothing", newDrainCommand, nil, []string{"0 arguments: write `remora drain REAL` or `remora drain VIP REAL`; `remora drains` lists the drains"}},
		{"undrain too much", newUndrainCommand, []string{"a", "b", "c"}, []string{"3 arguments: write `remora undrain REAL`"}},
		{"instance", newDrainCommand, []string{"--instance", "a/b", "10.20.0.11"}, []string{`instance name "a/b"`}},
		{"output", newUndrainCommand, []string{"-o", "yaml", "10.20.0.11"}, []string{`output "yaml" is not text or json`}},
		{"no daemon", newDrainCommand, []string{"--socket", none, "10.20.0.11"}, []string{"no daemon serves " + none, "start `remora run`"}},
		{"no daemon of an instance", newDrainCommand, []string{"--instance", "nosuch", "10.20.0.11"}, []string{"no daemon serves /run/remora/nosuch.sock"}},
		{"VIP", newDrainCommand, []string{"--socket", socket, "192.0.2.10", "10.20.0.11"}, []string{`parse VIP "192.0.2.10": no protocol`}},
		{"VIP for a backend", newUndrainCommand, []string{"--socket", socket, "192.0.2.10:80/tcp"}, []string{`"192.0.2.10:80/tcp" is not an IPv4 or IPv6 address; write it as 10.20.0.11`}},
		{"unknown VIP", newDrainCommand, []string{"--socket", socket, "192.0.2.10:81/tcp", "10.20.0.11"}, []string{"there is no VIP 192.0.2.10:81/tcp; the nearest: 192.0.2.10:80/tcp"}},
		{"unknown backend", newDrainCommand, []string{"--socket", socket, "10.20.0.12"}, []string{"no VIP has the backend 10.20.0.12; the nearest: 10.20.0.11"}},
		{"timeout", newDrainCommand, []string{"--socket", socket, "10.20.0.11", "--timeout", "0s"}, []string{"timeout: 0s is not more than 0"}},
		{"two files", newStateCommand, []string{"export", "a", "b"}, []string{"accepts at most 1 arg"}},
		{"export", newStateCommand, []string{"export", "--socket", socket}, []string{"flow table cannot be read"}},
		{"import from nowhere", newStateCommand, []string{"import", "--socket", socket, none}, []string{"open " + none + ": no such file"}},
		{"verb of state", newStateCommand, []string{"exprot"}, []string{`unknown command "exprot"`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, err := runVerb(t, tc.cmd(), "", tc.args...)
			require.ErrorSays(t, err, tc.want...)
			if out != "" {
				t.Errorf("it prints %q", out)
			}
			if status := exitStatus(err); status != 1 {
				t.Errorf("exit status %d", status)
			}
		})
	}
}

func TestDrain(t *testing.T) {
	const line = "192.0.2.10:80/tcp 10.20.0.11: "
	for _, tc := range []struct {
		name   string
		script []control.DrainState
		args   []string
		want   []string
		status int
	}{
		{"begin", nil, nil, []string{line + "draining, 3 active of 7 known flows and 100 slots left, until ", " (1h0m0s)\n", "[2001:db8:ff::10]:443/udp 10.20.0.11: draining"}, 0},
		{"begin, JSON", nil, []string{"-o", "json"}, []string{`{"drains":[{"vip":"192.0.2.10:80/tcp","backend":"10.20.0.11","state":"DRAIN_STATE_RUNNING",`}, 0},
		{"wait", []control.DrainState{control.DrainRunning, control.DrainRunning, control.DrainDone}, []string{"--wait"},
			[]string{line + "draining, 3 active", line + "done, 3 active of 7 known flows\n"}, 0},
		{"wait, JSON", []control.DrainState{control.DrainRunning, control.DrainDone}, []string{"--wait", "-o", "json"},
			[]string{`"state":"DRAIN_STATE_RUNNING"`, "}\n{", `"state":"DRAIN_STATE_DONE"`}, 0},
		{"deadline", []control.DrainState{control.DrainRunning, control.DrainExpired}, []string{"--wait"},
			[]string{line + "deadline passed, 3 active of 7 known flows were given to others\n"}, 3},
		{"ended", []control.DrainState{control.DrainRunning, control.DrainEnded}, []string{"--wait"},
			[]string{line + "ended, 3 active of 7 known flows were left\n"}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			socket := serveControl(t, newClientDaemon(t, tc.script...))
			out, err := runVerb(t, newDrainCommand(), "", append([]string{"--socket", socket, "10.20.0.11"}, tc.args...)...)
			for _, want := range tc.want {
				if !strings.Contains(out, want) {
					t.Errorf("it prints %q, want %q", out, want)
				}
			}
			if status := exitStatus(err); status != tc.status {
				t.Errorf("exit status %d because of %v, want %d", status, err, tc.status)
			}
		})
	}
}

func TestDrains(t *testing.T) {
	d := newClientDaemon(t, control.DrainRunning)
	socket := serveControl(t, d)
	list := func(args ...string) string {
		t.Helper()
		out, err := runVerb(t, newDrainsCommand(), "", append(args, "--socket", socket)...)
		require.NoError(t, err)
		return out
	}
	if out := list(); out != "no backend is drained\n" {
		t.Errorf("without a drain it prints %q", out)
	}
	_, err := runVerb(t, newDrainCommand(), "", "--socket", socket, "10.20.0.11")
	require.NoError(t, err)
	for _, tc := range []struct {
		state control.DrainState
		want  string
	}{
		{control.DrainRunning, "draining"}, {control.DrainDone, "done"}, {control.DrainExpired, "deadline passed"},
	} {
		d.script = []control.DrainState{tc.state}
		lines := strings.Split(list(), "\n")
		want := "192.0.2.10:80/tcp 10.20.0.11 " + tc.want + " 3 7 100"
		if len(lines) != 4 || !strings.HasPrefix(strings.Join(strings.Fields(lines[1]), " "), want) {
			t.Errorf("it prints %q, want a second line of %q", lines, want)
		}
	}
	if out := list("-o", "json"); !strings.HasPrefix(out, `{"drains":[{"vip":"192.0.2.10:80/tcp",`) {
		t.Errorf("JSON: %q", out)
	}
}

// TestDrainFlags: what is given arrives, and what is not is left to the daemon.
func TestDrainFlags(t *testing.T) {
	d := newClientDaemon(t)
	socket := serveControl(t, d)
	for _, tc := range []struct {
		args    []string
		drained int
		timeout time.Duration
	}{
		{[]string{"10.20.0.11"}, 2, 0},
		{[]string{"192.0.2.10:80/tcp", "10.20.0.11", "--timeout", "10m"}, 1, 10 * time.Minute},
	} {
		_, err := runVerb(t, newDrainCommand(), "", append(tc.args, "--socket", socket)...)
		require.NoError(t, err)
		if len(d.drained) != tc.drained || d.timeout != tc.timeout {
			t.Errorf("%v: %d drained for %v", tc.args, len(d.drained), d.timeout)
		}
	}
}

func TestDrainInterrupted(t *testing.T) {
	socket := serveControl(t, newClientDaemon(t, control.DrainRunning))
	ctx, cancel := context.WithCancel(t.Context())
	cmd := newDrainCommand()
	cmd.SetArgs([]string{"--socket", socket, "10.20.0.11", "--wait"})
	cmd.SetOut(writerFunc(func(p []byte) (int, error) { // as soon as it waits
		cancel()
		return len(p), nil
	}))
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	require.ErrorSays(t, cmd.ExecuteContext(ctx), "interrupted: the drain goes on")
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestDrainPrinter: a terminal has the present state, a file few lines.
func TestDrainPrinter(t *testing.T) {
	progress := func(state remorav1.DrainState, flows uint32) []*remorav1.DrainProgress {
		return []*remorav1.DrainProgress{{Vip: "v", Backend: "b", State: state, FlowsLeft: flows}}
	}
	steps := []struct {
		at    time.Duration
		state remorav1.DrainState
		flows uint32
	}{
		{0, remorav1.DrainState_DRAIN_STATE_RUNNING, 9},
		{time.Second, remorav1.DrainState_DRAIN_STATE_RUNNING, 8},
		{10 * time.Second, remorav1.DrainState_DRAIN_STATE_RUNNING, 7},
		{11 * time.Second, remorav1.DrainState_DRAIN_STATE_EXPIRED, 6},
	}
	for _, tc := range []struct {
		name     string
		terminal bool
		want     []string
		clears   int
	}{
		{"file", false, []string{"of 9 known flows", "of 7 known flows", "of 6 known flows"}, 0},
		{"terminal", true, []string{"of 9 known flows", "of 8 known flows", "of 7 known flows", "of 6 known flows"}, 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer
			var now time.Time
			p := drainPrinter{out: &out, terminal: tc.terminal, interval: 10 * time.Second, now: func() time.Time { return now }}
			for _, s := range steps {
				now = time.Unix(0, 0).Add(s.at)
				require.NoError(t, p.print(progress(s.state, s.flows)))
			}
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			if len(lines) != len(tc.want) || strings.Count(out.String(), "\x1b[1A\x1b[J") != tc.clears {
				t.Fatalf("it prints %q", &out)
			}
			for i, want := range tc.want {
				if !strings.Contains(lines[i], want) {
					t.Errorf("line %d is %q, want %q", i+1, lines[i], want)
				}
			}
		})
	}
}

func TestUndrain(t *testing.T) {
	d := newClientDaemon(t)
	socket := serveControl(t, d)
	_, err := runVerb(t, newDrainCommand(), "", "--socket", socket, "10.20.0.11")
	require.NoError(t, err)
	for _, want := range []string{
		"192.0.2.10:80/tcp 10.20.0.11: not drained any more\n[2001:db8:ff::10]:443/udp 10.20.0.11: not drained any more\n",
		"10.20.0.11: was not drained\n",
	} {
		out, err := runVerb(t, newUndrainCommand(), "", "--socket", socket, "10.20.0.11")
		require.NoError(t, err)
		if out != want {
			t.Errorf("it prints %q, want %q", out, want)
		}
	}
	out, err := runVerb(t, newUndrainCommand(), "", "--socket", socket, "10.20.0.11", "-o", "json")
	if err != nil || out != "{\"vips\":[]}\n" {
		t.Errorf("it prints %q, %v", out, err)
	}
}

func TestState(t *testing.T) {
	d := newClientDaemon(t)
	socket := serveControl(t, d)
	verb := func(in string, args ...string) string {
		t.Helper()
		out, err := runVerb(t, newStateCommand(), in, append(args, "--socket", socket)...)
		require.NoError(t, err)
		return out
	}
	if out := verb(`{"version":1}`, "import"); out != "1 rings (2 skipped), 3 flows (4 skipped)\n" || d.document != `{"version":1}` {
		t.Errorf("import prints %q, the daemon has %q", out, d.document)
	}
	if out := verb("", "export"); out != d.document {
		t.Errorf("export prints %q", out)
	}
	file := filepath.Join(t.TempDir(), "state.json")
	require.NoError(t, os.WriteFile(file, []byte("old"), 0o644))
	if out := verb("", "export", file); out != "" {
		t.Errorf("export prints %q", out)
	}
	text, err := os.ReadFile(file)
	if err != nil || string(text) != d.document {
		t.Errorf("the file has %q, %v", text, err)
	}
	require.NoError(t, os.WriteFile(file, []byte("new"), 0o600))
	want := `{"rings":1,"ringsSkipped":2,"flows":3,"flowsSkipped":4}` + "\n"
	if out := verb("", "import", file, "-o", "json"); out != want || d.document != "new" {
		t.Errorf("import prints %q, the daemon has %q", out, d.document)
	}
}

// TestExportIsWhole: what fails leaves the old file, and nothing beside it.
func TestExportIsWhole(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "state.json")
	require.NoError(t, os.WriteFile(file, []byte("old"), 0o600))
	socket := serveControl(t, newClientDaemon(t)) // has nothing to export
	_, err := runVerb(t, newStateCommand(), "", "export", file, "--socket", socket)
	require.ErrorSays(t, err, "flow table cannot be read")
	require.ErrorSays(t, writeFile(dir, nil), dir+": it is there and is no regular file")
	text, err := os.ReadFile(file)
	if err != nil || string(text) != "old" {
		t.Errorf("the file has %q, %v", text, err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("the folder has %v, %v", files, err)
	}
}

func TestExitStatus(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("x"), 1},
		{&statusError{3, "x"}, 3},
		{fmt.Errorf("y: %w", &statusError{3, "x"}), 3},
	} {
		if got := exitStatus(tc.err); got != tc.want {
			t.Errorf("%v: %d, want %d", tc.err, got, tc.want)
		}
	}
}
