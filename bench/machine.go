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
	// Governor is the policy of the CPUs' clock; "none" where the kernel does not set it, as in most
	// virtual machines.
	Governor string `json:"governor"`
	// Virtual tells that the machine is a virtual one.
	Virtual bool `json:"virtual"`
	// Load holds the three load averages at the start, LoadAfter those at the end.
	Load      string `json:"load"`
	LoadAfter string `json:"load_after,omitempty"`
	// RunStats is kernel.bpf_stats_enabled, which adds two clock reads to each run of a program.
	RunStats bool `json:"run_stats"`
}

// ReadMachine reads the facts of this machine.
func ReadMachine() Machine {
	m := Machine{
		Kernel: "unknown", Arch: runtime.GOARCH, CPU: cpuModel(), CPUs: runtime.NumCPU(), Mitigations: mitigations(),
		JIT: "unknown", Governor: governor(), Virtual: isVirtual(), Load: loadAverages(),
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
	return m
}

func (m Machine) facts() []string {
	kind, load := "", m.Load
	if m.Virtual {
		kind = " (virtual machine)"
	}
	if m.LoadAfter != "" {
		load += ", at the end " + m.LoadAfter
	}
	return []string{
		"kernel " + m.Kernel + " " + m.Arch + ", JIT " + m.JIT,
		m.CPU + kind + ", CPUs of this process: " + decimal(m.CPUs) + ", governor " + m.Governor + ", load " + load,
		"mitigations: " + strings.Join(m.Mitigations, "; "),
	}
}

// differences names what two machines differ in, but for their load.
func (m Machine) differences(other Machine) (changed []string) {
	for _, f := range []struct{ name, old, new string }{
		{"kernel", m.Kernel, other.Kernel},
		{"architecture", m.Arch, other.Arch},
		{"CPU", m.CPU, other.CPU},
		{"CPUs", decimal(m.CPUs), decimal(other.CPUs)},
		{"governor", m.Governor, other.Governor},
		{"JIT", m.JIT, other.JIT},
		{"mitigations", strings.Join(m.Mitigations, "; "), strings.Join(other.Mitigations, "; ")},
	} {
		if f.old != f.new {
			changed = append(changed, f.name+": "+f.old+" -> "+f.new)
		}
	}
	return changed
}

// loadAverages are the three of /proc/loadavg.
func loadAverages() string {
	f := strings.Fields(readLine("/proc/loadavg"))
	if len(f) < 3 {
		return "unknown"
	}
	return strings.Join(f[:3], " ")
}

// governor is that of the first CPU; all have the same, as a rule.
func governor() string {
	if g := readLine("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"); g != "" {
		return g
	}
	return "none"
}

func isVirtual() bool {
	b, err := os.ReadFile("/proc/cpuinfo")
	return err == nil && strings.Contains(string(b), " hypervisor")
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
