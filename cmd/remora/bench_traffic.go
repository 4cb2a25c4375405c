// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/remora-lb/remora/bench"
	"github.com/remora-lb/remora/lb"
)

// trafficFlags are the flags of `bench pktgen`.
type trafficFlags struct {
	output       benchOutput
	options      bench.TrafficOptions
	search       bench.SearchOptions
	searching    bool
	program      benchFlags
	destinations []string
	family       string
	mac          string
	weights      []string
}

const pktgenLong = `Send traffic, and count what comes back: rate, loss, order, latency, and the spread over servers.

Without --tx-if, packets go through remora's program in a lab of veth pairs between network
namespaces, which the kernel removes with this command, however it ends. --threads makes as many
pairs. With --across (the default if there are CPUs) the program has a CPU of its own for each, by
threaded NAPI, and packets can be lost; without, all happens on the generator's CPU, and the rate is
that of one CPU a thread for the whole path.

With --tx-if, packets leave by that interface to --dst-mac, and are expected back on --rx-if, or on
the same one, as the balancer behind it sends them to its servers: the sink, an XDP program, counts
them there by their outer destination and drops them; it lets everything else pass. Counters of the
drivers (as of ethtool -S) are read before and after. An interface that carries the default route is
refused.

The generator is the kernel's pktgen for interfaces, where the kernel has it; live makes live frames
by BPF_PROG_TEST_RUN, with the same flags, and needs redirects into --tx-if's driver. Packets are of UDP, and
carry a number and, one in 64, a time. pktgen varies sources of IPv4 only.

--search looks for the highest rate without loss (--max-loss) in the manner of RFC 2544: bisection, each
rate sent for --trial and refused only if it fails --tries times, then latency at that rate, then the
loss curve. A rate at which the generator itself makes no more is marked as bound by it.

Latency is from the generator's program to the sink's, and so includes both machines' queues.
Balance compares each server's share with its weight; "by chance" is the deviation that so many random
flows have by themselves. Results of the lab on a busy machine include the loss that its other work
makes: look at the load in the report's head. Exit code 1: nothing came back, or packets of a flow came
out of order.`

