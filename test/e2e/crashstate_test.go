// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/dataplane"
	"github.com/remora-lb/remora/lb/maglev"
	"github.com/remora-lb/remora/test/rig"
)

// crashStatus is what is compared of remora status -o json.
type crashStatus struct {
	DaemonPID int `json:"daemon_pid"`
	VIPs      []struct {
		VIP      string `json:"vip"`
		Service  string `json:"service"`
		RingSize uint32 `json:"ring_size"`
		RingHash string `json:"ring_hash"`
		Reals    []struct {
			Address string `json:"address"`
			Weight  int    `json:"weight"`
			State   string `json:"state"`
			Use     string `json:"use"`
		} `json:"reals"`
	} `json:"vips"`
}

// checkStatus compares the status with a configuration.
func (b *crashBed) checkStatus(t *testing.T, want crashConfig) error {
	command := b.remora.Status("-o", "json", "--interval", "0s")
	out, err := b.balancer.Run(t.Context(), command[0], command[1:]...)
	if err != nil {
		return err
	}
	var s crashStatus
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return fmt.Errorf("read status: %v", err)
	}
	if s.DaemonPID != b.daemon.Pid() {
		return fmt.Errorf("the status names process %d, not %d", s.DaemonPID, b.daemon.Pid())
	}
	var lines []string
	for _, v := range s.VIPs {
		var reals []string
		for _, r := range v.Reals {
			if r.Use != "active" {
				continue // it may have connections of before
			}
			reals = append(reals, realLine(r.Address, r.Weight))
			if r.State != "ok" {
				return fmt.Errorf("real %s of %s is %q", r.Address, v.VIP, r.State)
			}
		}
		lines = append(lines, strings.Replace(vipLine(v.VIP, v.Service, v.RingSize, reals), "maglev-v2", v.RingHash, 1))
	}
	slices.Sort(lines)
	if wanted := want.lines(b.Servers); !slices.Equal(lines, wanted) {
		return fmt.Errorf("the status says\n%s\nand the file\n%s", strings.Join(lines, "\n"), strings.Join(wanted, "\n"))
	}
	return nil
}

// checkPins demands one generation and one link, and nothing beside them.
func (b *crashBed) checkPins() error {
	root := b.remora.PinDir()
	numbers, err := names(filepath.Join(root, "generations"))
	if err != nil {
		return err
	}
	if len(numbers) != 1 {
		return fmt.Errorf("generations %v are pinned, want one", numbers)
	}
	at := filepath.Join("generations", numbers[0])
	for dir, want := range map[string][]string{
		"":                         {"generations", "links", "maps", "progs"},
		"links":                    {rig.BalancerInterface},
		at:                         {"maps", "progs"},
		filepath.Join(at, "progs"): {"flow_clock", "native"},
	} {
		if got, err := names(filepath.Join(root, dir)); err != nil || !slices.Equal(got, want) {
			return fmt.Errorf("in %q there are %v, want %v; error %v", dir, got, want, err)
		}
	}
	for _, sub := range []string{"maps", "progs"} {
		if to, err := os.Readlink(filepath.Join(root, sub)); err != nil || to != filepath.Join(at, sub) {
			return fmt.Errorf("%s points to %q, not into %s; error %v", sub, to, at, err)
		}
	}
	return nil
}

// names lists a directory, sorted.
func names(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list, nil
}

// checkSnapshot demands that the pinned maps fit together: every id once, every real one of a VIP
// that is there, and with a next hop; and that no packet was dropped, since every VIP that gets
// packets has servers in every configuration that has the VIP.
func (b *crashBed) checkSnapshot() error {
	s, err := dataplane.ReadSnapshot(dataplane.DefaultBPFFS, b.remora.Instance)
	if err != nil {
		return err
	}
	var errs []error
	problem := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	vips, rings := make(map[lb.VIP]bool), make(map[lb.RingID]bool)
	for _, v := range s.VIPs {
		if vips[v.VIP] || rings[v.RingID] {
			problem("VIP %v or its ring %d is there twice", v.VIP, v.RingID)
		}
		vips[v.VIP], rings[v.RingID] = true, true
	}
	type backend struct {
		vip  lb.VIP
		addr netip.Addr
	}
	ids, backends := make(map[lb.RealID]bool), make(map[backend]bool)
	for _, r := range s.Reals {
		is := backend{r.VIP, r.Backend.Addr}
		if r.ID == 0 || ids[r.ID] || backends[is] {
			problem("real %d (%s of %v) has no id of its own, or is there twice", r.ID, r.Backend.Addr, r.VIP)
		}
		if !vips[r.VIP] || !r.NextHop.Resolved() || r.Tunnel.Destination != r.Backend.Addr {
			problem("real %d (%s of %v) has no VIP, no next hop, or a wrong tunnel: %+v", r.ID, r.Backend.Addr, r.VIP, r.Tunnel)
		}
		ids[r.ID], backends[is] = true, true
	}
	for r := range lb.ReasonLen {
		if n := s.Reasons[r]; r.Verdict() == lb.Drop && n != 0 {
			problem("%d packets were dropped as %v", n, r)
		}
	}
	return errors.Join(errs...)
}

