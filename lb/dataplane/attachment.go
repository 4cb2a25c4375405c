// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/attach"
	"github.com/remora-lb/remora/lb/event"
)

// attachment is the pinned link of an interface.
type attachment struct {
	link  link.Link
	iface string
	// prog is the program that the link ran when it was opened.
	prog ebpf.ProgramID
	// current says that the link runs the program of the generation in use, and that pins and
	// description say so.
	current bool
}

func (a *attachment) close() { a.link.Close() }

// openAttachment opens the pinned link of an interface; nil if there is none, or its interface is
// gone, in which case the pin is removed.
func openAttachment(p pins, iface string) (*attachment, error) {
	path := p.link(iface)
	l, err := link.LoadPinnedLink(path, nil)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open pinned link %s: %v: it is not what remora put there; remove it, or choose another instance name", path, err)
	}
	info, err := l.Info()
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("look at pinned link %s: %v", path, err)
	}
	xdp := info.XDP()
	if info.Type != link.XDPType || xdp == nil {
		l.Close()
		return nil, fmt.Errorf("pinned link %s is not an XDP link: remove it, or choose another instance name", path)
	}
	now, err := attach.Interface(iface)
	if err != nil || xdp.Ifindex != uint32(now.Index) {
		// The kernel took the program off with the device.
		l.Close()
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove pin of a gone interface: %v", err)
		}
		return nil, nil
	}
	return &attachment{link: l, iface: iface, prog: info.Program}, nil
}

// adopt opens what an earlier run left, and gives it the present program; or begins anew, in which
// case an attachment keeps its program until Attach.
func (d *Dataplane) adopt() error {
	var err error
	if d.link, err = openAttachment(d.pins, d.cfg.Interface); err != nil {
		return err
	}
	numbers, err := d.pins.generations()
	if err != nil {
		return err
	}
	for _, n := range numbers {
		d.lastNumber = max(d.lastNumber, n)
	}
	old, err := d.findGeneration(numbers)
	if err != nil {
		d.cfg.Log.Warn("pinned maps are not adopted; new ones are filled and then take their place", "cause", err)
	}
	if old == nil {
		return d.replace(d.minSizes())
	}
	if err := d.restore(old); err != nil {
		return err
	}
	if d.link != nil {
		info, err := readInstance(old)
		if err != nil {
			return err
		}
		// Without a description, the run that attached it was cut off before its end.
		d.link.current = d.link.prog == programID(old.prog) && info.Ifindex != 0
	}
	s := old.sizes()
	s.flowBits = flowBits(d.cfg.Flows)
	s.words = max(s.words, d.space.words())
	s.features = d.features(d.vips)
	return d.replace(s)
}

// findGeneration opens the generation that the attached program belongs to, else the newest.
func (d *Dataplane) findGeneration(numbers []int) (found *generation, err error) {
	for _, n := range numbers {
		g, openErr := openGeneration(n, d.pins.generation(n))
		if openErr != nil {
			err = openErr
			continue
		}
		if found == nil || d.preferred(g, found) {
			g, found = found, g
		}
		if g != nil {
			g.close()
		}
	}
	if found != nil {
		return found, nil
	}
	return nil, err
}

func (d *Dataplane) preferred(g, other *generation) bool {
	if d.link != nil {
		return programID(g.prog) == d.link.prog
	}
	return g.number > other.number
}

func programID(p *ebpf.Program) ebpf.ProgramID {
	info, err := p.Info()
	if err != nil {
		return 0
	}
	id, _ := info.ID()
	return id
}

// restore takes the contents of a pinned generation for those of this data plane.
func (d *Dataplane) restore(g *generation) error {
	d.gen = g
	d.space = newRingSpace(uint32(len(g.rings.elems)))
	err := eachVIPInfo(g, func(info nativeVipInfo) {
		v, at := entryOf(info)
		if g.hasPlace(at) {
			d.vips = append(d.vips, v)
			d.space.set(v.RingID, placeOf(at))
		}
	})
	if err != nil {
		return err
	}
	return eachRealInfo(g, func(id lb.RealID, info nativeRealInfo) {
		d.reals[id] = realOf(id, info, g.reals.elems[id])
	})
}

// Attach makes the interface run the program and pins everything. It is called once what must be
// forwarded is in the maps; calling it again does nothing. Links of the instance on other
// interfaces are removed last.
func (d *Dataplane) Attach() error {
	if d.cfg.Instance == "" {
		return errors.New("attach: the data plane has no instance name to pin under")
	}
	was, err := d.dropWrongMode()
	if err != nil {
		return err
	}
	if d.link == nil || !d.link.current {
		err := d.attachProgram(d.cfg.Mode)
		if err != nil && was != attach.Auto {
			return d.attachAgain(was, err)
		}
		if err != nil {
			return err
		}
	}
	if err := d.point(); err != nil {
		return err
	}
	return d.removeOtherPins()
}

