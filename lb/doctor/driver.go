// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// checkOffloads looks at what a card does with packets before XDP sees them.
func (b *Balancer) checkOffloads(context.Context) (found []Finding) {
	l, ok := b.device()
	if !ok {
		return nil
	}
	on, err := b.Driver.Features(l.Name)
	if err != nil {
		return []Finding{cannotTell("offload", l.Name, err, "a driver that answers ethtool -k")}
	}
	for _, f := range []struct{ feature, short string }{{"rx-lro", "lro"}, {"rx-gro-hw", "rx-gro-hw"}} {
		if on[f.feature] {
			found = append(found, warn("offload-"+f.short, l.Name, "the card joins packets (%s): XDP gets packets that are too long to "+
				"forward, or native mode is refused", f.feature).
				cure("ethtool -K %s %s off", l.Name, f.short))
		}
	}
	if on["rx-vlan-hw-parse"] {
		found = append(found, b.vlanOffload(l))
	}
	if len(found) == 0 {
		found = append(found, fine("offload", l.Name, "the card leaves packets as they are (LRO, GRO and VLAN parsing are off)"))
	}
	return found
}

// vlanOffload is a fault only where there are tags.
func (b *Balancer) vlanOffload(l Link) Finding {
	const id = "offload-rxvlan"
	links, err := b.Network.Links()
	if err != nil {
		return cannotTell(id, l.Name, err, "netlink")
	}
	off := fmt.Sprintf("ethtool -K %s rxvlan off", l.Name)
	if slices.ContainsFunc(links, func(v Link) bool { return v.Type == "vlan" && v.Parent == l.Index }) {
		return warn(id, l.Name, "the card takes VLAN tags out, and there are VLANs on the interface: XDP forwards their packets without a tag").
			cure("%s", off)
	}
	return note(id, l.Name, "the card takes VLAN tags out: if packets for VIPs carry one, they are forwarded without it").cure("%s", off)
}

// virtual are drivers without a card: their queues and buffers say nothing about speed.
func virtual(driver string) bool {
	return slices.Contains([]string{"veth", "virtio_net", "tun", "dummy", "bridge"}, driver)
}

func (b *Balancer) checkQueues(context.Context) []Finding {
	const id = "queues"
	l, ok := b.device()
	if !ok {
		return nil
	}
	now, most, err := b.Driver.Queues(l.Name)
	if err != nil {
		return []Finding{cannotTell(id, l.Name, err, "a driver that answers ethtool -l")}
	}
	driver, err := b.Driver.Name(l.Name)
	if err != nil {
		return []Finding{cannotTell(id, l.Name, err, "a driver that answers ethtool -i")}
	}
	cpus := b.System.CPUs()
	facts := fmt.Sprintf("receive queues: %d of at most %d (driver %s); CPUs: %d", now, most, driver, cpus)
	more := fmt.Sprintf("ethtool -L %s combined %d", l.Name, min(most, cpus))
	switch {
	case now >= cpus || virtual(driver):
		return []Finding{fine(id, l.Name, "%s", facts)}
	case now == 1 && most > 1:
		return []Finding{warn(id, l.Name, "%s. One CPU does all the work, and many drivers refuse native XDP without a queue for each CPU", facts).
			cure("%s", more)}
	case most > now:
		return []Finding{note(id, l.Name, "%s. The other CPUs take no packets; some drivers refuse native XDP without a queue for each CPU", facts).
			cure("%s", more)}
	}
	return []Finding{note(id, l.Name, "%s. The card has no more", facts)}
}

// checkInterrupts demands that the queues do not all interrupt one CPU.
func (b *Balancer) checkInterrupts(context.Context) []Finding {
	const id = "interrupts"
	l, ok := b.device()
	if !ok || b.System.CPUs() == 1 {
		return nil
	}
	text, err := b.text("/proc/interrupts")
	if err != nil {
		return []Finding{cannotTell(id, l.Name, err, "leave to read /proc/interrupts")}
	}
	cpus := make(map[string]bool)
	queues := 0
	for _, number := range interruptsOf(text, l.Name) {
		cpu, err := b.text("/proc/irq/" + number + "/effective_affinity_list")
		if errors.Is(err, fs.ErrNotExist) {
			cpu, err = b.text("/proc/irq/" + number + "/smp_affinity_list")
		}
		if err != nil {
			return []Finding{cannotTell(id, l.Name, err, "leave to read /proc/irq")}
		}
		queues++
		cpus[cpu] = true
	}
	switch {
	case queues == 0:
		return []Finding{fine(id, l.Name, "no interrupt bears its name")}
	case queues > 1 && len(cpus) == 1:
		return []Finding{warn(id, l.Name, "all of its %d interrupts go to one CPU", queues).
			cure("systemctl enable --now irqbalance, or write a CPU each to /proc/irq/NUMBER/smp_affinity_list")}
	}
	return []Finding{fine(id, l.Name, "%d interrupts on %d CPUs, or sets of CPUs", queues, len(cpus))}
}

// interruptsOf are the numbers of the interrupts that are named after an interface.
func interruptsOf(text, iface string) (numbers []string) {
	for line := range strings.Lines(text) {
		number, rest, ok := strings.Cut(strings.TrimSpace(line), ":")
		words := strings.Fields(rest)
		if !ok || len(words) == 0 || strings.Trim(number, "0123456789") != "" {
			continue
		}
		name := words[len(words)-1]
		for _, part := range strings.FieldsFunc(name, func(r rune) bool { return strings.ContainsRune("-@:,", r) }) {
			if part == iface {
				numbers = append(numbers, number)
				break
			}
		}
	}
	return numbers
}

// fewDescriptors is a receive ring that a burst of some microseconds fills at 10 Gbit/s.
const fewDescriptors = 512

func (b *Balancer) checkRing(context.Context) []Finding {
	const id = "ring-buffer"
	l, ok := b.device()
	if !ok {
		return nil
	}
	now, most, err := b.Driver.Ring(l.Name)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return []Finding{fine(id, l.Name, "the driver has no receive rings to set")}
	case err != nil:
		return []Finding{cannotTell(id, l.Name, err, "a driver that answers ethtool -g")}
	case now < fewDescriptors && most > now:
		return []Finding{warn(id, l.Name, "a receive queue holds %d packets of at most %d: bursts are lost before XDP sees them", now, most).
			cure("ethtool -G %s rx %d", l.Name, most)}
	case most > now:
		return []Finding{note(id, l.Name, "a receive queue holds %d packets of at most %d: if ethtool -S counts missed packets, it is too few",
			now, most).
			cure("ethtool -G %s rx %d", l.Name, most)}
	}
	return []Finding{fine(id, l.Name, "a receive queue holds %d packets, as many as it can", now)}
}
