// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/test/require"
)

// childEnv makes this test's binary say what its privileges are.
const childEnv = "REMORA_TEST_PRIVILEGES"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) == "" {
		os.Exit(m.Run())
	}
	p, err := CurrentPrivileges()
	fmt.Printf("%+v %v %v\n", p, err, p.Check())
}

// The error names what is missing, then what helps.
func TestPrivilegesCheck(t *testing.T) {
	const bpf, net, perf = "CAP_BPF (to", "CAP_NET_ADMIN (to", "CAP_PERFMON (to"
	for _, tt := range []struct {
		name      string
		p         Privileges
		want, not []string
	}{
		{"none", Privileges{}, []string{bpf, net, perf}, nil},
		{"no BPF", Privileges{NetAdmin: true, PerfMon: true}, []string{bpf}, []string{net, perf}},
		{"no network", Privileges{BPF: true, PerfMon: true}, []string{net}, []string{bpf, perf}},
		{"no performance events", Privileges{BPF: true, NetAdmin: true}, []string{perf}, []string{bpf, net}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.p.Check()
			require.ErrorSays(t, err, append(tt.want, "missing", fmt.Sprintf("uid %d", os.Geteuid()), "run as root", "AmbientCapabilities=")...)
			for _, s := range tt.not {
				if strings.Contains(err.Error(), s) {
					t.Errorf("error %q says %q", err, s)
				}
			}
		})
	}
	if err := (Privileges{BPF: true, NetAdmin: true, PerfMon: true}).Check(); err != nil {
		t.Errorf("with all: %v", err)
	}
}

// What a process of another user finds, with the capabilities that a service manager gives it.
func TestCurrentPrivileges(t *testing.T) {
	require.Root(t)
	for _, tt := range []struct {
		name string
		caps []uintptr
		want []string
	}{
		{"none", nil, []string{"{BPF:false NetAdmin:false PerfMon:false} <nil>", "CAP_BPF (to", "CAP_NET_ADMIN (to", "CAP_PERFMON (to", "as uid 65534"}},
		{"network", []uintptr{unix.CAP_NET_ADMIN}, []string{"{BPF:false NetAdmin:true PerfMon:false} <nil>", "CAP_BPF (to", "CAP_PERFMON (to"}},
		{"BPF and network", []uintptr{unix.CAP_BPF, unix.CAP_NET_ADMIN}, []string{"{BPF:true NetAdmin:true PerfMon:false} <nil>", "CAP_PERFMON (to"}},
		{"all", []uintptr{unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_PERFMON}, []string{"{BPF:true NetAdmin:true PerfMon:true} <nil> <nil>"}},
		{"administrator", []uintptr{unix.CAP_SYS_ADMIN}, []string{"{BPF:true NetAdmin:false PerfMon:true} <nil>", "CAP_NET_ADMIN (to"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			child := exec.Command("/proc/self/exe") // whose path another user may not follow
			child.Env = []string{childEnv + "=1", "GORACE=atexit_sleep_ms=0"}
			child.Dir = "/"
			child.SysProcAttr = &syscall.SysProcAttr{
				Credential:  &syscall.Credential{Uid: 65534, Gid: 65534},
				AmbientCaps: tt.caps,
			}
			out, err := child.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			for _, s := range tt.want {
				if !strings.Contains(string(out), s) {
					t.Errorf("it says %q, want %q", out, s)
				}
			}
		})
	}
}
