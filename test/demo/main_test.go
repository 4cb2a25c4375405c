// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-lb/remora/test/require"
	"github.com/remora-lb/remora/test/rig"
)

// waitTimeout is how long a test waits for anything.
const waitTimeout = 60 * time.Second

// programsVariable names the environment variable with the folder of both programs. TestMain builds
// them and sets it.
const programsVariable = "REMORA_DEMO_PROGRAMS"

func TestMain(m *testing.M) {
	status, err := runTests(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

// runTests builds the programs, which takes longer than some tests, and runs the tests.
func runTests(m *testing.M) (int, error) {
	if os.Geteuid() != 0 {
		return m.Run(), nil // every test that needs them skips or fails by itself
	}
	dir, err := os.MkdirTemp("", "remora-demo-test-*")
	if err != nil {
		return 0, fmt.Errorf("make directory: %v", err)
	}
	defer os.RemoveAll(dir)
	for name, pkg := range map[string]string{"demo": "test/demo", "remora": "cmd/remora"} {
		build := exec.Command("go", "build", "-o", filepath.Join(dir, name), "github.com/remora-lb/remora/"+pkg)
		if out, err := build.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("build %s: %v: %s", name, err, out)
		}
	}
	if err := os.Setenv(programsVariable, dir); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// programs are the paths of the demonstration and of remora.
type programs struct{ demo, remora string }

// built are the programs; the test is skipped where they cannot run, or fails where everything was
// promised.
func built(t *testing.T) programs {
	t.Helper()
	require.Root(t)
	require.Tools(t, "nginx", "curl")
	dir := os.Getenv(programsVariable)
	return programs{filepath.Join(dir, "demo"), filepath.Join(dir, "remora")}
}

// show is a demonstration that runs as a process of its own.
type show struct {
	cmd    *exec.Cmd
	remora rig.Remora
	pipe   io.Closer
	out    *bufio.Reader
	in     io.WriteCloser
	// text is what it has written as far as it was read.
	text strings.Builder
}

// start starts the demonstration as an instance of this test.
func (p programs) start(t *testing.T, args ...string) *show {
	t.Helper()
	s := &show{remora: rig.Remora{Binary: p.remora, Instance: fmt.Sprintf("demo-test-%d", os.Getpid())}}
	args = append([]string{"--binary", p.remora, "--config", "../../configs/demo.yaml", "--instance", s.remora.Instance}, args...)
	s.cmd = exec.Command(p.demo, args...)
	pipe, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.cmd.Stderr = s.cmd.Stdout
	s.pipe, s.out = pipe, bufio.NewReader(pipe)
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	limit := time.AfterFunc(waitTimeout, func() { _ = s.cmd.Process.Signal(syscall.SIGQUIT) })
	t.Cleanup(func() {
		limit.Stop()
		if s.cmd.ProcessState == nil {
			_ = s.cmd.Process.Kill()
			_ = s.cmd.Wait()
		}
		if t.Failed() {
			t.Logf("the demonstration wrote:\n%s", s.text.String())
		}
	})
	return s
}

// readTo reads the output up to a text, or all of it if it does not come.
func (s *show) readTo(text string) (found bool) {
	for {
		r, _, err := s.out.ReadRune()
		if err != nil {
			return false
		}
		s.text.WriteRune(r)
		if strings.HasSuffix(s.text.String(), text) {
			return true
		}
	}
}

// end reads the rest of the output, waits for the end, and returns the exit status.
func (s *show) end(t *testing.T) int {
	t.Helper()
	if _, err := io.Copy(&s.text, s.out); err != nil {
		t.Fatal(err)
	}
	err := s.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return s.cmd.ProcessState.ExitCode()
}

func (s *show) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
}

// assertNothingLeft demands that the demonstration's namespaces, files, pins and processes are
// gone.
func (s *show) assertNothingLeft(t *testing.T) {
	t.Helper()
	lab := fmt.Sprintf("remora-%d-", s.cmd.Process.Pid)
	for _, pattern := range []string{"/run/netns/" + lab + "*", filepath.Join(os.TempDir(), lab+"*"), s.remora.PinDir()} {
		if left, err := filepath.Glob(pattern); err != nil || len(left) != 0 {
			t.Errorf("left: %v, error %v", left, err)
		}
	}
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil || len(commands) == 0 {
		t.Fatalf("processes %v, error %v", commands, err)
	}
	for _, path := range commands {
		// A process that ended since is not left. Only remora and nginx name these paths.
		line, _ := os.ReadFile(path)
		if strings.Contains(string(line), lab) || strings.HasPrefix(string(line), s.remora.Binary+"\x00") {
			t.Errorf("left: %s: %q", path, line)
		}
	}
}

// TestDemo lets the demonstration show everything, and keeps it up for a while: the other tests of the
// whole program end it early.
func TestDemo(t *testing.T) {
	s := built(t).start(t, "--keep")
	if !s.readTo("takes it all down. ") {
		t.Fatalf("it ended: %d", s.end(t))
	}
	if names, err := filepath.Glob(fmt.Sprintf("/run/netns/remora-%d-*", s.cmd.Process.Pid)); err != nil || len(names) != 6 {
		t.Errorf("kept namespaces: %v, error %v", names, err)
	}
	s.tryDaemonByHand(t)
	s.signal(t, syscall.SIGINT)
	if code := s.end(t); code != 0 {
		t.Errorf("exit status %d", code)
	}
	s.assertNothingLeft(t)
	text := s.text.String()
	if !strings.Contains(text, "Everything works.") || strings.Contains(text, "FAIL") || strings.Count(text, "\n  PASS  ") != 18 {
		t.Errorf("the summary is not of 18 things that work")
	}
}

// TestKeep looks at what ends a demonstration that is kept up.
func TestKeep(t *testing.T) {
	for _, tc := range []struct {
		name, in  string
		interrupt bool
	}{
		{"Enter", "\n", false},
		{"Ctrl-C", "", true}, // the end of the input is not Enter
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out strings.Builder
			d := newDemo(options{instance: "kept"}, &out)
			node := &rig.Node{}
			d.lab = &rig.Lab{Client: node, Router: node, Balancers: []*rig.Node{node}, Servers: []*rig.Node{node}}
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				ended := false
				go func() {
					d.keep(ctx, strings.NewReader(tc.in))
					ended = true
				}()
				synctest.Wait()
				if tc.interrupt {
					if ended {
						t.Error("it ended without a line")
					}
					cancel()
					synctest.Wait()
				}
				if !ended {
					t.Error("it does not end")
				}
			})
			if !strings.Contains(out.String(), "status --instance kept") {
				t.Errorf("it suggests\n%s", out.String())
			}
		})
	}
}

