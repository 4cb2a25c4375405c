// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sync/errgroup"

	"github.com/remora-lb/remora/lb"
)

// ControlBalancer is control plane and packet program without sources. Its methods are called by one
// goroutine at a time, but for Program.
type ControlBalancer interface {
	// Program is the packet program; it stays the same from the first Apply on.
	Program() *ebpf.Program
	// Apply makes these services and their backends the wanted ones, and returns once packets are balanced
	// so. All backends are on the link.
	Apply(ctx context.Context, services []lb.Service, backends map[string][]lb.Backend) error
	Close() error
}

// ControlScale is how much a control plane has to do.
type ControlScale struct {
	// VIPs is how many there are, 1 to 65536, Reals how many each has, 2 to 1000.
	VIPs  int `json:"vips"`
	Reals int `json:"reals"`
	// RingSize is the number of slots of each ring, a prime.
	RingSize uint32 `json:"ring_size"`
}

func (s ControlScale) String() string {
	return fmt.Sprintf("%d VIPs x %d reals, rings of %d", s.VIPs, s.Reals, s.RingSize)
}

// ControlOptions say what is measured of the control plane.
type ControlOptions struct {
	// New makes a balancer that has room for nothing yet. Required.
	New func(ControlScale) (ControlBalancer, error)
	// Binary is the remora whose start is measured; empty: none is.
	Binary string
	// BPFFS is the mount point of the BPF file system, for Binary.
	BPFFS string
	// Scales are measured one after the other.
	Scales []ControlScale
	// Changes is how many changes of one VIP are measured, 2 to 1000. Default 20.
	Changes int
	// Progress is told what is done; nil for none.
	Progress *Progress
}

// DefaultControlScales are few VIPs and many. The last but one needs some 7 GiB for a start, by what 1000 VIPs
// need.
func DefaultControlScales() []ControlScale {
	return []ControlScale{
		{10, 100, SmallRing}, {1000, 100, SmallRing}, {10_000, 100, SmallRing}, {512, 100, lb.DefaultRingSize},
	}
}

// Validate reports all problems.
func (o ControlOptions) Validate() error {
	var errs []error
	if o.New == nil {
		errs = append(errs, errors.New("no way to make a balancer"))
	}
	if o.Changes < 2 || o.Changes > 1000 {
		errs = append(errs, fmt.Errorf("changes: %d is not between 2 and 1000", o.Changes))
	}
	if len(o.Scales) == 0 {
		errs = append(errs, errors.New("no scales"))
	}
	for _, s := range o.Scales {
		if s.VIPs < 1 || s.VIPs > 1<<16 || s.Reals < 2 || s.Reals > 1000 {
			errs = append(errs, fmt.Errorf("scale %s: VIPs are not between 1 and 65536, or reals not between 2 and 1000", s))
		}
		if s.RingSize < 2 || s.RingSize > lb.MaxRingSize {
			errs = append(errs, fmt.Errorf("scale %s: rings have not between 2 and %d slots", s, lb.MaxRingSize))
		}
	}
	return errors.Join(errs...)
}

// Control measures what the control plane needs: time to bring everything into the kernel, from a change
// to the first packet that follows it, to start and to adopt, and memory. Needs root. After an error,
// and once ctx is done, which the error then wraps, the report has what was measured until then.
func Control(ctx context.Context, o ControlOptions) (ControlReport, error) {
	r := ControlReport{Head: newHead(KindControl)}
	if err := o.Validate(); err != nil {
		return r, fmt.Errorf("measure control plane: %w", err)
	}
	var err error
	for i, s := range o.Scales {
		o.Progress.describe("%s", s)
		o.Progress.begin(i, len(o.Scales))
		row := measureControl(ctx, o, s)
		if err = ctx.Err(); err != nil {
			break
		}
		r.Rows = append(r.Rows, row)
	}
	if r.end(err); err != nil {
		return r, fmt.Errorf("measure control plane: %w", err)
	}
	return r, nil
}

// measureControl measures one scale; what cannot be measured is told in the row.
func measureControl(ctx context.Context, o ControlOptions, s ControlScale) ControlRow {
	row := ControlRow{ControlScale: s}
	err := measureChanges(ctx, o, s, &row)
	o.Progress.part(1, 2)
	if o.Binary != "" && ctx.Err() == nil {
		err = errors.Join(err, measureStarts(ctx, o, s, &row))
	}
	if err != nil {
		row.Error = err.Error()
	}
	return row
}

// controlFleet is the services and backends of a scale: the first service has one VIP, the others share
// out the rest, 100 each. All have the same servers.
type controlFleet struct {
	scale    ControlScale
	services []lb.Service
}

const (
	vipsByService = 100
	controlPort   = 80
)

func newControlFleet(s ControlScale) controlFleet {
	f := controlFleet{scale: s}
	for i := range s.VIPs {
		if i == 0 || (i-1)%vipsByService == 0 {
			f.services = append(f.services, lb.Service{Name: fmt.Sprintf("bench-%d", len(f.services))})
		}
		last := &f.services[len(f.services)-1]
		last.VIPs = append(last.VIPs, lb.ServiceVIP{
			VIP: controlVIP(i), Ring: lb.Ring{Size: s.RingSize}, Tunnel: lb.DefaultTunnelSources(), Leave: lb.DefaultLeave(),
		})
	}
	return f
}