func newBenchPktgenCommand(load loadBenchProgram) *cobra.Command {
	f := trafficFlags{options: bench.DefaultTrafficOptions(), search: bench.DefaultSearchOptions()}
	c := &cobra.Command{
		Use:   "pktgen",
		Short: "Send traffic through the balancer, or through network cards, and find the highest rate without loss",
		Long:  pktgenLong,
		Example: `  remora bench pktgen --sizes 64,512,1514,imix --family both
  remora bench pktgen --search --sizes 64,1514
  remora bench pktgen --tx-if eth1 --rx-if eth2 --dst-mac 02:00:00:00:00:01 --dst 192.0.2.10:53/udp --search
  remora bench pktgen --rate 200000 --duration 24h --save soak.json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := f.prepare(c, load); err != nil {
				return err
			}
			return measure(c, &f.output, func(ctx context.Context) (bench.TrafficReport, error) { return bench.Traffic(ctx, f.options) })
		},
	}
	f.add(c)
	return c
}

func (f *trafficFlags) add(c *cobra.Command) {
	s, o := c.Flags(), &f.options
	s.StringVar(&o.TX, "tx-if", "", "send on this interface (`NAME`) instead of in a lab")
	s.StringVar(&o.RX, "rx-if", "", "count what comes back on this interface (`NAME`) (default --tx-if)")
	s.StringVar(&f.mac, "dst-mac", "", "with --tx-if: the link `ADDRESS` of the balancer or router")
	s.BoolVar(&o.Force, "force", false, "use an interface that carries the default route, too")
	s.StringVar(&o.Generator, "generator", o.Generator, "auto, live or pktgen")
	s.IntVar(&o.Threads, "threads", o.Threads, "threads that send, each with CPU, queue and sources of its own")
	s.BoolVar(&o.Across, "across", o.Across, "in the lab: the program runs on CPUs of its own")
	s.BoolVar(&o.FIFO, "fifo", o.FIFO, "in the lab: run the program in the real-time class, if permitted")
	s.StringSliceVar(&o.Sizes, "sizes", o.Sizes, "lengths of frames without checksum, 64 to 1514 (IPv6: from 78), or imix")
	s.StringVar(&f.family, "family", "ipv4", "in the lab: ipv4, ipv6 or both")
	s.StringSliceVar(&f.destinations, "dst", nil, "with --tx-if: VIPs to send to, as ADDRESS:PORT/udp")
	s.StringSliceVar(&f.weights, "weight", nil, "with --tx-if: a server's weight, as ADDRESS=WEIGHT; all servers must be there (default: equal)")
	s.IntVar(&o.Sources, "sources", o.Sources, "source addresses of each thread, a power of two")
	s.IntVar(&o.Ports, "ports", o.Ports, "source ports of each source address, a power of two")
	s.Float64Var(&o.Rate, "rate", o.Rate, "packets in a second; 0: as many as possible. With --search: the highest that is tried")
	s.DurationVar(&o.Duration, "duration", o.Duration, "for how long each size is sent; long ones are reported in intervals")
	s.BoolVar(&f.searching, "search", false, "look for the highest rate without loss")
	s.DurationVar(&f.search.Trial, "trial", f.search.Trial, "with --search: for how long each rate is sent")
	s.Float64Var(&f.search.MaxLoss, "max-loss", f.search.MaxLoss, "with --search: share of packets that may be lost")
	s.Float64Var(&f.search.Resolution, "resolution", f.search.Resolution, "with --search: share of the rate to which it is found")
	s.IntVar(&f.search.Tries, "tries", f.search.Tries, "with --search: how often a rate must fail to be too high")
	s.IntVar(&f.search.Curve, "curve", f.search.Curve, "with --search: rates of the loss curve")
	f.program.addProgram(c)
	s.BoolVar(&f.program.gue, "gue", false, "in the lab: encapsulate in UDP instead of IPIP")
	f.output.add(c)
	for _, lab := range []string{"family", "across", "fifo", "gue", "pinned", "object"} {
		c.MarkFlagsMutuallyExclusive("tx-if", lab)
	}
}

// prepare makes options of the flags.
func (f *trafficFlags) prepare(c *cobra.Command, load loadBenchProgram) (err error) {
	if err := f.output.begin(c); err != nil {
		return err
	}
	if f.searching {
		f.options.Search = &f.search
	}
	f.options.Progress = f.output.progress
	log := f.output.log(c)
	f.options.Log = func(t bench.Trial) { logTrial(log, t) }
	if f.options.TX == "" {
		return f.prepareLab(load)
	}
	return f.prepareInterfaces()
}

func logTrial(log *slog.Logger, t bench.Trial) {
	log.Info("sent", "role", t.Role, "size", t.Size, "offered", fmt.Sprintf("%.0f", t.Offered),
		"mpps", fmt.Sprintf("%.3f", t.ReceivedMpps), "lost", t.Lost)
}

func (f *trafficFlags) prepareLab(load loadBenchProgram) error {
	if f.mac != "" || len(f.destinations) > 0 || len(f.weights) > 0 {
		return fmt.Errorf("--dst-mac, --dst and --weight need --tx-if")
	}
	switch f.family {
	case "ipv4":
		f.options.Destinations = []lb.VIP{bench.TrafficVIP4()}
	case "ipv6":
		f.options.Destinations = []lb.VIP{bench.TrafficVIP6()}
	case "both":
		f.options.Destinations = []lb.VIP{bench.TrafficVIP4(), bench.TrafficVIP6()}
	default:
		return fmt.Errorf("family %q is not ipv4, ipv6 or both", f.family)
	}
	// IPv6 has no frames of 64 bytes: those are its shortest.
	if f.family == "ipv6" && len(f.options.Sizes) == 1 && f.options.Sizes[0] == "64" {
		f.options.Sizes[0] = "78"
	}
	target, weights, err := f.program.trafficTarget(load, f.options.Destinations)
	if err != nil {
		return err
	}
	f.options.Target, f.options.Weights = target, weights
	return nil
}

// trafficTarget is the program that traffic goes through, and the weights of the servers that it knows.
func (f *benchFlags) trafficTarget(load loadBenchProgram, destinations []lb.VIP) (bench.Target, map[lb.VIP]map[netip.Addr]float64, error) {
	if f.pinned != "" || f.object != "" {
		targets, err := f.ownTargets(load)
		if err != nil {
			return bench.Target{}, nil, err
		}
		return targets[0], nil, nil
	}
	o := bench.TopologyOptions{GUE: f.gue, Weighted: true, MTU: bench.LabMTU}
	topology, err := bench.NewTopology(o)
	if err != nil {
		return bench.Target{}, nil, err
	}
	weights := map[lb.VIP]map[netip.Addr]float64{}
	for _, d := range destinations {
		weights[d] = topology.Weights(d)
	}
	target, err := bench.RemoraTarget(o, load)
	return target, weights, err
}

func (f *trafficFlags) prepareInterfaces() (err error) {
	if f.options.MAC, err = net.ParseMAC(f.mac); err != nil {
		return fmt.Errorf("--dst-mac %q: %v", f.mac, err)
	}
	f.options.Destinations = nil
	for _, text := range f.destinations {
		vip, err := lb.ParseVIP(text)
		if err != nil {
			return fmt.Errorf("--dst: %w", err)
		}
		f.options.Destinations = append(f.options.Destinations, vip)
	}
	weights, err := parseWeights(f.weights)
	if err != nil {
		return err
	}
	f.options.Weights = map[lb.VIP]map[netip.Addr]float64{}
	for _, d := range f.options.Destinations {
		f.options.Weights[d] = weights
	}
	return nil
}

func parseWeights(texts []string) (map[netip.Addr]float64, error) {
	weights := map[netip.Addr]float64{}
	for _, text := range texts {
		name, number, _ := strings.Cut(text, "=")
		addr, err := netip.ParseAddr(name)
		weight, err2 := strconv.ParseUint(number, 10, 16)
		if err != nil || err2 != nil || weight == 0 {
			return nil, fmt.Errorf("--weight %q is not ADDRESS=WEIGHT with a weight from 1 to 65535", text)
		}
		weights[addr] = float64(weight)
	}
	return weights, nil
}
