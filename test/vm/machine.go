// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// machine is a virtual machine.
type machine struct {
	// kernel and image are files: what is booted, and the archive of its first files.
	kernel, image string
	// console is the file that gets the messages of the kernel.
	console string
	// accelerator is what the emulator is to use, see accelerator.
	accelerator string
}

// exitPrefix begins the last line that a machine writes; its exit status follows.
const exitPrefix = "vm-exit: "

// run boots the machine, copies what its tests write to out, and returns when it is off. Nothing of
// the host is to be seen from inside: the two network cards are the ends of one cable.
func (m *machine) run(ctx context.Context, out io.Writer) error {
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", m.args()...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	var complaints strings.Builder
	cmd.Stderr = &complaints
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("start the emulator: %v", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the emulator: %v", err)
	}
	verdict, readErr := copyOutput(out, stdout)
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("run the emulator: %v: %s", err, strings.TrimSpace(complaints.String()))
	}
	return errors.Join(readErr, judge(verdict))
}

func (m *machine) args() []string {
	args := []string{
		"-accel", m.accelerator, "-cpu", "max", "-machine", "q35", "-smp", "2", "-m", "2048",
		"-nodefaults", "-display", "none", "-no-reboot",
		"-kernel", m.kernel,
		"-serial", "file:" + m.console, "-serial", "stdio",
		"-append", "console=ttyS0 panic=-1 mitigations=off nokaslr tsc=reliable",
	}
	if m.image != "" {
		args = append(args, "-initrd", m.image)
	}
	for i := range 2 {
		args = append(args,
			"-netdev", fmt.Sprintf("hubport,id=end%d,hubid=0", i),
			"-device", fmt.Sprintf("virtio-net-pci,netdev=end%d,mac=02:00:00:00:01:%02x", i, i+1))
	}
	return args
}

// copyOutput copies lines, without the carriage returns of a serial line, and returns the exit
// status that the last one tells; empty if it does not.
func copyOutput(out io.Writer, in io.Reader) (verdict string, err error) {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		line = strings.TrimRight(line, "\r\n")
		if status, ok := strings.CutPrefix(line, exitPrefix); ok {
			verdict = status
		} else if line != "" {
			fmt.Fprintln(out, line)
		}
		if errors.Is(err, io.EOF) {
			return verdict, nil
		}
		if err != nil {
			return verdict, fmt.Errorf("read from the machine: %v", err)
		}
	}
}

func judge(verdict string) error {
	switch verdict {
	case "0":
		return nil
	case "":
		return errors.New("the machine died before its tests were done")
	}
	return errors.New("tests failed")
}

// The last messages of a machine that failed are shown, but not those of the kernel's own start.
const (
	quotedLines = 40
	startsInit  = "Run /init as init process"
)

// quoteConsole shows the last messages of the kernel.
func (m *machine) quoteConsole(out io.Writer) {
	text, err := os.ReadFile(m.console)
	if err != nil {
		return // the emulator did not start
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if i := slices.IndexFunc(lines, func(line string) bool { return strings.Contains(line, startsInit) }); i >= 0 {
		lines = lines[i+1:]
	}
	fmt.Fprintf(out, "the end of %s:\n", m.console)
	for _, line := range lines[max(0, len(lines)-quotedLines):] {
		fmt.Fprintln(out, "\t"+strings.TrimRight(line, "\r"))
	}
}