// dropWrongMode detaches a program that runs in another mode than the one asked for: the kernel
// cannot change the mode of a link. It returns the mode; attach.Auto if nothing was detached. Packets
// go unbalanced until the program is attached again.
func (d *Dataplane) dropWrongMode() (attach.Mode, error) {
	if d.link == nil || d.cfg.Mode == attach.Auto {
		return attach.Auto, nil
	}
	mode, err := attach.CurrentMode(d.cfg.Interface)
	if err != nil || mode == d.cfg.Mode {
		return attach.Auto, err
	}
	d.emit(d.cfg.Interface, mode.String(), "detached", "for a moment, to change the mode to "+d.cfg.Mode.String())
	d.link.close()
	d.link = nil
	return mode, removeLink(d.pins.link(d.cfg.Interface))
}

// attachAgain goes back to the mode that a refused one was to replace, and returns the refusal.
func (d *Dataplane) attachAgain(was attach.Mode, refusal error) error {
	if err := d.attachProgram(was); err != nil {
		return errors.Join(refusal, fmt.Errorf("go back to %v mode: %v", was, err))
	}
	if err := d.describeInstance(was, "kept: "+refusal.Error()); err != nil {
		return errors.Join(refusal, err)
	}
	return fmt.Errorf("%w; still attached in %v mode", refusal, was)
}

// attachProgram pins the generation, and updates the link that is there or makes one. If it fails,
// what was attached before still is.
func (d *Dataplane) attachProgram(asked attach.Mode) error {
	dir := d.dir(d.gen)
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		if err := d.gen.pin(dir); err != nil {
			_ = d.pins.removeGeneration(d.gen.number) // the first error says more
			return err
		}
	}
	before := "detached"
	if d.link != nil {
		before = "attached"
	}
	mode, reason, err := d.linkProgram(asked)
	if err != nil {
		_ = d.pins.removeGeneration(d.gen.number)
		return err
	}
	d.emit(d.cfg.Interface, before, mode.String(), reason)
	if err := d.describeInstance(mode, reason); err != nil {
		return err
	}
	if err := d.pins.use(d.gen.number); err != nil {
		return err
	}
	d.link.current = true
	return nil
}

func (d *Dataplane) linkProgram(asked attach.Mode) (attach.Mode, string, error) {
	if d.link != nil {
		mode, err := attach.CurrentMode(d.cfg.Interface)
		if err != nil {
			return 0, "", err
		}
		return mode, "kept from an earlier start", d.updateLink(d.gen.prog)
	}
	if err := d.cfg.faults.at(stepAttach); err != nil {
		return 0, "", err
	}
	a, err := attach.XDP(d.gen.prog, d.cfg.Interface, asked)
	if err != nil {
		return 0, "", err
	}
	if err := d.pinLink(a.Link); err != nil {
		a.Link.Close()
		return 0, "", err
	}
	d.link = &attachment{link: a.Link, iface: d.cfg.Interface}
	return a.Mode, a.Reason, nil
}

func (d *Dataplane) pinLink(l link.Link) error {
	path := d.pins.link(d.cfg.Interface)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make pin folder: %v", err)
	}
	err := d.cfg.faults.at(stepPinLink)
	if err == nil {
		err = l.Pin(path)
	}
	if err != nil {
		return fmt.Errorf("pin link: %v", err)
	}
	return nil
}

// updateLink has the attached interface run another program.
func (d *Dataplane) updateLink(prog *ebpf.Program) error {
	err := d.cfg.faults.at(stepUpdate)
	if err == nil {
		err = d.link.link.Update(prog)
	}
	if err != nil {
		return fmt.Errorf("give %s the new program: %v", d.link.iface, err)
	}
	return nil
}

func (d *Dataplane) describeInstance(mode attach.Mode, reason string) error {
	if err := d.cfg.faults.at(stepDescribe); err != nil {
		return err
	}
	iface, err := attach.Interface(d.cfg.Interface)
	if err != nil {
		return err
	}
	info, err := readInstance(d.gen)
	if err != nil {
		return err
	}
	info.Ifindex, info.Mode, info.AttachedSec = uint32(iface.Index), uint32(mode), uint64(time.Now().Unix())
	putText(info.Interface[:], d.cfg.Interface)
	putText(info.ModeReason[:], reason)
	return writeInstance(d.gen, info)
}

// removeOtherPins removes links on other interfaces and generations that no link runs.
func (d *Dataplane) removeOtherPins() error {
	entries, err := os.ReadDir(d.pins.links())
	if err != nil {
		return fmt.Errorf("list pinned links: %v", err)
	}
	for _, e := range entries {
		path := filepath.Join(d.pins.links(), e.Name())
		if path == d.pins.link(d.cfg.Interface) {
			continue
		}
		if err := removeLink(path); err != nil {
			return err
		}
		d.emit(e.Name(), "attached", "detached", "the configuration names another interface")
	}
	return d.removeOtherGenerations()
}

// removeOtherGenerations removes the pins of all but the generation in use.
func (d *Dataplane) removeOtherGenerations() error {
	numbers, err := d.pins.generations()
	if err != nil {
		return err
	}
	for _, n := range numbers {
		if n == d.gen.number {
			continue
		}
		if err := d.pins.removeGeneration(n); err != nil {
			return err
		}
	}
	return nil
}

// emit tells that what is attached to an interface changed.
func (d *Dataplane) emit(iface, from, to, cause string) {
	d.cfg.Events.Emit(event.Event{Kind: event.KindAttachment, Interface: iface, From: from, To: to, Cause: cause})
}
