// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"github.com/vishvananda/netns"

	"github.com/remora-lb/remora/lb"
)

// TrafficOptions say what is sent, from where, and what is looked for.
type TrafficOptions struct {
	// Target is the program of the lab, of veth pairs in namespaces of its own. It is not used with TX.
	Target Target
	// Weights are the servers' shares by destination, to judge the balance. Where there are none, all
	// servers that get packets have the same.
	Weights map[lb.VIP]map[netip.Addr]float64
	// TX is the interface that sends, RX the one that receives, TX if it is empty. Empty: the lab.
	TX, RX string
	// MAC is the destination of frames that TX sends, 6 bytes.
	MAC net.HardwareAddr
	// Force permits an interface that carries the default route.
	Force bool
	// Generator is GeneratorAuto, GeneratorLive or GeneratorPktgen. Auto takes pktgen for interfaces where
	// the kernel has it.
	Generator string
	// Threads is how many send, each with CPU, queue and sources of its own, 1 to 64. Default 1.
	Threads int
	// Across gives the lab's program CPUs of its own, by threaded NAPI. Otherwise all that becomes of a
	// packet happens on the CPU of its generator.
	Across bool
	// FIFO asks for the real-time class, for the threads of the lab's program, and if there are none and
	// Duration is at most 200 ms, for the generators. Default true.
	FIFO bool
	// Destinations are the VIPs that are sent to, one after the other. All are of UDP.
	Destinations []lb.VIP
	// Sizes are names for ParsePacketSize.
	Sizes []string
	// Sources and Ports are how many source addresses each thread has, and how many source ports:
	// powers of two up to 1048576 and 32768. Default 65536 and 1.
	Sources, Ports int
	// Rate is the packets in a second; 0: as many as possible.
	Rate float64
	// Duration is for how long each size is sent, up to 30 days. It is measured in intervals, each of which
	// is a trial. Default 3 s.
	Duration time.Duration
	// Search looks for the highest rate without loss, in place of sending at Rate for Duration.
	Search *SearchOptions
	// Log gets one line for each trial, Progress what is done; nil for none.
	Log      func(Trial)
	Progress *Progress
}

// The generators.
const (
	GeneratorAuto   = "auto"
	GeneratorLive   = "live"
	GeneratorPktgen = "pktgen"
)

// DefaultTrafficOptions send frames of 64 bytes with 65536 flows through the lab, as fast as possible.
func DefaultTrafficOptions() TrafficOptions {
	return TrafficOptions{
		Generator: GeneratorAuto, Threads: 1, Across: runtime.NumCPU() > 1, FIFO: true,
		Destinations: []lb.VIP{TrafficVIP4()}, Sizes: []string{"64"}, Sources: 1 << 16, Ports: 1, Duration: 3 * time.Second,
	}
}

// TrafficVIP4 and TrafficVIP6 are the VIPs of the lab's program that traffic is sent to.
func TrafficVIP4() lb.VIP { return lb.VIP{Addr: addresses().vip4, Port: 53, Protocol: lb.UDP} }

// TrafficVIP6 is like TrafficVIP4.
func TrafficVIP6() lb.VIP { return lb.VIP{Addr: addresses().vip6, Port: 53, Protocol: lb.UDP} }

const (
	maxThreads  = 64
	maxDuration = 30 * 24 * time.Hour
	maxRate     = 1e9
)

// Validate reports all problems.
func (o TrafficOptions) Validate() error {
	var errs []error
	problem := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	problem(o.TX == "" && o.Target.Load == nil, "no interface to send on, and no program for the lab")
	problem(o.TX == "" && (o.RX != "" || len(o.MAC) > 0 || o.Force), "rx, mac and force need an interface to send on")
	problem(o.TX != "" && len(o.MAC) != 6, "mac: %q is not the 6 bytes of the next machine's address", o.MAC)
	problem(!slices.Contains([]string{GeneratorAuto, GeneratorLive, GeneratorPktgen}, o.Generator), "generator: %q is not auto, live or pktgen", o.Generator)
	problem(o.Threads < 1 || o.Threads > maxThreads, "threads: %d is not between 1 and %d", o.Threads, maxThreads)
	problem(!isPowerOfTwo(o.Sources) || o.Sources > maxSources, "sources: %d is not a power of two from 1 to %d", o.Sources, maxSources)
	problem(!isPowerOfTwo(o.Ports) || o.Ports > maxPorts, "ports: %d is not a power of two from 1 to %d", o.Ports, maxPorts)
	problem(o.Sources*o.Ports > maxFlows, "sources times ports: %d is more than %d", o.Sources*o.Ports, maxFlows)
	problem(o.Sources*o.Threads > maxFlows, "sources times threads: %d is more than %d", o.Sources*o.Threads, maxFlows)
	problem(!(o.Rate >= 0 && o.Rate <= maxRate), "rate: %g is not between 0 and %g", o.Rate, maxRate)
	problem(o.Rate > 0 && o.Rate < minRate, "rate: %g is less than %d", o.Rate, minRate)
	problem(o.Duration < 100*time.Millisecond || o.Duration > maxDuration, "duration: %v is not between 100ms and %v", o.Duration, maxDuration)
	problem(len(o.Destinations) == 0 || len(o.Sizes) == 0, "no destinations or sizes")
	for _, d := range o.Destinations {
		problem(d.Protocol != lb.UDP, "destination %s: its protocol is not udp", d)
		for _, s := range o.Sizes {
			if _, err := ParsePacketSize(s, d.Addr.Is6()); err != nil {
				errs = append(errs, err)
			}
		}
	}
	if o.Search != nil {
		errs = append(errs, o.Search.validate())
	}
	return errors.Join(errs...)
}