// tryDaemonByHand types three of the commands that the demonstration suggests: it kills the
// balancer's daemon, makes a request, and starts the daemon again.
func (s *show) tryDaemonByHand(t *testing.T) {
	t.Helper()
	command := func(pattern string) []string {
		match := regexp.MustCompile(`(?m)^  (` + pattern + `)$`).FindString(s.text.String())
		if match == "" {
			t.Fatalf("no command like %q is suggested", pattern)
		}
		return strings.Fields(match)
	}
	kill, curl, run := command(`kill -9 \d+`), command(`nsenter .* curl http://[0-9.]+/`), command(`nsenter .* run -c .*`)
	if out, err := exec.Command(kill[0], kill[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("kill: %v: %s", err, out)
	}
	if out, err := exec.Command(curl[0], curl[1:]...).Output(); err != nil || !strings.HasPrefix(string(out), "server") {
		t.Errorf("a request without a daemon: %q, error %v", out, err)
	}
	daemon := exec.Command(run[0], run[1:]...)
	logs, err := daemon.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = daemon.Process.Kill() // where the demonstration did not
		_ = daemon.Wait()
	})
	lines := bufio.NewScanner(logs)
	for lines.Scan() && !strings.Contains(lines.Text(), "msg=running") {
	}
	if !strings.Contains(lines.Text(), "msg=running") {
		t.Errorf("the daemon does not run: %q, %v", lines.Text(), lines.Err())
	}
}

