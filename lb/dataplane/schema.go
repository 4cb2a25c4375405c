// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
)

// schemaVersion is that of all pinned maps together: what they hold, and how. Another one than these two
// means that their contents are not understood; the program is then replaced by one with maps of its own.
const (
	schemaVersion = 3
	// schemaBefore is adopted: its contents are copied to new maps. It has no word in front of a ring's
	// slots, counts fewer reasons and events, and lacks the maps of mapsSince.
	schemaBefore = 2
)

// mapsSince are the maps that schemaBefore lacks.
var mapsSince = []string{
	"answer_guards", ".data.answer_settings", "decap_counters", "decap_dsts", loadSettingsSection,
	"source_routes", "targets", "vip_prefixes",
}

// openGeneration opens what pin left. The error says which pinned object is not what it should be.
func openGeneration(number int, dir string) (_ *generation, err error) {
	spec, err := loadNative()
	if err != nil {
		return nil, fmt.Errorf("read embedded program: %v", err)
	}
	g := &generation{number: number, maps: make(map[string]*ebpf.Map)}
	defer func() {
		if err != nil {
			g.close()
		}
	}()
	if err := g.openMaps(spec, filepath.Join(dir, "maps")); err != nil {
		return nil, err
	}
	if err := g.checkSizes(spec); err != nil {
		return nil, err
	}
	for name, prog := range map[string]**ebpf.Program{"native": &g.prog, "flow_clock": &g.clock} {
		path := filepath.Join(dir, "progs", name)
		if *prog, err = ebpf.LoadPinnedProgram(path, nil); err != nil {
			return nil, fmt.Errorf("open pinned program %s: %v", path, err)
		}
	}
	if err := g.mapArrays(); err != nil {
		return nil, err
	}
	return g, g.readFeatures()
}

// openMaps opens the maps of the schema that they say they are of.
func (g *generation) openMaps(spec *ebpf.CollectionSpec, dir string) error {
	if err := g.openMap("instance", spec, dir); err != nil {
		return err
	}
	info, err := readInstance(g)
	if err != nil {
		return err
	}
	if g.schema = info.Schema; g.schema != schemaVersion && g.schema != schemaBefore {
		return fmt.Errorf("pinned maps %s have schema %d, and this program understands %d and %d", dir, g.schema,
			schemaBefore, schemaVersion)
	}
	for name := range spec.Maps {
		if name == "instance" || g.schema == schemaBefore && slices.Contains(mapsSince, name) {
			continue
		}
		if err := g.openMap(name, spec, dir); err != nil {
			return err
		}
	}
	return nil
}

func (g *generation) openMap(name string, spec *ebpf.CollectionSpec, dir string) error {
	path, want := filepath.Join(dir, pinName(name)), spec.Maps[name]
	m, err := ebpf.LoadPinnedMap(path, nil)
	if err != nil {
		return fmt.Errorf("open pinned map %s: %v", path, err)
	}
	g.maps[name] = m
	if m.Type() != want.Type || m.KeySize() != want.KeySize || m.ValueSize() != want.ValueSize {
		return fmt.Errorf("pinned map %s is a %v of %d and %d bytes, not a %v of %d and %d", path,
			m.Type(), m.KeySize(), m.ValueSize(), want.Type, want.KeySize, want.ValueSize)
	}
	return nil
}

// checkSizes refuses pinned maps that do not belong together: what is found in one is looked up in
// another.
func (g *generation) checkSizes(spec *ebpf.CollectionSpec) error {
	reals := g.maps["reals"].MaxEntries()
	for name, want := range map[string]uint32{
		"real_counters":   reals,
		"real_infos":      reals,
		"reason_counters": spec.Maps["reason_counters"].MaxEntries,
		"flow_counters":   spec.Maps["flow_counters"].MaxEntries,
	} {
		n := g.maps[name].MaxEntries()
		if n != want && !(g.schema == schemaBefore && n < want) {
			return fmt.Errorf("pinned map %s has %d elements, not %d", name, n, want)
		}
	}
	for _, name := range []string{"vips4", "vips6"} {
		if n := g.maps[name].MaxEntries(); n < 2<<minTableBits || n&(n-1) != 0 {
			return fmt.Errorf("pinned map %s has %d elements, not a power of two from %d", name, n, 2<<minTableBits)
		}
	}
	if n := g.maps["flows"].MaxEntries(); n&(n-1) != 0 {
		return fmt.Errorf("pinned map flows has %d elements, not a power of two", n)
	}
	return nil
}

// hasPlace tells whether a ring's slots can be where its description says.
func (g *generation) hasPlace(slots span) bool {
	if slots.first == 0 && g.schema != schemaBefore {
		return false // its word would be outside
	}
	return uint64(slots.first)+uint64(slots.size) <= uint64(len(g.rings.elems))
}
