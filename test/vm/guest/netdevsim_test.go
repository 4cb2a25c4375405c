// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/lb/offload"
	"github.com/remora-lb/remora/test/require"
)

// The kernel's own simulated card, netdevsim, never runs a program, but refuses whatever it is told to.
const (
	simBus   = "/sys/bus/netdevsim"
	simID    = "7"
	simDebug = "/sys/kernel/debug/netdevsim/netdevsim" + simID
)

// addSim makes a card with one interface and returns that.
func addSim(t *testing.T) *net.Interface {
	t.Helper()
	const ports = "1"
	require.NoError(t, writeFile(simBus+"/new_device", simID+" "+ports))
	t.Cleanup(func() {
		if err := removeSim(); err != nil && !errors.Is(err, unix.ENOENT) {
			t.Error(err)
		}
	})
	var card *net.Interface
	waitFor(t, "interface of netdevsim", func() error {
		found, err := filepath.Glob(simBus + "/devices/netdevsim" + simID + "/net/*")
		if err != nil || len(found) == 0 {
			return errors.Join(err, os.ErrNotExist)
		}
		card, err = net.InterfaceByName(filepath.Base(found[0]))
		return err
	})
	return card
}

func removeSim() error { return writeFile(simBus+"/del_device", simID) }

// writeFile writes to a file that is there.
func writeFile(name, text string) error { return os.WriteFile(name, []byte(text), 0) }

// cardSpec is remora's program for a card, with small tables.
func cardSpec(t *testing.T) *ebpf.CollectionSpec {
	t.Helper()
	spec, err := offload.Spec(offload.Sizes{VIPs4: 8, VIPs6: 8, Reals: 8, RingSlots: offload.RingSpace(ringSize)})
	require.NoError(t, err)
	return spec
}

// TestCardRefuses: what a card refuses to do at any step is an error, and nothing stays on the card.
// Afterwards the same works.
func TestCardRefuses(t *testing.T) {
	inMachine(t)
	card := addSim(t)
	for _, tt := range []struct {
		name, file string
		says       string
	}{
		{"program", "bpf_bind_accept", "operation not supported"},
		{"program at the end of its check", "bpf_bind_verifier_accept", "operation not supported"},
		{"map", "ports/0/bpf_map_accept", "operation not supported"},
		{"attachment", "ports/0/bpf_xdpoffload_accept", "operation not supported"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(simDebug, tt.file)
			require.NoError(t, writeFile(file, "N"))
			defer func() { require.NoError(t, writeFile(file, "Y")) }()
			require.ErrorSays(t, useSim(t, card), tt.says)
			wantEmptySim(t)
		})
	}
	require.NoError(t, useSim(t, card))
	wantEmptySim(t)
}

// useSim loads and attaches the program, and takes it off again.
func useSim(t *testing.T, card *net.Interface) error {
	t.Helper()
	loaded, err := loadOnto(cardSpec(t), card.Index)
	if err != nil {
		return err
	}
	defer loaded.Close()
	l, err := attachOnto(loaded.Programs[offload.ProgramName], card.Index)
	if err != nil {
		return err
	}
	return l.Close()
}

// wantEmptySim demands that the card has no program any more. The kernel frees them a little later.
func wantEmptySim(t *testing.T) {
	t.Helper()
	waitFor(t, "the card to be empty", func() error {
		programs, err := os.ReadDir(filepath.Join(simDebug, "bpf_bound_progs"))
		if err != nil {
			return err
		}
		if len(programs) > 0 {
			return errors.New(strings.TrimSpace(programs[0].Name() + " is still there"))
		}
		return nil
	})
}

// TestCardGone: a card that goes away takes its maps along; whoever holds them is told.
func TestCardGone(t *testing.T) {
	inMachine(t)
	card := addSim(t)
	loaded, err := loadOnto(cardSpec(t), card.Index)
	require.NoError(t, err)
	defer loaded.Close()
	l, err := attachOnto(loaded.Programs[offload.ProgramName], card.Index)
	require.NoError(t, err)
	defer l.Close()
	counter := make([]byte, 16)
	require.NoError(t, loaded.Maps["real_counters"].Lookup(uint32(1), &counter))
	require.NoError(t, removeSim())
	if err := loaded.Maps["real_counters"].Lookup(uint32(1), &counter); !errors.Is(err, unix.ENODEV) {
		t.Errorf("reading a map of a card that is gone: %v, want %v", err, unix.ENODEV)
	}
}