// shortTrial is for how long a machine may do without a CPU.
const shortTrial = 200 * time.Millisecond

// minRate is the least number of packets in a second that the live generator keeps to.
const minRate = 100

// Traffic sends loads through a program in a lab of veth pairs, or through whatever is behind the
// machine's interfaces, and counts what comes back: rate, loss, order, latency, and the spread over
// servers. Needs root. After an error, and once ctx is done, which the error then wraps, the report has
// what was measured until then, and everything made is gone.
func Traffic(ctx context.Context, o TrafficOptions) (r TrafficReport, err error) {
	r = TrafficReport{Head: newHead(KindTraffic)}
	if err := o.Validate(); err != nil {
		return r, fmt.Errorf("measure traffic: %w", err)
	}
	defer func() {
		r.end(err)
		if err != nil {
			err = fmt.Errorf("measure traffic: %w", err)
		}
	}()
	g, err := openRig(o)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	r.note(g.notes...)
	loads, err := o.loads()
	if err != nil {
		return r, err
	}
	for i, l := range loads {
		o.Progress.begin(i, len(loads))
		if err := r.measureLoad(ctx, o, g, l); err != nil {
			return r, err
		}
	}
	return r, nil
}

func openRig(o TrafficOptions) (*rig, error) {
	if o.TX != "" {
		return openInterfaceRig(o)
	}
	return openLabRig(o)
}

// loads are the destinations with the sizes.
func (o TrafficOptions) loads() (all []load, err error) {
	for _, d := range o.Destinations {
		for _, name := range o.Sizes {
			size, err := ParsePacketSize(name, d.Addr.Is6())
			if err != nil {
				return nil, err
			}
			l := load{size: size, destination: d, mac: [6]byte([]byte(balancerMAC)), sources: o.Sources, ports: o.Ports, rate: o.Rate}
			if o.TX != "" {
				l.mac = [6]byte(o.MAC)
			}
			all = append(all, l)
		}
	}
	return all, nil
}

// measureLoad measures one load, as the options say.
func (r *TrafficReport) measureLoad(ctx context.Context, o TrafficOptions, g *rig, l load) (err error) {
	generator, note, err := openGenerator(o, g, l)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, generator.close()) }()
	if note != "" {
		r.note(note)
	}
	t := &tester{options: o, rig: g, generator: generator, load: l, report: r}
	if o.Search != nil {
		return t.search(ctx)
	}
	return t.soak(ctx)
}

// openGenerator opens the one that is asked for, or says why it is another one.
func openGenerator(o TrafficOptions, g *rig, l load) (generator, string, error) {
	kernel := hasPktgen()
	switch {
	case o.Generator == GeneratorPktgen && !kernel:
		return nil, "", errors.New("this kernel has no pktgen (CONFIG_NET_PKTGEN, or the module of that name): use the generator live, which takes the same options")
	case o.Generator == GeneratorLive || o.Generator == GeneratorAuto && (o.TX == "" || !kernel):
		live, err := newLiveGenerator(l, g.lanes, o.FIFO && o.TX == "" && !o.Across && o.Search == nil && o.Duration <= shortTrial)
		note := ""
		if o.Generator == GeneratorAuto && o.TX != "" {
			note = "this kernel has no pktgen: the packets are live frames"
		}
		return live, note, err
	}
	inside := func(f func() error) error { return f() }
	if o.TX == "" {
		inside = g.generators.inside
	}
	var devices []pktgenDevice
	for i, lane := range g.lanes {
		queue := 0
		if o.TX != "" {
			queue = i
		}
		devices = append(devices, pktgenDevice{thread: lane.cpu, link: lane.device, queue: queue, firstSource: i * l.sources})
	}
	p, err := newPktgen(pktgenFolder, inside, l, devices)
	if err != nil {
		return nil, "", err
	}
	return p, "", nil
}

// inside runs f on a thread in the side's namespace.
func (s *side) inside(f func() error) error {
	return onThread(func() error {
		if err := netns.Set(s.ns); err != nil {
			return fmt.Errorf("enter namespace: %w", err)
		}
		return f()
	})
}