// checkBypass demands that no packet for a VIP came past the program: the balancer's own network
// counts those as wrongly addressed. The client sends only to VIPs that are there all the time.
func (b *crashBed) checkBypass() error {
	var text []byte
	if err := b.balancer.Do(func() (err error) {
		text, err = os.ReadFile("/proc/thread-self/net/snmp")
		return err
	}); err != nil {
		return err
	}
	var rows [][]string // names, and then values
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "Ip: ") {
			rows = append(rows, strings.Fields(line))
		}
	}
	if len(rows) != 2 {
		return fmt.Errorf("%d lines about IP in %q, want 2", len(rows), text)
	}
	i := slices.Index(rows[0], "InAddrErrors")
	if i < 0 || i >= len(rows[1]) {
		return fmt.Errorf("no InAddrErrors in %q", text)
	}
	if n := rows[1][i]; n != "0" {
		return fmt.Errorf("%s IPv4 packets came past the program", n)
	}
	return nil
}

// vipInfo is what a pinned map says about a VIP, as far as it is needed here.
type vipInfo struct {
	Addr             [16]byte
	Port             uint16
	Protocol         uint8
	_                uint8
	_                uint32
	RingFirst, Slots uint32
	_                [68]byte
}

// checkSlots demands that each slot has the real that a fresh start would choose, and that those that
// move had one of the same VIP.
func (b *crashBed) checkSlots() error {
	s, err := dataplane.ReadSnapshot(dataplane.DefaultBPFFS, b.remora.Instance)
	if err != nil {
		return err
	}
	members, vipOf := make(map[lb.VIP][]maglev.Member), make(map[lb.RealID]lb.VIP)
	for _, r := range s.Reals {
		vipOf[r.ID] = r.VIP
		if r.Use == lb.RealActive {
			members[r.VIP] = append(members[r.VIP], maglev.Member{ID: r.ID, Addr: r.Backend.Addr, Weight: r.Backend.Weight})
		}
	}
	have, err := b.readSlots()
	if err != nil {
		return err
	}
	var errs []error
	for _, v := range s.VIPs {
		want, err := maglev.Build(v.Ring, members[v.VIP])
		if err != nil {
			return err
		}
		wrong := 0
		for i, slot := range have[v.VIP] {
			if slot.Cur() != want[i].Cur() || slot.State() == lb.SlotMoving && vipOf[slot.Prev()] != v.VIP {
				wrong++
			}
		}
		if wrong > 0 || len(have[v.VIP]) != len(want) {
			errs = append(errs, fmt.Errorf("%d of the %d slots of %v are wrong; there are to be %d", wrong, len(have[v.VIP]), v.VIP, len(want)))
		}
	}
	return errors.Join(errs...)
}

// readSlots reads the rings from the pinned maps.
func (b *crashBed) readSlots() (map[lb.VIP][]lb.Slot, error) {
	dir := filepath.Join(b.remora.PinDir(), "maps")
	infos, err := ebpf.LoadPinnedMap(filepath.Join(dir, "vip_infos"), nil)
	if err != nil {
		return nil, err
	}
	defer infos.Close()
	rings, err := ebpf.LoadPinnedMap(filepath.Join(dir, "rings"), nil)
	if err != nil {
		return nil, err
	}
	defer rings.Close()
	memory, err := rings.Memory()
	if err != nil {
		return nil, err
	}
	slots := make(map[lb.VIP][]lb.Slot)
	var key uint32
	var info vipInfo
	entries := infos.Iterate()
	for entries.Next(&key, &info) {
		if info.Slots == 0 {
			continue
		}
		ring := make([]lb.Slot, info.Slots)
		at := io.NewSectionReader(memory, 8*int64(info.RingFirst), 8*int64(info.Slots))
		if err := binary.Read(at, binary.NativeEndian, ring); err != nil {
			return nil, err
		}
		slots[lb.VIP{Addr: netip.AddrFrom16(info.Addr).Unmap(), Port: info.Port, Protocol: lb.Protocol(info.Protocol)}] = ring
	}
	return slots, entries.Err()
}

// snapshotLines is what the maps say, in the form of crashConfig.lines.
func snapshotLines(s *dataplane.Snapshot) []string {
	reals := make(map[lb.VIP][]string)
	for _, r := range s.Reals {
		reals[r.VIP] = slices.Clip(reals[r.VIP])
		if r.Use == lb.RealActive {
			reals[r.VIP] = append(reals[r.VIP], realLine(r.Backend.Addr.String(), int(r.Backend.Weight)))
		}
	}
	var lines []string
	for _, v := range s.VIPs {
		lines = append(lines, vipLine(v.VIP.String(), v.Service, v.Ring.Size, reals[v.VIP]))
		delete(reals, v.VIP)
	}
	for vip := range reals {
		lines = append(lines, "reals of no VIP: "+vip.String())
	}
	slices.Sort(lines)
	return lines
}
