// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package decap

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"

	"github.com/remora-lb/remora/lb/attach"
)

// Decap owns the loaded program, its maps and its attachment, all of which end with it or with the
// process. Close must be called. All methods may be called concurrently, but none after Close.
type Decap struct {
	cfg     Config
	objects decapObjects

	mu   sync.Mutex // guards link
	link link.Link
}

// New checks the configuration, the interface and the capabilities of the calling thread, and
// loads the program with its tables filled. It attaches nothing.
func New(cfg Config) (*Decap, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	if _, err := attach.Interface(cfg.Interface); err != nil {
		return nil, err
	}
	privileges, err := attach.CurrentPrivileges()
	if err != nil {
		return nil, err
	}
	if err := privileges.Check(); err != nil {
		return nil, err
	}
	if err := attach.CheckKernel(); err != nil {
		return nil, err
	}
	d := &Decap{cfg: cfg}
	if err := d.load(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// load makes program and maps, and fills the tables.
func (d *Decap) load() error {
	if err := rlimit.RemoveMemlock(); err != nil {
		return fmt.Errorf("raise RLIMIT_MEMLOCK, which kernels before 5.11 charge maps to: %v", err)
	}
	spec, err := loadSpec(d.cfg)
	if err != nil {
		return err
	}
	if err := spec.LoadAndAssign(&d.objects, nil); err != nil {
		return loadError(err)
	}
	if err := fillAddrs(d.objects.TunnelAddrs, d.cfg.TunnelAddrs); err != nil {
		return err
	}
	return fillAddrs(d.objects.VipAddrs, d.cfg.VIPs)
}

// loadSpec is the program with settings and table sizes of the configuration.
func loadSpec(cfg Config) (*ebpf.CollectionSpec, error) {
	spec, err := loadDecap()
	if err != nil {
		return nil, fmt.Errorf("read the built-in program: %v", err)
	}
	spec.Maps["tunnel_addrs"].MaxEntries = uint32(max(1, len(cfg.TunnelAddrs)))
	spec.Maps["vip_addrs"].MaxEntries = uint32(max(1, len(cfg.VIPs)))
	vipsChecked := uint8(0)
	if len(cfg.VIPs) > 0 {
		vipsChecked = 1
	}
	err = errors.Join(
		spec.Variables["setting_gue_port"].Set(cfg.GUEPort),
		spec.Variables["setting_vips_checked"].Set(vipsChecked))
	if err != nil {
		return nil, fmt.Errorf("set constants of the built-in program: %v", err)
	}
	return spec, nil
}

// loadError adds the verifier's whole log, if it is that which refused.
func loadError(err error) error {
	var ve *ebpf.VerifierError
	if errors.As(err, &ve) {
		return fmt.Errorf("load program: the kernel's verifier refused it: %+v", ve)
	}
	return fmt.Errorf("load program and maps: %v", err)
}

// fillAddrs writes addresses as keys: 16 bytes, IPv4 as ::ffff:a.b.c.d.
func fillAddrs(m *ebpf.Map, addrs []netip.Addr) error {
	for _, a := range addrs {
		if err := m.Put(a.As16(), uint8(1)); err != nil {
			return fmt.Errorf("write address %s to map %s: %v", a, m, err)
		}
	}
	return nil
}

// Attach puts the program on the interface in the configured mode, as lb/attach does. Attaching
// twice is an error. The attachment's link stays this value's.
func (d *Decap) Attach() (*attach.Attachment, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.link != nil {
		return nil, fmt.Errorf("attach to interface %q: already attached", d.cfg.Interface)
	}
	a, err := attach.XDP(d.objects.RemoraDecap, d.cfg.Interface, d.cfg.Mode)
	if err != nil {
		return nil, err
	}
	if a.Mode == attach.Generic && d.cfg.Mode == attach.Auto {
		d.cfg.Log.Warn("running in generic mode", "interface", d.cfg.Interface, "reason", a.Reason)
	}
	d.link = a.Link
	return a, nil
}

// Detach takes the program off the interface. Frames pass as they are from then on; the counters
// stay. Without an attachment it does nothing.
func (d *Decap) Detach() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.link == nil {
		return nil
	}
	if err := d.link.Close(); err != nil {
		return fmt.Errorf("detach from interface %q: %v", d.cfg.Interface, err)
	}
	d.link = nil
	return nil
}

// Close detaches and frees everything, counters included.
func (d *Decap) Close() error {
	return errors.Join(d.Detach(), d.objects.Close())
}