// TestInterrupt ends the demonstration at many moments.
func TestInterrupt(t *testing.T) {
	p := built(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for _, after := range []string{"", "remora, a", "1. Build", "2. Start", "likewise on server2", "3. Start", "4. Send", "6. Down", "7. Stop", "8. Start", "undrain"} {
		t.Run("after "+after, func(t *testing.T) {
			s := p.start(t)
			if after != "" && !s.readTo(after) {
				t.Fatalf("it ended: %d", s.end(t))
			}
			delay := time.Duration(rng.Int64N(int64(150 * time.Millisecond)))
			t.Logf("and %v", delay)
			<-time.After(delay)
			sig := []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP}[rng.IntN(3)]
			s.signal(t, sig)
			s.signal(t, sig) // impatient: the cleaning up goes on
			code := s.end(t)
			early := !strings.Contains(s.text.String(), "remora, a layer-4")
			if code != exitInterrupted && !early {
				t.Errorf("exit status %d after %v", code, sig)
			}
			s.assertNothingLeft(t)
		})
	}
}

// TestClosedOutput has nobody read what the demonstration writes, as in `make demo | head`.
func TestClosedOutput(t *testing.T) {
	p := built(t)
	s := p.start(t)
	if !s.readTo("3. Start") {
		t.Fatalf("it ended: %d", s.end(t))
	}
	if err := s.pipe.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Wait(); err == nil {
		t.Error("no error without output")
	}
	s.assertNothingLeft(t)
}

// TestRunAfterKill kills the demonstration where it cannot clean up; the next one does.
func TestRunAfterKill(t *testing.T) {
	p := built(t)
	killed := p.start(t)
	if !killed.readTo("5. Ask") {
		t.Fatalf("it ended: %d", killed.end(t))
	}
	killed.signal(t, syscall.SIGKILL)
	killed.end(t)
	if _, err := os.Stat(killed.remora.PinDir()); err != nil {
		t.Errorf("nothing is left to clean up: %v", err)
	}
	next := p.start(t)
	if !next.readTo("5. Ask") { // after the balancer has forwarded
		t.Fatalf("it ended: %d", next.end(t))
	}
	if !strings.Contains(next.text.String(), "Removed what an interrupted run had left") {
		t.Error("it does not say that it removed anything")
	}
	next.signal(t, syscall.SIGINT)
	if code := next.end(t); code != exitInterrupted {
		t.Errorf("exit status %d", code)
	}
	killed.assertNothingLeft(t)
	next.assertNothingLeft(t)
}

// TestTwoAtOnce starts a second demonstration with the same instance.
func TestTwoAtOnce(t *testing.T) {
	p := built(t)
	first := p.start(t, "--keep")
	if !first.readTo("1. Build") {
		t.Fatalf("it ended: %d", first.end(t))
	}
	second := p.start(t)
	if code := second.end(t); code != exitFail || !strings.Contains(second.text.String(), "another demonstration") {
		t.Errorf("exit status %d, output %q", code, second.text.String())
	}
	first.signal(t, syscall.SIGINT)
	first.end(t)
	first.assertNothingLeft(t)
}

// TestRefusals starts the demonstration where it cannot work.
func TestRefusals(t *testing.T) {
	p := built(t)
	config := "../../configs/demo.yaml"
	for _, tc := range []struct {
		name  string
		args  []string
		env   []string
		uid   uint32
		wants string
	}{
		{"not root", []string{"--config", config}, nil, 65534, "needs root"},
		{"no nginx", []string{"--config", config}, []string{"PATH=/nowhere"}, 0, "apt-get install nginx-light"},
		{"no configuration", []string{"--config", "absent.yaml"}, nil, 0, "root of the repository"},
		{"no program", []string{"--config", config, "--binary", "absent"}, nil, 0, "make builds it"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cmd := exec.Command(p.demo, tc.args...)
			cmd.Env = append(os.Environ(), tc.env...)
			if tc.uid != 0 {
				if err := os.Chmod(filepath.Dir(p.demo), 0o755); err != nil {
					t.Fatal(err)
				}
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: tc.uid, Gid: tc.uid}}
			}
			out, err := cmd.CombinedOutput()
			if err == nil || cmd.ProcessState.ExitCode() != exitFail || !strings.Contains(string(out), tc.wants) {
				t.Errorf("error %v, output %q, want %q", err, out, tc.wants)
			}
		})
	}
}
