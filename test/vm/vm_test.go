// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-lb/remora/test/require"
)

// readArchive reads what archive writes: name to content; folders have a slash at their end.
func readArchive(t *testing.T, b []byte) map[string]string {
	t.Helper()
	const headerBytes = 110
	field := func(at, i int) int {
		n, err := strconv.ParseUint(string(b[at+6+8*i:at+14+8*i]), 16, 32)
		require.NoError(t, err)
		return int(n)
	}
	aligned := func(n int) int { return (n + 3) / 4 * 4 }
	files := make(map[string]string)
	for at := 0; ; {
		if string(b[at:at+6]) != "070701" {
			t.Fatalf("no header at %d", at)
		}
		mode, size, nameBytes := field(at, 1), field(at, 6), field(at, 11)
		name := string(b[at+headerBytes : at+headerBytes+nameBytes-1])
		begin := aligned(at + headerBytes + nameBytes)
		if name == "TRAILER!!!" {
			return files
		}
		if mode == modeDir {
			name += "/"
		}
		files[name] = string(b[begin : begin+size])
		at = aligned(begin + size)
	}
}

func TestArchive(t *testing.T) {
	host := filepath.Join(t.TempDir(), "host")
	require.NoError(t, os.WriteFile(host, []byte("of the host"), 0o600))
	var b bytes.Buffer
	a := newArchive(&b)
	a.dir("/proc")
	a.text("/a/b/text", "12345")
	a.file("/a/b/file", host)
	a.text("/empty", "")
	require.NoError(t, a.close())
	want := map[string]string{"proc/": "", "a/": "", "a/b/": "", "a/b/text": "12345", "a/b/file": "of the host", "empty": ""}
	if diff := cmp.Diff(want, readArchive(t, b.Bytes())); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}

	a = newArchive(io.Discard)
	a.file("/file", host+"-missing")
	a.text("/more", "")
	require.ErrorSays(t, a.close(), "no such file")
}

func TestModuleOrder(t *testing.T) {
	all := &modules{
		files: map[string]string{"veth": "veth.ko", "bridge": "bridge.ko", "stp": "stp.ko", "llc": "llc.ko", "a_b": "a-b.ko", "broken": "broken.ko", "virtio_pci": ""},
		depends: func(file string) ([]string, error) {
			return map[string][]string{"bridge.ko": {"stp", "llc"}, "stp.ko": {"llc"}, "broken.ko": {"gone"}}[file], nil
		},
	}
	for _, tt := range []struct {
		name  string
		names []string
		want  []string
		says  string
	}{
		{"as asked", []string{"veth", "a-b"}, []string{"veth.ko", "a-b.ko"}, ""},
		{"needed ones first, each once", []string{"bridge", "llc", "bridge"}, []string{"llc.ko", "stp.ko", "bridge.ko"}, ""},
		{"built in", []string{"veth", "virtio-pci"}, []string{"veth.ko"}, ""},
		{"unknown", []string{"nothing"}, nil, "this kernel has no module nothing"},
		{"needs one that is missing", []string{"broken"}, nil, "module broken: this kernel has no module gone"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := all.order(tt.names)
			if tt.says != "" {
				require.ErrorSays(t, err, tt.says)
				return
			}
			require.NoError(t, err)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("order (-want +got):\n%s", diff)
			}
		})
	}
}

func TestChoose(t *testing.T) {
	packages := func(opts options) (names []string) {
		chosen, err := choose(opts)
		require.NoError(t, err)
		for _, p := range chosen {
			for _, tests := range p.tests {
				names = append(names, p.name+" "+tests.pkg+" "+tests.run)
			}
		}
		return names
	}
	if got := packages(options{kernel: "6.1", only: "card"}); len(got) != 1 || !strings.HasPrefix(got[0], "card "+guest) {
		t.Errorf("the part card is %q", got)
	}
	for kernel, want := range map[string]bool{"6.1": false, "6.12": true, "7.0": true} {
		if got := strings.Contains(strings.Join(packages(options{kernel: kernel}), " "), "lb/probetunnel"); got != want {
			t.Errorf("tests that need TCX run on %s: %t, want %t", kernel, got, want)
		}
	}
	if got := packages(options{kernel: "6.1", full: true}); strings.Contains(strings.Join(got, " "), "lb/dataplane ^Test") {
		t.Errorf("with everything, %q is left out", got)
	}
	_, err := choose(options{only: "nothing"})
	require.ErrorSays(t, err, `no part is called "nothing"`, "load, forward, card")
}

