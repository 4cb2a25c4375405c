// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/attach"
	"github.com/remora-lb/remora/test/require"
)

var mapNames = []string{
	"answer_guards", "answer_settings", "decap_counters", "decap_dsts",
	"flow_counters", "flow_guards", "flow_settings", "flows",
	"instance", "load_settings", "real_counters", "real_infos", "reals", "reason_counters", "rings",
	"source_routes", "targets", "vip_addrs", "vip_infos", "vip_prefixes", "vip_seeds", "vips4", "vips6",
}

// pinTree is what pins.go promises for an attached instance.
func pinTree(iface string, generation int) []string {
	at := fmt.Sprintf("remora/test/generations/%d", generation)
	tree := []string{
		"remora/", "remora/test/", "remora/test/links/", "remora/test/links/" + iface,
		"remora/test/generations/", at + "/", at + "/maps/", at + "/progs/", at + "/progs/native", at + "/progs/flow_clock",
		fmt.Sprintf("remora/test/maps -> generations/%d/maps", generation),
		fmt.Sprintf("remora/test/progs -> generations/%d/progs", generation),
	}
	for _, name := range mapNames {
		tree = append(tree, at+"/maps/"+name)
	}
	slices.Sort(tree)
	return tree
}

func TestPinLayout(t *testing.T) {
	l := newLab(t)
	d := l.attached("lb0", attach.Auto)
	first := d.gen.number
	wantEqual(t, "pins", l.tree(), pinTree("lb0", first))
	require.NoError(t, d.Close())
	l.open("lb0", attach.Auto)
	wantEqual(t, "pins after another start", l.tree(), pinTree("lb0", first+1))
	prog, err := ebpf.LoadPinnedProgram(l.pin("progs", "native"), nil)
	require.NoError(t, err)
	defer prog.Close()
	if programID(prog) != programID(l.program("lb0")) {
		t.Error("progs/native is not what the interface runs")
	}
}

// bpftool prints names only for maps that carry BTF.
func TestPinnedMapsCarryBTF(t *testing.T) {
	l := newLab(t)
	l.attached("lb0", attach.Auto)
	for _, name := range mapNames {
		m, err := ebpf.LoadPinnedMap(l.pin("maps", name), nil)
		require.NoError(t, err)
		defer m.Close()
		handle, err := m.Handle()
		if err != nil {
			t.Errorf("map %s: %v", name, err)
			continue
		}
		defer handle.Close()
		types, err := handle.Spec(nil)
		require.NoError(t, err)
		if name == "vip_infos" {
			var info *btf.Struct
			if err := types.TypeByName("vip_info", &info); err != nil || len(info.Members) < 7 {
				t.Errorf("BTF of %s: %v, %v", name, info, err)
			}
		}
	}
}

func TestReadSnapshot(t *testing.T) {
	l := newLab(t)
	d := l.open("lb0", attach.Auto)
	fill(t, d, workedServices(lb.IPIP)...)
	require.NoError(t, d.Attach())
	l.wantForwarding("lb0")
	want, err := d.Snapshot()
	require.NoError(t, err)
	wantEqual(t, "snapshot while it is open", l.snapshot(), want)
	require.NoError(t, d.Close())
	got := l.snapshot()
	wantEqual(t, "snapshot", got, want)
	wantEqual(t, "counters", countsOf(got), webCounts)
	if got.VIPs[0].Service != "service of 203.0.113.10:443/tcp" || len(got.VIPs) != 3 || len(got.Reals) != 9 {
		t.Errorf("snapshot %+v", got)
	}
}

func TestGrowthWhileAttached(t *testing.T) {
	l := newLab(t)
	d := l.attached("lb0", attach.Auto)
	l.wantForwarding("lb0")
	id, first := linkID(t, d), d.gen.number
	for i, grow := range []func() error{
		func() error { return d.Reserve(capacityOf(1, 0, 1000, 70000)) },
		func() error {
			return d.SetReals([]lb.Real{testReal(t, 5000, "203.0.113.10:443/tcp", lb.IPIP, "10.9.9.9")})
		},
		func() error { return d.Reserve(capacityOf(1, 5000, 10, 10)) },
	} {
		old := programID(l.program("lb0"))
		require.NoError(t, grow())
		if now := programID(l.program("lb0")); now == old || now != programID(d.gen.prog) {
			t.Errorf("growth %d: the interface runs program %d, was %d", i, now, old)
		}
		if linkID(t, d) != id {
			t.Errorf("growth %d: the attachment was cycled", i)
		}
		wantEqual(t, "pins", l.tree(), pinTree("lb0", first+i+1))
		l.wantForwarding("lb0")
		s := l.snapshot()
		if got := countsOf(s).Reals[3]; got.Packets != uint64(i+2) || s.Interface != "lb0" || s.Mode != attach.Native {
			t.Errorf("growth %d: real 3 has %+v; snapshot of %s, %v", i, got, s.Interface, s.Mode)
		}
	}
}

func TestRemove(t *testing.T) {
	l := newLab(t)
	wantIs(t, Remove(l.bpffs, "test"), ErrNoInstance)
	d := l.attached("lb0", attach.Auto)
	wantIs(t, Remove(l.bpffs, "test"), ErrLocked)
	l.wantForwarding("lb0")
	require.NoError(t, d.Close())
	require.NoError(t, Remove(l.bpffs, "test"))
	l.wantBare("lb0")
	l.wantNothingPinned()
	_, err := ReadSnapshot(l.bpffs, "test")
	wantIs(t, err, ErrNoInstance)
}

func TestRemoveLeavesOthers(t *testing.T) {
	l := newLab(t)
	l.addPair("lb1", "peer1", 1500)
	require.NoError(t, l.attached("lb0", attach.Auto).Close())
	other := l.config("lb1", attach.Auto)
	other.Instance = "second"
	d, err := Open(other)
	require.NoError(t, err)
	defer d.Close()
	fill(t, d, web())
	require.NoError(t, d.Attach())
	require.NoError(t, Remove(l.bpffs, "test"))
	l.wantBare("lb0")
	l.wantForwarding("lb1")
	if _, err := os.Stat(l.pin()); !os.IsNotExist(err) {
		t.Errorf("folder of the instance: %v", err)
	}
}
