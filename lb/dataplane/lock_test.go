// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/remora-lb/remora/lb/attach"
	"github.com/remora-lb/remora/test/require"
)

// holderEnv makes this test's binary a daemon that holds the instance: the BPF file system.
const holderEnv = "REMORA_TEST_HOLDER"

func TestMain(m *testing.M) {
	if bpffs := os.Getenv(holderEnv); bpffs != "" {
		if err := hold(bpffs); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// hold attaches what the instance has adopted, says so, and waits to be killed.
func hold(bpffs string) error {
	d, err := Open(Config{Instance: "test", BPFFS: bpffs, Interface: "lb0"})
	if err != nil {
		return err
	}
	if err := d.Attach(); err != nil {
		return err
	}
	fmt.Println("attached")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func TestLocked(t *testing.T) {
	l := newLab(t)
	if pid := Writer(l.bpffs, "test"); pid != 0 {
		t.Errorf("writer %d of no instance", pid)
	}
	d := l.open("lb0", attach.Auto)
	_, err := Open(l.config("lb0", attach.Auto))
	wantIs(t, err, ErrLocked)
	require.ErrorSays(t, err, fmt.Sprintf("by process %d", os.Getpid()), "stop it")
	if pid := Writer(l.bpffs, "test"); pid != os.Getpid() {
		t.Errorf("writer %d, want %d", pid, os.Getpid())
	}
	require.NoError(t, d.Close())
	if pid := Writer(l.bpffs, "test"); pid != 0 {
		t.Errorf("writer %d after it was closed", pid)
	}
	l.wantNothingPinned()
}

// A daemon that is killed holds the lock until then, and leaves what it attached.
func TestKilledHolder(t *testing.T) {
	l := newLab(t)
	first := l.attached("lb0", attach.Auto)
	id := linkID(t, first)
	require.NoError(t, first.Close())

	daemon := exec.Command("/proc/self/exe") // in the namespaces of this thread
	daemon.Env = append(os.Environ(), holderEnv+"="+l.bpffs)
	stdin, err := daemon.StdinPipe()
	require.NoError(t, err)
	defer stdin.Close()
	stdout, err := daemon.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, daemon.Start())
	said, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || said != "attached\n" {
		t.Errorf("the daemon said %q: %v", said, err)
	}
	_, err = Open(l.config("lb0", attach.Auto))
	require.ErrorSays(t, err, fmt.Sprintf("process %d", daemon.Process.Pid))
	require.NoError(t, daemon.Process.Kill())
	_ = daemon.Wait() // killed, as it says

	l.wantForwarding("lb0")
	second := l.open("lb0", attach.Auto)
	if linkID(t, second) != id {
		t.Error("the attachment was cycled")
	}
	l.wantForwarding("lb0")
}