// controlVIP is the VIP with that number, in the prefix for benchmarks (RFC 2544).
func controlVIP(i int) lb.VIP {
	addr := [4]byte{198, 18}
	binary.BigEndian.PutUint16(addr[2:], uint16(i))
	return lb.VIP{Addr: netip.AddrFrom4(addr), Port: controlPort, Protocol: lb.TCP}
}

func controlServer(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 202, byte(i >> 8), byte(i)}) }

// backends are those of all services. The first service lacks one, all others lack another; -1: none.
func (f controlFleet) backends(first, others int) map[string][]lb.Backend {
	all := make(map[string][]lb.Backend)
	for i, s := range f.services {
		without := others
		if i == 0 {
			without = first
		}
		var list []lb.Backend
		for n := range f.scale.Reals {
			if n != without {
				list = append(list, lb.Backend{Addr: controlServer(n), Weight: 1})
			}
		}
		all[s.Name] = list
	}
	return all
}

// measureChanges measures a control plane in this process.
func measureChanges(ctx context.Context, o ControlOptions, s ControlScale, row *ControlRow) (err error) {
	fleet := newControlFleet(s)
	runtime.GC()
	before := heapBytes()
	b, err := o.New(s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	apply := func(first, others int) (seconds float64, err error) {
		start := time.Now()
		err = b.Apply(ctx, fleet.services, fleet.backends(first, others))
		return time.Since(start).Seconds(), err
	}
	if row.FirstApply, err = apply(-1, -1); err != nil {
		return err
	}
	runtime.GC()
	row.HeapMB = max(heapBytes()-before, 0) / (1 << 20)
	if row.MapsMB, err = mapMegabytes(b.Program()); err != nil {
		return err
	}
	frame, err := watchedFlow(b.Program())
	if err != nil {
		return err
	}
	var toPacket []float64
	for i := range o.Changes {
		ms, err := changeToPacket(ctx, b.Program(), frame, func() error {
			first := -1
			if i%2 == 0 {
				first = 0
			}
			_, err := apply(first, -1)
			return err
		})
		if err != nil {
			return err
		}
		toPacket = append(toPacket, ms)
	}
	row.Change = newSpread(toPacket)
	row.ChangeAll, err = apply(-1, 0)
	return err
}

func heapBytes() float64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// changeTime bounds one change.
const changeTime = 3 * time.Minute

// changeToPacket returns the ms from when a change is asked for until the packet program sends the watched
// flow elsewhere. The change is one that takes the first server from the first VIP, or gives it back.
func changeToPacket(ctx context.Context, p *ebpf.Program, frame []byte, change func() error) (float64, error) {
	before, err := outerDestination(p, frame)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	var g errgroup.Group
	g.Go(change)
	for {
		if time.Since(start) > changeTime {
			return 0, errors.Join(fmt.Errorf("no packet followed the change within %v", changeTime), g.Wait())
		}
		now, err := outerDestination(p, frame)
		if err != nil || ctx.Err() != nil {
			return 0, errors.Join(err, ctx.Err(), g.Wait())
		}
		if now != before {
			took := float64(time.Since(start).Nanoseconds()) / 1e6
			return took, g.Wait()
		}
	}
}

// watchedFlow is the SYN of a flow of the first VIP that goes to the first server while it is there.
func watchedFlow(p *ebpf.Program) ([]byte, error) {
	vip := controlVIP(0)
	for port := range uint16(1 << 15) {
		frame := etherFrame(etherIPv4, ipv4Packet(addresses().client4, vip.Addr, byte(lb.TCP), tcpSegment(firstPort+port, vip.Port, tcpSYN, 10)))
		to, err := outerDestination(p, frame)
		if err != nil || to == controlServer(0) {
			return frame, err
		}
		if !to.IsValid() {
			return nil, errors.New("the packet program does not forward")
		}
	}
	return nil, errors.New("no flow goes to the first server")
}

// outerDestination runs the program with a frame, and returns where it goes to; nowhere if it is not
// forwarded.
func outerDestination(p *ebpf.Program, frame []byte) (netip.Addr, error) {
	verdict, out, err := p.Test(frame)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("run program: %w", err)
	}
	if lb.Verdict(verdict) != lb.TX || len(out) < etherLen+20 {
		return netip.Addr{}, nil
	}
	return netip.AddrFrom4([4]byte(out[etherLen+16:])), nil
}

// mapMegabytes is the memory of the program's maps, as the kernel tells it.
func mapMegabytes(p *ebpf.Program) (float64, error) {
	info, err := p.Info()
	if err != nil {
		return 0, fmt.Errorf("read program: %w", err)
	}
	ids, _ := info.MapIDs()
	var sum uint64
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			return 0, fmt.Errorf("open map: %w", err)
		}
		if info, err := m.Info(); err == nil {
			bytes, _ := info.Memlock()
			sum += bytes
		}
		m.Close()
	}
	return float64(sum) / (1 << 20), nil
}

// writeControlFile writes the configuration of a scale for an interface of the lab.
func writeControlFile(folder, link string, s ControlScale) (string, error) {
	name := filepath.Join(folder, "remora.yaml")
	if err := os.WriteFile(name, newControlFleet(s).document(link), 0o600); err != nil {
		return "", fmt.Errorf("write configuration: %w", err)
	}
	return name, nil
}
