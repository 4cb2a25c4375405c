// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/remora-lb/remora/lb/attach"
	"github.com/remora-lb/remora/test/require"
)

// Pinned maps that are not what they should be are not adopted. The program that is attached goes
// on with them until a new one takes its place.
func TestPinnedMapsAreGarbage(t *testing.T) {
	pinMap := func(l *lab, name string, spec *ebpf.MapSpec) {
		m, err := ebpf.NewMap(spec)
		require.NoError(l.T, err)
		defer m.Close()
		path := l.pin("maps", name)
		require.NoError(l.T, os.Remove(path))
		require.NoError(l.T, m.Pin(path))
	}
	array := func(value, n uint32, flags uint32) *ebpf.MapSpec {
		return &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: value, MaxEntries: n, Flags: flags}
	}
	const mmapable = 1 << 10
	for _, tt := range []struct {
		name  string
		spoil func(l *lab)
		want  string
	}{
		{"map missing", func(l *lab) { require.NoError(l.T, os.Remove(l.pin("maps", "rings"))) }, "maps/rings"},
		{"program missing", func(l *lab) { require.NoError(l.T, os.Remove(l.pin("progs", "native"))) }, "progs/native"},
		{"clock missing", func(l *lab) { require.NoError(l.T, os.Remove(l.pin("progs", "flow_clock"))) }, "progs/flow_clock"},
		{"what an earlier release pinned", func(l *lab) {
			for _, name := range []string{"flows", "flow_counters", "flow_guards", "flow_settings"} {
				require.NoError(l.T, os.Remove(l.pin("maps", name)))
			}
			require.NoError(l.T, os.Remove(l.pin("progs", "flow_clock")))
		}, "maps/flow"},
		{"another type of map", func(l *lab) {
			pinMap(l, "rings", &ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 8, MaxEntries: 70000})
		}, "maps/rings is a Hash of 4 and 8 bytes, not a Array of 4 and 8"},
		{"another size of value", func(l *lab) { pinMap(l, "real_infos", array(72, 64, 0)) }, "maps/real_infos is a Array of 4 and 72"},
		{"not for mapping", func(l *lab) { pinMap(l, "rings", array(8, 70000, 0)) }, "into memory"},
		{"fewer reals than descriptions", func(l *lab) { pinMap(l, "reals", array(64, 3, mmapable)) }, " has 64 elements, not 3"},
		{"fewer counters than reals", func(l *lab) {
			pinMap(l, "real_counters", &ebpf.MapSpec{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 16, MaxEntries: 3})
		}, "real_counters has 3 elements"},
		{"fewer reasons", func(l *lab) {
			pinMap(l, "reason_counters", &ebpf.MapSpec{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 3})
		}, "reason_counters has 3 elements"},
		{"fewer events", func(l *lab) {
			pinMap(l, "flow_counters", &ebpf.MapSpec{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 3})
		}, "flow_counters has 3 elements"},
		{"a flow table of three buckets", func(l *lab) { pinMap(l, "flows", array(64, 3, mmapable)) }, "flows has 3 elements"},
		{"a table of one bucket", func(l *lab) { pinMap(l, "vips4", array(64, 1, mmapable)) }, "vips4 has 1 elements"},
		{"another schema", func(l *lab) {
			m, err := ebpf.LoadPinnedMap(l.pin("maps", "instance"), nil)
			require.NoError(l.T, err)
			defer m.Close()
			require.NoError(l.T, m.Put(uint32(0), nativeInstanceInfo{Schema: 77}))
		}, " have schema 77, and this program understands 2 and 3"},
		{"folder of another name", func(l *lab) { require.NoError(l.T, os.Mkdir(l.pin("generations", "old"), 0o700)) }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			first := l.attached("lb0", attach.Auto)
			id, program := linkID(t, first), programID(first.gen.prog)
			require.NoError(t, first.Close())
			tt.spoil(l)

			d := l.open("lb0", attach.Auto)
			if reals, vips := d.Adopted(); tt.want != "" {
				if len(reals)+len(vips) != 0 || programID(l.program("lb0")) != program {
					t.Error("adopted in spite of it, or the interface has another program")
				}
				if !strings.Contains(l.log.String(), tt.want) {
					t.Errorf("the log does not say %q:\n%s", tt.want, l.log.String())
				}
			}
			l.wantForwarding("lb0")
			fill(t, d, web())
			l.wantForwarding("lb0")
			require.NoError(t, d.Attach())
			if linkID(t, d) != id || programID(l.program("lb0")) != programID(d.gen.prog) {
				t.Error("the attachment was cycled, or has not the new program")
			}
			l.wantForwarding("lb0")
			l.snapshot()
		})
	}
}

func TestPinnedLinkIsGarbage(t *testing.T) {
	l := newLab(t)
	require.NoError(t, l.attached("lb0", attach.Auto).Close())
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	require.NoError(t, err)
	defer m.Close()
	require.NoError(t, os.Rename(l.pin("links", "lb0"), l.pin("links", "kept")))
	require.NoError(t, m.Pin(l.pin("links", "lb0")))
	_, err = Open(l.config("lb0", attach.Auto))
	require.ErrorSays(t, err, l.pin("links", "lb0"), "not what remora put there", "remove it")
	l.wantForwarding("lb0")
	if pid := Writer(l.bpffs, "test"); pid != 0 {
		t.Errorf("process %d still holds the instance", pid)
	}
	// As the message says.
	require.NoError(t, os.Remove(l.pin("links", "lb0")))
	require.NoError(t, os.Rename(l.pin("links", "kept"), l.pin("links", "lb0")))
	require.NoError(t, l.open("lb0", attach.Auto).Attach())
	l.wantForwarding("lb0")
}

// A start that was cut off after it had pinned, or after it had attached, is completed by the next.
func TestCutOff(t *testing.T) {
	for name, cut := range map[string]func(d *Dataplane) error{
		"before the attachment": func(d *Dataplane) error { return d.gen.pin(d.dir(d.gen)) },
		"after the attachment": func(d *Dataplane) error {
			if err := d.gen.pin(d.dir(d.gen)); err != nil {
				return err
			}
			_, _, err := d.linkProgram(attach.Auto)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			first := l.open("lb0", attach.Auto)
			fill(t, first, web())
			require.NoError(t, cut(first))
			require.NoError(t, first.Close())
			second := l.open("lb0", attach.Auto)
			if reals, vips := second.Adopted(); len(reals) != 3 || len(vips) != 1 {
				t.Errorf("adopted %d reals and %d VIPs, want 3 and 1", len(reals), len(vips))
			}
			require.NoError(t, second.Attach())
			l.wantForwarding("lb0")
			wantEqual(t, "pins", l.tree(), pinTree("lb0", second.gen.number))
			if s := l.snapshot(); s.Interface != "lb0" || s.Mode != attach.Native || s.ModeReason == "" {
				t.Errorf("snapshot %+v", s)
			}
		})
	}
}
