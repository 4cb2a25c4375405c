// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Data sections that are read or written by themselves. Pins leave the prefix away.
const (
	seedsSection        = ".data.vip_seeds"
	loadSettingsSection = ".rodata.load_settings"
)

// sizes is how many elements the maps of a generation have room for, and what its program can do.
type sizes struct {
	words, reals, vips int // words of rings
	bits4, bits6       int // of a bucket's index in one half of a VIP table
	flowBits           int // of a bucket's index in the flow table
	prefixes           int // entries in the table of prefixes
	targets, routes    int
	features           features
}

// generation is one set of maps and the programs bound to them. Sizes of maps are fixed when they
// are made, so a data plane grows by a new generation. close must be called; pins outlive it.
type generation struct {
	number int
	prog   *ebpf.Program
	clock  *ebpf.Program        // returns the present tick of the flow table
	maps   map[string]*ebpf.Map // by name in the object
	schema uint32

	features features
	faults   faults

	rings *array[uint64]
	reals *array[nativeReal]
	vips4 *array[nativeVip4Bucket]
	vips6 *array[nativeVip6Bucket]
	seeds *array[[2]uint64]
	flows *array[nativeFlowBucket]
}

// newGeneration makes the maps and loads the programs; it goes on with the counters and the flows of
// the generation before, if there is one and their size stays. A refusal by the verifier is returned
// with its whole log.
func newGeneration(number int, s sizes, cfg Config, before *generation) (*generation, error) {
	if err := cfg.faults.at(stepMake); err != nil {
		return nil, err
	}
	spec, err := loadNative()
	if err != nil {
		return nil, fmt.Errorf("read embedded program: %v", err)
	}
	for name, n := range map[string]int{
		"rings":         s.words,
		"reals":         s.reals,
		"real_counters": s.reals,
		"real_infos":    s.reals,
		"vip_infos":     s.vips,
		"vip_addrs":     s.vips,
		"vips4":         2 << s.bits4,
		"vips6":         2 << s.bits6,
		"flows":         1 << s.flowBits,
		"vip_prefixes":  s.prefixes,
		"targets":       s.targets,
		"source_routes": s.routes,
		"decap_dsts":    max(len(cfg.Decap.Destinations), 1),
	} {
		spec.Maps[name].MaxEntries = uint32(n)
	}
	spec.Maps[seedsSection].Flags |= unix.BPF_F_MMAPABLE
	if err := setVariables(spec, s, cfg); err != nil {
		return nil, err
	}
	opts := ebpf.CollectionOptions{MapReplacements: before.sharedMaps(spec)}
	coll, err := ebpf.NewCollectionWithOptions(spec, opts)
	if err != nil {
		return nil, loadError(err)
	}
	g := &generation{
		number: number,
		prog:   coll.DetachProgram("remora"),
		clock:  coll.DetachProgram("flow_clock"),
		maps:   make(map[string]*ebpf.Map),
		schema: schemaVersion,

		features: s.features,
		faults:   cfg.faults,
	}
	for name := range spec.Maps {
		g.maps[name] = coll.DetachMap(name)
	}
	coll.Close()
	if err := g.mapArrays(); err != nil {
		g.close()
		return nil, err
	}
	if err := g.setDecap(cfg.Decap); err != nil {
		g.close()
		return nil, err
	}
	// Whatever the moment at which this process ends, the next start must know what is pinned.
	if err := writeInstance(g, nativeInstanceInfo{Schema: schemaVersion}); err != nil {
		g.close()
		return nil, err
	}
	return g, nil
}

func loadError(err error) error {
	var verifier *ebpf.VerifierError
	switch {
	case errors.As(err, &verifier):
		return fmt.Errorf("load program: refused by the kernel's verifier: %+v", verifier)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("load program: not permitted: CAP_BPF and CAP_NET_ADMIN are needed: %v", err)
	case errors.Is(err, unix.ENOMEM):
		return fmt.Errorf("load program: no memory for its maps: fewer VIPs, smaller rings or fewer remembered flows are needed: %v", err)
	}
	return fmt.Errorf("load program: %v", err)
}

func (g *generation) mapArrays() (err error) {
	keep := func(e error) {
		if err == nil {
			err = e
		}
	}
	var e error
	g.rings, e = mapArray[uint64](g.maps["rings"])
	keep(e)
	g.reals, e = mapArray[nativeReal](g.maps["reals"])
	keep(e)
	g.vips4, e = mapArray[nativeVip4Bucket](g.maps["vips4"])
	keep(e)
	g.vips6, e = mapArray[nativeVip6Bucket](g.maps["vips6"])
	keep(e)
	g.seeds, e = mapArray[[2]uint64](g.maps[seedsSection])
	keep(e)
	g.flows, e = mapArray[nativeFlowBucket](g.maps["flows"])
	keep(e)
	return err
}

func (g *generation) close() {
	g.rings.close()
	g.reals.close()
	g.vips4.close()
	g.vips6.close()
	g.seeds.close()
	g.flows.close()
	for _, m := range g.maps {
		m.Close()
	}
	g.prog.Close() // does nothing if it is nil
	g.clock.Close()
}

func (g *generation) sizes() sizes {
	return sizes{
		words: int(g.maps["rings"].MaxEntries()),
		reals: int(g.maps["reals"].MaxEntries()),
		vips:  int(g.maps["vip_infos"].MaxEntries()),
		bits4: bitsOfTable(int(g.maps["vips4"].MaxEntries())),
		bits6: bitsOfTable(int(g.maps["vips6"].MaxEntries())),

		flowBits: bits.TrailingZeros32(g.maps["flows"].MaxEntries()),
		prefixes: g.capacity("vip_prefixes"),
		targets:  g.capacity("targets"),
		routes:   g.capacity("source_routes"),
		features: g.features,
	}
}

// capacity is how many entries a map has room for; 1, as at least, if the schema has no such map.
func (g *generation) capacity(m string) int {
	if g.maps[m] == nil {
		return 1
	}
	return int(g.maps[m].MaxEntries())
}

// slots are the words of a ring's slots.
func (g *generation) slots(place span) []uint64 {
	at := place.slots()
	return g.rings.elems[at.first:at.end()]
}

// pinName is the file name of a map's pin.
func pinName(m string) string {
	return strings.TrimPrefix(strings.TrimPrefix(m, ".data."), ".rodata.")
}

// pin pins the programs and all maps below dir, which is made.
func (g *generation) pin(dir string) error {
	for _, sub := range []string{"maps", "progs"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return fmt.Errorf("make pin folder: %v", err)
		}
	}
	for name, m := range g.maps {
		if err := pinClone(g.faults, m.Clone, filepath.Join(dir, "maps", pinName(name))); err != nil {
			return fmt.Errorf("pin map %s: %v", name, err)
		}
	}
	for name, prog := range map[string]*ebpf.Program{"native": g.prog, "flow_clock": g.clock} {
		if err := pinClone(g.faults, prog.Clone, filepath.Join(dir, "progs", name)); err != nil {
			return fmt.Errorf("pin program %s: %v", name, err)
		}
	}
	return nil
}

type pinner interface {
	Pin(path string) error
	Close() error
}

// pinClone pins a clone, since the original would remember its pin: once that has been removed,
// pinning it again would do nothing.
func pinClone[T pinner](f faults, clone func() (T, error), path string) error {
	if err := f.at(stepPin); err != nil {
		return err
	}
	c, err := clone()
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Pin(path)
}
