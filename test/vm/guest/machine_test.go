// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/test/require"
	"github.com/remora-lb/remora/test/rig"
)

// waitTimeout is how long a test waits for anything: emulation is slow.
const waitTimeout = time.Minute

// remoraBinary is where the machine has the program.
const remoraBinary = "/bin/remora"

// inMachine skips the test everywhere but in the virtual machine.
func inMachine(t *testing.T) {
	t.Helper()
	if os.Getenv("REMORA_VM") != "1" {
		t.Skip("this test runs in a virtual machine: make rig-test")
	}
}

// within is a context for a wait.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitTimeout)
	t.Cleanup(cancel)
	return ctx
}

// waitFor waits for a condition and fails the test if it does not come.
func waitFor(t *testing.T, what string, reached func() error) {
	t.Helper()
	require.NoError(t, rig.WaitFor(within(t), what, reached))
}

// kernelRelease is what `uname -r` prints.
func kernelRelease(t *testing.T) string {
	t.Helper()
	var name unix.Utsname
	require.NoError(t, unix.Uname(&name))
	return unix.ByteSliceToString(name.Release[:])
}

// kernelFrom tells whether the kernel is this one or a later one.
func kernelFrom(t *testing.T, major, minor int) bool {
	t.Helper()
	var gotMajor, gotMinor int
	_, err := fmt.Sscanf(kernelRelease(t), "%d.%d", &gotMajor, &gotMinor)
	require.NoError(t, err)
	return gotMajor > major || gotMajor == major && gotMinor >= minor
}

// kernelLog follows the kernel's messages from when it was made. It is to be closed.
type kernelLog struct{ fd int }

func newKernelLog(t *testing.T) *kernelLog {
	t.Helper()
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	_, err = unix.Seek(fd, 0, unix.SEEK_END)
	require.NoError(t, err)
	return &kernelLog{fd}
}

func (l *kernelLog) close() { unix.Close(l.fd) }

// read returns the texts of the messages since the last call. Each read of the file is one message:
// numbers, a semicolon, the text, and further lines.
func (l *kernelLog) read(t *testing.T) (messages []string) {
	t.Helper()
	buf := make([]byte, 8192)
	for {
		n, err := unix.Read(l.fd, buf)
		if errors.Is(err, syscall.EAGAIN) {
			return messages
		}
		require.NoError(t, err)
		if _, text, ok := strings.Cut(string(buf[:n]), ";"); ok {
			line, _, _ := strings.Cut(text, "\n")
			messages = append(messages, line)
		}
	}
}
