// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package probetunnel

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/attach"
	"github.com/remora-lb/remora/lb/dataplane"
)

// maxReals bounds the set. Elements take memory when they are there.
const maxReals = 1 << 20

// Tunnel owns the loaded program, its maps and its attachment. Nothing is pinned: all of it ends with
// the process, however that ends. Close must be called. Methods may be called concurrently, but none
// after Close.
type Tunnel struct {
	cfg     Config
	objects probeObjects

	mu   sync.Mutex // guards what follows
	set  map[lb.RealID][dataplane.RecordLen]byte
	link link.Link
}

// New loads the program with an empty set and attaches it, which needs Linux 6.6.
func New(cfg Config) (*Tunnel, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("check tunnel of probes: %v", err)
	}
	t := &Tunnel{cfg: cfg.withDefaults(), set: make(map[lb.RealID][dataplane.RecordLen]byte)}
	if err := t.open(); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

func (t *Tunnel) open() error {
	iface, err := attach.Interface(t.cfg.Interface)
	if err != nil {
		return err
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		return fmt.Errorf("raise RLIMIT_MEMLOCK, which kernels before 5.11 charge maps to: %v", err)
	}
	spec, err := loadProbe()
	if err != nil {
		return fmt.Errorf("read the built-in program of probes: %v", err)
	}
	spec.Maps["reals"].MaxEntries = maxReals
	if err := spec.Variables["setting_mark_base"].Set(t.cfg.MarkBase); err != nil {
		return fmt.Errorf("set constants of the built-in program of probes: %v", err)
	}
	if err := spec.LoadAndAssign(&t.objects, nil); err != nil {
		return loadError(err)
	}
	t.link, err = link.AttachTCX(link.TCXOptions{
		Interface: iface.Index,
		Program:   t.objects.RemoraProbe,
		Attach:    ebpf.AttachTCXEgress,
	})
	if errors.Is(err, ebpf.ErrNotSupported) {
		return fmt.Errorf("attach the program of probes to interface %q: the kernel has no TCX, which came with Linux 6.6", t.cfg.Interface)
	}
	if err != nil {
		return fmt.Errorf("attach the program of probes to interface %q: %v", t.cfg.Interface, err)
	}
	return nil
}

// loadError adds the verifier's whole log, if it is that which refused.
func loadError(err error) error {
	var ve *ebpf.VerifierError
	if errors.As(err, &ve) {
		return fmt.Errorf("load the program of probes: the kernel's verifier refused it: %+v", ve)
	}
	return fmt.Errorf("load the program of probes and its maps: %v", err)
}

// Mark is the mark of packets to a real.
func (t *Tunnel) Mark(id lb.RealID) uint32 { return t.cfg.Mark(id) }

// Set replaces the whole set of reals. What failed is tried again by the next call.
func (t *Tunnel) Set(reals []lb.Real) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	wanted := make(map[lb.RealID]bool, len(reals))
	var errs []error
	for _, r := range reals {
		wanted[r.ID] = true
		if err := t.put(r); err != nil {
			errs = append(errs, err)
		}
	}
	for id := range t.set {
		if !wanted[id] {
			errs = append(errs, t.remove(id))
		}
	}
	return errors.Join(errs...)
}

func (t *Tunnel) put(r lb.Real) error {
	record, err := dataplane.Record(r)
	if err != nil {
		return err
	}
	if old, ok := t.set[r.ID]; ok && old == record {
		return nil
	}
	if err := t.objects.Reals.Put(t.Mark(r.ID), record); err != nil {
		return fmt.Errorf("write real %d for probes: %v", r.ID, err)
	}
	t.set[r.ID] = record
	return nil
}

func (t *Tunnel) remove(id lb.RealID) error {
	if err := t.objects.Reals.Delete(t.Mark(id)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("remove real %d for probes: %v", id, err)
	}
	delete(t.set, id)
	return nil
}

// Close takes the program off the interface and frees everything.
func (t *Tunnel) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var err error
	if t.link != nil {
		err = t.link.Close()
		t.link = nil
	}
	return errors.Join(err, t.objects.Close())
}