func TestWorkshop(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	w, err := newWorkshop()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(w.dir, "left"), nil, 0o600))
	_, err = newWorkshop()
	require.ErrorSays(t, err, "another run uses "+w.cache)
	require.NoError(t, w.lock.Close()) // as if it had been killed
	w, err = newWorkshop()
	require.NoError(t, err)
	if _, err := os.Stat(filepath.Join(w.dir, "left")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what the last run left is there: %v", err)
	}
	require.NoError(t, w.close())
	if _, err := os.Stat(w.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the work folder is there: %v", err)
	}
}

// TestExitStatus: a machine without an emulator skips, except where it was promised.
func TestExitStatus(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	opts := options{kernel: "6.1", limit: time.Minute}
	t.Setenv("REMORA_REQUIRE_VM", "")
	if got := run(opts); got != exitSkip {
		t.Errorf("exit status %d, want %d", got, exitSkip)
	}
	t.Setenv("REMORA_REQUIRE_VM", "1")
	if got := run(opts); got != exitFail {
		t.Errorf("exit status %d, want %d", got, exitFail)
	}
	opts.only = "nothing"
	t.Setenv("REMORA_REQUIRE_VM", "")
	if got := run(opts); got != exitFail {
		t.Errorf("exit status %d of a bad call, want %d", got, exitFail)
	}
}

// emulator puts a script in the place of the emulator.
func emulator(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "qemu-system-x86_64"), []byte("#!/bin/sh\n"+script), 0o700))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func TestMachine(t *testing.T) {
	for _, tt := range []struct {
		name, script string
		out, says    string
	}{
		{"all is well", `printf 'ok  \tpackage\r\nvm-exit: 0\r\n'`, "ok  \tpackage\n", ""},
		{"tests fail", `printf 'FAIL\npart of a line'; printf '\nvm-exit: 1\n'`, "FAIL\npart of a line\n", "tests failed"},
		{"the machine dies", `printf 'RUN\n\nTest'`, "RUN\nTest\n", "died before its tests were done"},
		{"the emulator fails", `echo 'no such device' >&2; exit 1`, "", "no such device"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			emulator(t, tt.script)
			var out bytes.Buffer
			err := (&machine{}).run(t.Context(), &out)
			if tt.says == "" {
				require.NoError(t, err)
			} else {
				require.ErrorSays(t, err, tt.says)
			}
			if out.String() != tt.out {
				t.Errorf("output %q, want %q", out.String(), tt.out)
			}
		})
	}
}

// TestMachineIsEnded: when the time is over, the emulator ends.
func TestMachineIsEnded(t *testing.T) {
	emulator(t, `echo $$; exec sleep 600`)
	in, out := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- (&machine{}).run(ctx, out) }()
	line := make([]byte, 32)
	n, err := in.Read(line)
	require.NoError(t, err)
	in.Close()
	pid, err := strconv.Atoi(strings.TrimSpace(string(line[:n])))
	require.NoError(t, err)
	cancel()
	if err := <-ended; err == nil {
		t.Error("no error")
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the emulator is there: %v", err)
	}
}

func TestQuoteConsole(t *testing.T) {
	m := machine{console: filepath.Join(t.TempDir(), "console")}
	var none bytes.Buffer
	m.quoteConsole(&none)
	if none.Len() > 0 {
		t.Errorf("there is no console, but %q", none.String())
	}
	require.NoError(t, os.WriteFile(m.console, []byte("start\r\n[1.0] "+startsInit+"\r\nlate\r\n"), 0o600))
	var out bytes.Buffer
	m.quoteConsole(&out)
	if want := "the end of " + m.console + ":\n\tlate\n"; out.String() != want {
		t.Errorf("quoted %q, want %q", out.String(), want)
	}
}
