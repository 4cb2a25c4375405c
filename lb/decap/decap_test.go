// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package decap

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/lb/attach"
	"github.com/remora-lb/remora/test/require"
)

func TestValidate(t *testing.T) {
	tests := []struct {
		name string
		edit func(*Config)
		want []string // nil: valid
	}{
		{"valid", func(*Config) {}, nil},
		{"no VIPs", func(c *Config) { c.VIPs = nil }, nil},
		{"no interface", func(c *Config) { c.Interface = "" }, []string{"Interface: empty"}},
		{"no addresses", func(c *Config) { c.TunnelAddrs = nil }, []string{"TunnelAddrs: empty"}},
		{"no address", func(c *Config) { c.TunnelAddrs[1] = netip.Addr{} }, []string{"TunnelAddrs[1]:"}},
		{"multicast", func(c *Config) { c.VIPs[0] = netip.MustParseAddr("224.0.0.1") }, []string{"VIPs[0]: ", "224.0.0.1"}},
		{"mapped", func(c *Config) { c.VIPs[1] = netip.MustParseAddr("::ffff:10.0.0.1") }, []string{"VIPs[1]: ", "IPv4-mapped"}},
		{"zone", func(c *Config) { c.VIPs[1] = netip.MustParseAddr("fe80::1%eth0") }, []string{"VIPs[1]: ", "zone"}},
		{"mode", func(c *Config) { c.Mode = 9 }, []string{"Mode: 9", "auto, native or generic"}},
		{"too many", func(c *Config) { c.VIPs = make([]netip.Addr, maxAddrs+1) }, []string{"VIPs: 65537 addresses", "65536"}},
		{"two mistakes", func(c *Config) { c.Interface, c.VIPs[0] = "", netip.IPv6Unspecified() }, []string{"Interface: ", "VIPs[0]: "}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := testConfig()
			tt.edit(&cfg)
			err := cfg.Validate()
			if tt.want == nil {
				require.NoError(t, err)
				return
			}
			require.ErrorSays(t, err, tt.want...)
			if _, fromNew := New(cfg); fromNew == nil || fromNew.Error() != err.Error() {
				t.Errorf("New says %v, want %v", fromNew, err)
			}
		})
	}
}

func TestNoSuchInterface(t *testing.T) {
	cfg := testConfig()
	cfg.Interface = "nosuch0"
	_, err := New(cfg)
	require.ErrorSays(t, err, `"nosuch0"`, "there are: ", "lo")
	_, err = InterfaceAddrs("nosuch0")
	require.ErrorSays(t, err, `"nosuch0"`, "there are: ", "lo")
}

