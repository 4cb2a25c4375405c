// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Accelerators of the emulator.
const (
	kvm       = "kvm"
	emulation = "tcg,thread=multi"
)

// probeLimit is how long a kernel may take, with the processor's help, until it finds that it has
// nothing to run and gives up: commonly a second. Where it takes longer, emulation is faster.
const probeLimit = 10 * time.Second

// accelerator is kvm if that works here, and otherwise plain emulation. Whether the device can be
// opened tells little, so a kernel is tried; the answer holds until the machine boots again.
func (w *workshop) accelerator(ctx context.Context, kernel string) string {
	if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err != nil {
		return emulation
	} else if f.Close() != nil {
		return emulation
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return emulation
	}
	memory := filepath.Join(w.cache, "accelerator")
	if known, err := os.ReadFile(memory); err == nil {
		if answer, ok := strings.CutPrefix(string(known), string(boot)); ok && (answer == kvm || answer == emulation) {
			return answer
		}
	}
	answer := w.probe(ctx, kernel)
	if ctx.Err() == nil {
		// If it cannot be written, the next run asks again.
		_ = os.WriteFile(memory, append(boot, answer...), 0o644)
	}
	return answer
}

// probe boots a kernel that finds nothing to run.
func (w *workshop) probe(ctx context.Context, kernel string) string {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	m := machine{kernel: filepath.Join(kernel, "vmlinux"), console: filepath.Join(w.dir, "probe"), accelerator: kvm}
	// It always fails: what counts is how far it came.
	_ = m.run(ctx, io.Discard)
	console, err := os.ReadFile(m.console)
	if err == nil && strings.Contains(string(console), "Unable to mount root fs") {
		return kvm
	}
	return emulation
}
