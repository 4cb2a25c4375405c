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

// seedsSection is the data section that holds the VIP tables' seeds. Pins leave the prefix away.
const (
	seedsSection  = ".data.vip_seeds"
	sectionPrefix = ".data."
)

// sizes is how many elements the maps of a generation have room for.
type sizes struct {
	slots, reals, vips int
	bits4, bits6       int // of a bucket's index in one half of a VIP table
	flowBits           int // of a bucket's index in the flow table
}

// generation is one set of maps and the programs bound to them. Sizes of maps are fixed when they
// are made, so a data plane grows by a new generation. close must be called; pins outlive it.
type generation struct {
	number int
	prog   *ebpf.Program
	clock  *ebpf.Program        // returns the present tick of the flow table
	maps   map[string]*ebpf.Map // by name in the object

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
	spec, err := loadNative()
	if err != nil {
		return nil, fmt.Errorf("read embedded program: %v", err)
	}
	for name, n := range map[string]int{
		"rings":         s.slots,
		"reals":         s.reals,
		"real_counters": s.reals,
		"real_infos":    s.reals,
		"vip_infos":     s.vips,
		"vip_addrs":     s.vips,
		"vips4":         2 << s.bits4,
		"vips6":         2 << s.bits6,
		"flows":         1 << s.flowBits,
	} {
		spec.Maps[name].MaxEntries = uint32(n)
	}
	spec.Maps[seedsSection].Flags |= unix.BPF_F_MMAPABLE
	if err := setSeeds(spec, s); err != nil {
		return nil, err
	}
	if err := setFlowSettings(spec, s, cfg); err != nil {
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
	}
	for name := range spec.Maps {
		g.maps[name] = coll.DetachMap(name)
	}
	coll.Close()
	if err := g.mapArrays(); err != nil {
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

// setSeeds gives the tables seeds that find buckets, all empty, within them.
func setSeeds(spec *ebpf.CollectionSpec, s sizes) error {
	err := spec.Variables["vip_seeds"].Set([2]uint64{seedWord(0, 0, s.bits4), seedWord(0, 0, s.bits6)})
	if err != nil {
		return fmt.Errorf("set seeds of VIP tables: %v", err)
	}
	return nil
}

// setFlowSettings sets what the program needs to know of the flow table.
func setFlowSettings(spec *ebpf.CollectionSpec, s sizes, cfg Config) error {
	jiffy, err := jiffy()
	if err != nil {
		return err
	}
	tick, shift := tickOf(jiffy)
	err = spec.Variables["flow_settings"].Set(nativeFlowSettings{
		BucketMask:   1<<s.flowBits - 1,
		TickShift:    shift,
		InsertLimit:  uint32(cfg.FlowInserts),
		UdpIdleTicks: uint32(cfg.UDPIdle.Round(tick) / tick),
	})
	if err != nil {
		return fmt.Errorf("set flow table: %v", err)
	}
	return nil
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
		slots: int(g.maps["rings"].MaxEntries()),
		reals: int(g.maps["reals"].MaxEntries()),
		vips:  int(g.maps["vip_infos"].MaxEntries()),
		bits4: bitsOfTable(int(g.maps["vips4"].MaxEntries())),
		bits6: bitsOfTable(int(g.maps["vips6"].MaxEntries())),

		flowBits: bits.TrailingZeros32(g.maps["flows"].MaxEntries()),
	}
}

// pinName is the file name of a map's pin.
func pinName(m string) string { return strings.TrimPrefix(m, sectionPrefix) }

// pin pins the programs and all maps below dir, which is made.
func (g *generation) pin(dir string) error {
	for _, sub := range []string{"maps", "progs"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return fmt.Errorf("make pin folder: %v", err)
		}
	}
	for name, m := range g.maps {
		if err := pinClone(m.Clone, filepath.Join(dir, "maps", pinName(name))); err != nil {
			return fmt.Errorf("pin map %s: %v", name, err)
		}
	}
	for name, prog := range map[string]*ebpf.Program{"native": g.prog, "flow_clock": g.clock} {
		if err := pinClone(prog.Clone, filepath.Join(dir, "progs", name)); err != nil {
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
func pinClone[T pinner](clone func() (T, error), path string) error {
	c, err := clone()
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Pin(path)
}

// openGeneration opens what pin left. The error says which pinned object is not what it should be.
func openGeneration(number int, dir string) (*generation, error) {
	spec, err := loadNative()
	if err != nil {
		return nil, fmt.Errorf("read embedded program: %v", err)
	}
	g := &generation{number: number, maps: make(map[string]*ebpf.Map)}
	for name, ms := range spec.Maps {
		path := filepath.Join(dir, "maps", pinName(name))
		m, err := ebpf.LoadPinnedMap(path, nil)
		if err != nil {
			g.close()
			return nil, fmt.Errorf("open pinned map %s: %v", path, err)
		}
		g.maps[name] = m
		if m.Type() != ms.Type || m.KeySize() != ms.KeySize || m.ValueSize() != ms.ValueSize {
			g.close()
			return nil, fmt.Errorf("pinned map %s is a %v of %d and %d bytes, not a %v of %d and %d", path,
				m.Type(), m.KeySize(), m.ValueSize(), ms.Type, ms.KeySize, ms.ValueSize)
		}
	}
	if err := g.checkSizes(spec); err != nil {
		g.close()
		return nil, err
	}
	for name, prog := range map[string]**ebpf.Program{"native": &g.prog, "flow_clock": &g.clock} {
		path := filepath.Join(dir, "progs", name)
		if *prog, err = ebpf.LoadPinnedProgram(path, nil); err != nil {
			g.close()
			return nil, fmt.Errorf("open pinned program %s: %v", path, err)
		}
	}
	if err := g.mapArrays(); err != nil {
		g.close()
		return nil, err
	}
	return g, nil
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
		if n := g.maps[name].MaxEntries(); n != want {
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