func TestInterfaceAddrs(t *testing.T) {
	w := newWire(t, 1500)
	_, err := InterfaceAddrs("srv0")
	require.ErrorSays(t, err, `"srv0"`, "no address")
	for _, a := range []netip.Addr{server6, server4, stranger4, netip.MustParseAddr("fe80::1")} {
		addAddr(t, w.server, netip.PrefixFrom(a, 24))
	}
	got := must(InterfaceAddrs("srv0"))(t)
	if diff := cmp.Diff([]netip.Addr{server4, stranger4, server6}, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
}

// withoutCapabilities runs f in a new network namespace, on a thread that has only the given ones
// and ends with f.
func withoutCapabilities(t *testing.T, keep uint64, f func() error) error {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends here
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("make network namespace: %v", err)
			return
		}
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		data := [2]unix.CapUserData{
			{Effective: uint32(keep), Permitted: uint32(keep)},
			{Effective: uint32(keep >> 32), Permitted: uint32(keep >> 32)},
		}
		if err := unix.Capset(&hdr, &data[0]); err != nil {
			done <- fmt.Errorf("drop capabilities: %v", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// TestCapabilitiesOfProcess: the check and the kernel agree about what is enough.
func TestCapabilitiesOfProcess(t *testing.T) {
	require.Root(t)
	err := withoutCapabilities(t, 1<<unix.CAP_BPF, func() error { _, err := New(testConfig()); return err })
	require.ErrorSays(t, err, "missing CAP_NET_ADMIN (", "CAP_PERFMON")
	const enough = 1<<unix.CAP_BPF | 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_PERFMON
	require.NoError(t, withoutCapabilities(t, enough, func() error {
		d, err := New(testConfig())
		if err != nil {
			return err
		}
		_, err = d.Attach()
		return errors.Join(err, d.Close())
	}))
}

// foreignProgram is an XDP program that is not ours.
func foreignProgram(t *testing.T) (prog *ebpf.Program, id string) {
	t.Helper()
	prog = must(ebpf.NewProgram(&ebpf.ProgramSpec{
		Name:         "someone_else",
		Type:         ebpf.XDP,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
		License:      "Dual BSD/GPL",
	}))(t)
	t.Cleanup(func() { prog.Close() })
	n, _ := must(prog.Info())(t).ID()
	return prog, fmt.Sprintf("(id %d)", n)
}

func TestOccupied(t *testing.T) {
	ways := map[string]func(*testing.T, *wire, *ebpf.Program){
		"by a link": func(t *testing.T, w *wire, prog *ebpf.Program) {
			l := must(link.AttachXDP(link.XDPOptions{Program: prog, Interface: w.server.Attrs().Index, Flags: link.XDPDriverMode}))(t)
			t.Cleanup(func() { l.Close() })
		},
		"by a link in generic mode": func(t *testing.T, w *wire, prog *ebpf.Program) {
			l := must(link.AttachXDP(link.XDPOptions{Program: prog, Interface: w.server.Attrs().Index, Flags: link.XDPGenericMode}))(t)
			t.Cleanup(func() { l.Close() })
		},
		"by netlink": func(t *testing.T, w *wire, prog *ebpf.Program) {
			require.NoError(t, netlink.LinkSetXdpFd(w.server, prog.FD()))
		},
	}
	for how, occupy := range ways {
		for _, mode := range []attach.Mode{attach.Auto, attach.Native, attach.Generic} {
			t.Run(fmt.Sprintf("%s, %s", how, mode), func(t *testing.T) {
				w := newWire(t, 1500)
				prog, id := foreignProgram(t)
				occupy(t, w, prog)
				cfg := testConfig()
				cfg.Interface, cfg.Mode = "srv0", mode
				_, err := newDecap(t, cfg).Attach()
				require.ErrorSays(t, err, `"srv0"`, "already has", `"someone_else"`, id)
			})
		}
	}
}

func TestAttachTwice(t *testing.T) {
	newWire(t, 1500)
	cfg := testConfig()
	cfg.Interface = "srv0"
	d := newDecap(t, cfg)
	must(d.Attach())(t)
	_, err := d.Attach()
	require.ErrorSays(t, err, `"srv0"`, "already attached")
}

// TestNotNative: a frame too long for the driver, and an interface without native XDP.
func TestNotNative(t *testing.T) {
	tests := []struct {
		name, ifname string
		why          []string
	}{
		{"jumbo frames", "srv0", []string{": the MTU is 9000", "at most about 3498", "generic mode"}},
		{"no driver support", "lo", []string{"no native XDP", "generic mode"}},
	}
	for _, tt := range tests {
		t.Run(tt.name+", native", func(t *testing.T) {
			newWire(t, 9000)
			cfg := testConfig()
			cfg.Interface, cfg.Mode = tt.ifname, attach.Native
			_, err := newDecap(t, cfg).Attach()
			require.ErrorSays(t, err, append(tt.why, fmt.Sprintf("%q in native mode", tt.ifname))...)
		})
		t.Run(tt.name+", auto", func(t *testing.T) {
			newWire(t, 9000)
			var logged bytes.Buffer
			cfg := testConfig()
			cfg.Interface, cfg.Log = tt.ifname, slog.New(slog.NewTextHandler(&logged, nil))
			at := must(newDecap(t, cfg).Attach())(t)
			if at.Mode != attach.Generic {
				t.Errorf("mode is %s, want generic", at.Mode)
			}
			for _, text := range []string{at.Reason, logged.String()} {
				for _, f := range tt.why {
					if !strings.Contains(text, f) {
						t.Errorf("the reason for generic mode, %q, does not say %q", text, f)
					}
				}
			}
		})
	}
}
