// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package dataplane loads the packet program, attaches it and keeps its maps: typed verbs, counters,
// pins, and growth while packets flow. It knows how entries are stored, not why they exist.
package dataplane

import (
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"

	"github.com/remora-lb/remora/lb"
)

// Dataplane is one packet program and its maps. It belongs to one goroutine. Close it; what it
// attached stays attached, unless Detach was called.
type Dataplane struct {
	cfg     Config
	pins    pins
	lock    *os.File
	settler *settler

	gen        *generation
	lastNumber int // of a generation, also of those pinned by earlier runs
	space      *ringSpace
	retired    []span // places of rings that changed their length, until no VIP names them
	vips       []lb.VIPEntry
	reals      map[lb.RealID]lb.Real
	routes     []sourceRoute // in force, in order

	link *attachment // nil until attached
	// unpointed says that the generation is in use, and maps and progs do not point to it yet.
	unpointed bool
}

// Open loads the program, and adopts what an earlier run of the instance left: its maps' contents
// are taken over and its attachment gets the new program, without a packet lost. The caller must
// have its privileges checked (lb/attach) to get a good message if it lacks one. Errors of
// ErrLocked say that another process has the instance.
func Open(cfg Config) (_ *Dataplane, err error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	// Only needed, and only possible, on kernels before 5.11; a failure shows when maps are made.
	_ = rlimit.RemoveMemlock()
	d := &Dataplane{cfg: cfg, reals: make(map[lb.RealID]lb.Real), space: newRingSpace(0)}
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	if d.settler, err = newSettler(); err != nil {
		return nil, err
	}
	if cfg.Instance == "" {
		return d, d.replace(d.minSizes())
	}
	if err := checkBPFFS(cfg.BPFFS); err != nil {
		return nil, err
	}
	d.pins = pinsOf(cfg.BPFFS, cfg.Instance)
	d.pins.faults = cfg.faults
	if d.lock, err = lockFolder(d.pins.root); err != nil {
		return nil, err
	}
	return d, d.adopt()
}

// minSizes are those of a generation with nothing in it.
func (d *Dataplane) minSizes() sizes {
	return sizes{
		words: 2, reals: 64, vips: 16, bits4: 3, bits6: 3, flowBits: flowBits(d.cfg.Flows),
		prefixes: 1, targets: 1, routes: 1, features: d.features(nil),
	}
}

// Program is the loaded program, owned by the data plane: for test runs and measurements. Growth
// replaces it.
func (d *Dataplane) Program() *ebpf.Program { return d.gen.prog }

// Adopted is what an earlier run left in the maps, by ids.
func (d *Dataplane) Adopted() ([]lb.Real, []lb.VIPEntry) {
	reals := make([]lb.Real, 0, len(d.reals))
	for _, r := range d.reals {
		reals = append(reals, r)
	}
	slices.SortFunc(reals, func(a, b lb.Real) int { return int(a.ID) - int(b.ID) })
	return reals, slices.Clone(d.vips)
}

// AdoptedRing is a copy of a ring's slots, as they are in the maps; nil if there is no such ring.
func (d *Dataplane) AdoptedRing(id lb.RingID) []lb.Slot {
	place, ok := d.space.spans[id]
	if !ok {
		return nil
	}
	words := d.gen.slots(place)
	slots := make([]lb.Slot, len(words))
	for i, word := range words {
		slots[i] = lb.Slot(word)
	}
	return slots
}

// Close releases everything that this process holds. Pins, and so forwarding, stay.
func (d *Dataplane) Close() error {
	if d.gen != nil {
		d.gen.close()
	}
	if d.link != nil {
		d.link.close()
	}
	if d.settler != nil {
		d.settler.close()
	}
	if d.lock != nil {
		d.pins.removeEmpty()
		d.lock.Close()
	}
	return nil
}

// Detach takes the program off the interface and removes all pins of the instance.
func (d *Dataplane) Detach() error {
	if d.cfg.Instance == "" {
		return nil
	}
	if d.link != nil {
		d.link.close()
		d.link = nil
	}
	if err := d.pins.removeAll(); err != nil {
		return err
	}
	d.emit(d.cfg.Interface, "attached", "detached", "on request")
	return nil
}

// Snapshot reads what is configured and counted.
func (d *Dataplane) Snapshot() (*Snapshot, error) { return readSnapshot(d.gen, d.cfg.Instance) }

func (d *Dataplane) dir(g *generation) string { return d.pins.generation(g.number) }
