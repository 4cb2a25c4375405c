// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine is what figures depend on. A fact that cannot be read is "unknown".
type Machine struct {
	Kernel string `json:"kernel"`
	Arch   string `json:"arch"`
	CPU    string `json:"cpu"`
	CPUs   int    `json:"cpus"`
	// Mitigations are the kernel's, in the form NAME: TEXT; those not needed are left out.
	Mitigations []string `json:"mitigations"`
	JIT         string   `json:"jit"`
	// Load holds the three load averages at the start.
	Load string `json:"load"`
	// RunStats is kernel.bpf_stats_enabled, which adds two clock reads to each run of a program.
	RunStats bool `json:"run_stats"`
}

// ReadMachine reads the facts of this machine.
func ReadMachine() Machine {
	m := Machine{
		Kernel: "unknown", Arch: runtime.GOARCH, CPU: cpuModel(), CPUs: runtime.NumCPU(), Mitigations: mitigations(),
		JIT: "unknown", Load: "unknown",
		RunStats: readLine("/proc/sys/kernel/bpf_stats_enabled") == "1",
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	switch readLine("/proc/sys/net/core/bpf_jit_enable") {
	case "0":
		m.JIT = "off"
	case "1", "2":
		m.JIT = "on"
	}
	if f := strings.Fields(readLine("/proc/loadavg")); len(f) >= 3 {
		m.Load = strings.Join(f[:3], " ")
	}
	return m
}

func (m Machine) facts() []string {
	return []string{
		"kernel " + m.Kernel + " " + m.Arch + ", JIT " + m.JIT,
		m.CPU + ", CPUs of this process: " + decimal(m.CPUs) + ", load " + m.Load,
		"mitigations: " + strings.Join(m.Mitigations, "; "),
	}
}

func (m Machine) notes() []string {
	if !m.RunStats {
		return nil
	}
	return []string{"kernel.bpf_stats_enabled is on: it adds some 70 ns to each run of a program; turn it off"}
}

func cpuModel() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}

func mitigations() []string {
	files, err := filepath.Glob("/sys/devices/system/cpu/vulnerabilities/*")
	if err != nil || len(files) == 0 {
		return []string{"unknown"}
	}
	slices.Sort(files)
	var found []string
	for _, f := range files {
		if s := readLine(f); s != "" && s != "Not affected" {
			found = append(found, filepath.Base(f)+": "+strings.TrimPrefix(s, "Mitigation: "))
		}
	}
	if len(found) == 0 {
		return []string{"none"}
	}
	return found
}

// readLine returns the first line of a small file, "" if it cannot be read.
func readLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSpace(line)
}
