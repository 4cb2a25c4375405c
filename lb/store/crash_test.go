// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remora-lb/remora/test/require"
)

// crashFolder names the variable that makes the test binary a writer that never ends.
const crashFolder = "REMORA_STORE_CRASH_FOLDER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashFolder); dir != "" {
		fmt.Println("writer ended:", writeForever(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// writeForever saves numbers that go up by one, and prints each when it is saved. It stops when its
// reader is gone.
func writeForever(dir string) error {
	s, err := Open(dir)
	if err != nil {
		return err
	}
	var v value
	if _, err := s.Load("state", 1, &v); err != nil && !errors.Is(err, ErrNone) {
		return err
	}
	for {
		v.Number++
		v.Text = crashText(v.Number)
		if err := s.Save("state", 1, v); err != nil {
			return err
		}
		if _, err := fmt.Println(v.Number); err != nil {
			return err
		}
	}
}

// crashText is up to 200 kB long, so that writing takes long enough to be killed in.
func crashText(n int) string { return strings.Repeat(strconv.Itoa(n%10), 1000*(1+n%200)) }

// TestCrash kills a writer at random moments. What is there afterwards is the last value that it
// said was saved, or the one after that.
func TestCrash(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	inWrite := 0
	for range 40 {
		last := writeAndKill(t, dir, time.Duration(random.Int64N(int64(30*time.Millisecond))))
		if _, err := os.Stat(dir + "/" + tempName("state")); err == nil {
			inWrite++
		}
		var v value
		if _, err := open(t, dir).Load("state", 1, &v); err != nil {
			t.Fatal(err)
		}
		if v.Number != last && v.Number != last+1 {
			t.Fatalf("%d was saved, %d is there", last, v.Number)
		}
		if v.Text != crashText(v.Number) {
			t.Fatalf("the text of %d is not its own", v.Number)
		}
	}
	t.Logf("killed in the midst of writing: %d of 40", inWrite)
}

// writeAndKill kills a writer some time after its first save, and returns the last number that it
// printed.
func writeAndKill(t *testing.T, dir string, after time.Duration) int {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashFolder+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	kill := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	last := 0
	for lines := bufio.NewScanner(out); lines.Scan(); {
		n, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Errorf("writer: %s", lines.Text())
			break
		}
		if last == 0 {
			kill.Reset(after)
		}
		last = n
	}
	kill.Stop()
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // it was killed, which is no news
	if last == 0 {
		t.Fatal("the writer saved nothing within a minute")
	}
	return last
}
