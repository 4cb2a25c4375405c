// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/remora-lb/remora/lb"
	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
	"github.com/remora-lb/remora/lb/control"
	"github.com/remora-lb/remora/lb/dataplane"
)

func newStatusCommand() *cobra.Command {
	var f instanceFlags
	var output, socket string
	var interval time.Duration
	var why bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show VIPs, reals, rates, and what became of packets",
		Long: `Show VIPs, reals, rates, and what became of packets.

It is read from the pinned maps, so it works whether or not the daemon runs. Rates are measured over
the interval. Bytes are those of the clients' IP packets, without the outer headers. A real's state is
"ok", "no next hop" (its link address is not known: packets to it are dropped as
nexthop_unknown), "stale next hop" (the kernel could not confirm the link address lately; packets
still go to it), "draining" (it gets no new flows, and keeps those it has: the number that is
remembered and, in brackets, of those that sent a packet within the last minute) or "retired" (it
gets no packets any more).

VIA is a VIP's ring, with a digest, and its options; of a real the encapsulation, or "local" for this
machine, and the link address, its server id, and "routed" if source_routes lead to it (these two if
the daemon runs).

A VIP's state is what of its ring changes, if anything does: slots that move from one real to
another, that settle after a change, or that linger while flows of another real are remembered. A VIP's
digest is the same on every balancer on which it has the same backends with the same weights.

If the daemon runs and has health checks, a real's state begins with what they say: "up", "down" with
the part of the path that is broken or else the reason of the last probe, or "unknown". A VIP's state
says when the checks are not believed because too few reals are healthy.

If the daemon runs and has BGP, its sessions follow, and for each VIP whether it is announced, for how
long it is in its state, and why.

With --why it also asks the daemon which changes it holds back and which answers it refuses, by
which rule, since when, and what would end that.`,
		Example: `  remora status
  remora status --interval 5s
  remora status --why
  remora status -o json | jq '.reasons'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return err
			}
			if output != "table" && output != "json" {
				return fmt.Errorf("output %q is not table or json", output)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			s, err := readStatus(ctx, f, interval)
			if err != nil {
				return err
			}
			if err := s.ask(ctx, socket); err != nil {
				return err
			}
			if why {
				if s.held, err = readHeld(ctx, f.instance, socket); err != nil {
					return err
				}
				if s.Held, err = heldJSON(s.held); err != nil {
					return fmt.Errorf("print answer: %v", err)
				}
			}
			if output == "json" {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(s)
			}
			return s.print(cmd.OutOrStdout())
		},
	}
	f.add(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	cmd.Flags().BoolVar(&why, "why", false, "ask the daemon what it holds back and refuses")
	cmd.Flags().StringVar(&socket, "socket", "", "the daemon's unix socket, for health, BGP and --why (default "+control.DefaultSocket("INSTANCE")+")")
	cmd.Flags().DurationVar(&interval, "interval", 500*time.Millisecond, "time over which rates are measured; 0 shows none")
	return cmd
}

// status is the JSON form, and what the table is printed from.
type status struct {
	Instance   string            `json:"instance"`
	Interface  string            `json:"interface"`
	Mode       string            `json:"mode"`
	ModeReason string            `json:"mode_reason"`
	Attached   time.Time         `json:"attached"`
	DaemonPID  int               `json:"daemon_pid"` // 0: none runs
	VIPs       []vipStatus       `json:"vips"`
	Reasons    map[string]uint64 `json:"reasons"`
	Removed    traffic           `json:"removed_reals"`
	Flows      flowTable         `json:"flow_table"`
	// Metrics is where the daemon serves metrics, if it answers and is to.
	Metrics *metricsListener `json:"metrics,omitempty"`
	// BGP is what the daemon announces, as in the API, if it answers and has BGP.
	BGP json.RawMessage `json:"bgp,omitempty"`
	bgp *remorav1.BGP
	// Held is what the daemon refuses and holds back, as in the API, if it was asked.
	Held json.RawMessage `json:"held,omitempty"`
	held *remorav1.GetHeldResponse
}

// flowTable is how full the flow table is, and what happened at it.
type flowTable struct {
	Used     int               `json:"used"`
	Capacity int               `json:"capacity"`
	Events   map[string]uint64 `json:"events"`
}

// metricsListener is where metrics are served. Error says why they are not; empty if they are.
type metricsListener struct {
	Listen  string `json:"listen"`
	Serving bool   `json:"serving"`
	Error   string `json:"error,omitempty"`
}

// String is for people.
func (l *metricsListener) String() string {
	switch {
	case l == nil:
		return ""
	case l.Serving:
		return "; metrics at " + l.Listen
	}
	return fmt.Sprintf("; metrics are not served at %s: %s", l.Listen, cmp.Or(l.Error, "not yet"))
}

// traffic is what was counted, and its rate.
type traffic struct {
	Packets          uint64  `json:"packets"`
	Bytes            uint64  `json:"bytes"`
	PacketsPerSecond float64 `json:"packets_per_second"`
	BitsPerSecond    float64 `json:"bits_per_second"`
}

type vipStatus struct {
	VIP      string `json:"vip"`
	Service  string `json:"service"`
	RingSize uint32 `json:"ring_size"`
	RingHash string `json:"ring_hash"`
	FlowMode string `json:"flow_mode"`
	// Options are as in the configuration, of those that are set.
	Options []string `json:"options,omitempty"`
	// Digest is the same on every balancer whose VIP has the same backends.
	Digest string `json:"digest"`
	// Slots counts those of the ring by state.
	Slots map[string]int `json:"slots"`
	Reals []realStatus   `json:"reals"`
	// Health is what the checks of the reals mean together, if the daemon answers and there are some.
	Health *groupHealth `json:"health,omitempty"`
	traffic
}

type realStatus struct {
	ID            lb.RealID `json:"id"`
	Address       string    `json:"address"`
	Weight        uint32    `json:"weight"`
	Encapsulation string    `json:"encapsulation"`
	State         string    `json:"state"`
	MAC           string    `json:"mac,omitempty"`
	Use           string    `json:"use"`
	// ServerID is the number by which packets name the real, Routed tells that source routes lead to it,
	// if the daemon answers.
	ServerID uint32 `json:"server_id,omitempty"`
	Routed   bool   `json:"routed,omitempty"`
	// Flows are remembered, ActiveFlows of them sent a packet within the last minute. PreviousSlots
	// are moving ones that the real had before.
	Flows         int `json:"flows"`
	ActiveFlows   int `json:"active_flows"`
	PreviousSlots int `json:"previous_slots"`
	// Health is what the checks say, if the daemon answers and there are some.
	Health *realHealth `json:"health,omitempty"`
	traffic
}

// readStatus takes two snapshots, interval apart.
func readStatus(ctx context.Context, f instanceFlags, interval time.Duration) (*status, error) {
	before, err := dataplane.ReadSnapshot(f.bpffs, f.instance)
	if errors.Is(err, dataplane.ErrNoInstance) {
		return nil, fmt.Errorf("%v: is `remora run` running, with this --instance and --bpffs?", err)
	}
	if err != nil {
		return nil, err
	}
	start, now := time.Now(), before
	if interval > 0 {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(interval):
		}
		if now, err = dataplane.ReadSnapshot(f.bpffs, f.instance); err != nil {
			return nil, err
		}
	}
	s := newStatus(before, now, time.Since(start))
	s.DaemonPID = dataplane.Writer(f.bpffs, f.instance)
	return s, nil
}

func newStatus(before, now *dataplane.Snapshot, elapsed time.Duration) *status {
	s := &status{
		Instance:   now.Instance,
		Interface:  now.Interface,
		Mode:       now.Mode.String(),
		ModeReason: now.ModeReason,
		Attached:   now.Attached,
		VIPs:       []vipStatus{},
		Reasons:    make(map[string]uint64),
		Removed:    newTraffic(before.Removed, now.Removed, elapsed),
	}
	for r, n := range now.Reasons {
		s.Reasons[lb.Reason(r).String()] = n
	}
	s.Flows = flowTable{Used: now.Flows, Capacity: now.FlowCapacity, Events: make(map[string]uint64)}
	for e, n := range now.FlowEvents {
		s.Flows.Events[lb.FlowEvent(e).String()] = n
	}
	earlier := make(map[lb.RealID]dataplane.Counter)
	for _, r := range before.Reals {
		earlier[r.ID] = r.Counter
	}
	reals := make(map[lb.VIP][]dataplane.RealState)
	for _, r := range now.Reals {
		reals[r.VIP] = append(reals[r.VIP], r)
	}
	for _, v := range now.VIPs {
		vs := newVIPStatus(v)
		vs.Digest = digest(v.VIP, reals[v.VIP])
		for _, r := range reals[v.VIP] {
			rs := newRealStatus(r, earlier[r.ID], elapsed)
			vs.Reals = append(vs.Reals, rs)
			vs.add(rs.traffic)
		}
		s.VIPs = append(s.VIPs, vs)
	}
	return s
}

func newVIPStatus(v dataplane.VIPState) vipStatus {
	vs := vipStatus{
		VIP: v.VIP.String(), Service: v.Service, RingSize: v.Ring.Size, RingHash: v.Ring.Hash.String(),
		FlowMode: v.Flows.String(), Options: v.Options.Names(), Slots: make(map[string]int), Reals: []realStatus{},
	}
	for state, n := range v.SlotStates {
		vs.Slots[lb.SlotState(state).String()] = n
	}
	return vs
}

func newRealStatus(r dataplane.RealState, earlier dataplane.Counter, elapsed time.Duration) realStatus {
	rs := realStatus{
		ID:            r.ID,
		Address:       r.Backend.Addr.String(),
		Weight:        r.Backend.Weight,
		Encapsulation: r.Tunnel.Encap.String(),
		State:         "ok",
		Use:           r.Use.String(),
		Flows:         r.Flows,
		ActiveFlows:   r.ActiveFlows,
		PreviousSlots: r.PrevSlots,
		traffic:       newTraffic(earlier, r.Counter, elapsed),
	}
	switch {
	case r.Tunnel.Encap != lb.Local && !r.NextHop.Resolved():
		rs.State = "no next hop"
	case r.NextHop.Stale:
		rs.State = "stale next hop"
	case r.Use == lb.RealDraining:
		rs.State = fmt.Sprintf("draining, %d flows (%d)", r.Flows, r.ActiveFlows)
	case r.Use == lb.RealRetired:
		rs.State = "retired"
	}
	if r.NextHop.Resolved() {
		rs.MAC = net.HardwareAddr(r.NextHop.MAC[:]).String()
	}
	return rs
}

func newTraffic(before, now dataplane.Counter, elapsed time.Duration) traffic {
	t := traffic{Packets: now.Packets, Bytes: now.Bytes}
	// A real that got its id in between begins at 0.
	if now.Packets >= before.Packets && now.Bytes >= before.Bytes && elapsed > 0 {
		t.PacketsPerSecond = float64(now.Packets-before.Packets) / elapsed.Seconds()
		t.BitsPerSecond = 8 * float64(now.Bytes-before.Bytes) / elapsed.Seconds()
	}
	return t
}

func (t *traffic) add(u traffic) {
	t.Packets += u.Packets
	t.Bytes += u.Bytes
	t.PacketsPerSecond += u.PacketsPerSecond
	t.BitsPerSecond += u.BitsPerSecond
}

func (s *status) print(out io.Writer) error {
	daemon := "no daemon runs; forwarding as last configured"
	if s.DaemonPID != 0 {
		daemon = fmt.Sprintf("daemon %d", s.DaemonPID)
	}
	fmt.Fprintf(out, "instance %s on %s, %s mode (%s), attached %s; %s%s\n\n", s.Instance, s.Interface, s.Mode, s.ModeReason,
		s.Attached.Format(time.RFC3339), daemon, s.Metrics)
	if err := s.printVIPs(out); err != nil {
		return err
	}
	if err := s.printReasons(out); err != nil {
		return err
	}
	if s.bgp != nil {
		if err := printBGP(out, s.bgp, time.Now()); err != nil {
			return err
		}
	}
	if s.held == nil {
		return nil
	}
	printHeld(out, s.held)
	return nil
}

func (s *status) printVIPs(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "VIP / REAL\tSERVICE\tSTATE\tWEIGHT\tVIA\tPACKETS\tBYTES\tPKT/S\tBIT/S")
	for _, v := range s.VIPs {
		state := ""
		if len(v.Reals) == 0 {
			state = "no backends"
		} else if v.Health != nil {
			state = v.Health.Detail
		}
		if change := v.change(); state == "" {
			state = change
		} else if change != "" {
			state += "; " + change
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t\t%s\t%s\n", v.VIP, v.Service, state, v.via(), v.traffic)
		for _, r := range v.Reals {
			fmt.Fprintf(w, "  %s\t\t%s\t%d\t%s\t%s\n", r.Address, r.state(), r.Weight, r.via(), r.traffic)
		}
	}
	return w.Flush()
}

// via is a VIP's VIA: its ring, and what else decides on its packets.
func (v vipStatus) via() string {
	return strings.Join(append([]string{fmt.Sprint(v.RingSize), v.RingHash, v.Digest}, v.Options...), " ")
}

// via is a real's VIA: how packets get there, and which ones do beside those of the ring.
func (r realStatus) via() string {
	words := []string{r.Encapsulation}
	if r.MAC != "" {
		words = append(words, r.MAC)
	}
	if r.ServerID != 0 {
		words = append(words, fmt.Sprintf("server=%d", r.ServerID))
	}
	if r.Routed {
		words = append(words, "routed")
	}
	return strings.Join(words, " ")
}

// change says what of the ring changes; empty if nothing does.
func (v vipStatus) change() string {
	var parts []string
	for state := lb.SlotMoving; state < lb.SlotStateLen; state++ {
		if n := v.Slots[state.String()]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, state))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return "slots: " + strings.Join(parts, ", ")
}

// String is the columns of a table.
func (t traffic) String() string {
	return fmt.Sprintf("%d\t%s\t%s\t%s", t.Packets, short(float64(t.Bytes)), short(t.PacketsPerSecond), short(t.BitsPerSecond))
}

// short is a number with three or four digits and a decimal prefix.
func short(x float64) string {
	for _, unit := range []string{"", "k", "M", "G", "T"} {
		if x < 9999.5 {
			return fmt.Sprintf("%.0f%s", x, unit)
		}
		x /= 1000
	}
	return fmt.Sprintf("%.0fP", x)
}

func (s *status) printReasons(out io.Writer) error {
	fmt.Fprintln(out, "\nPackets by what became of them (docs/packet-path.md):")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, verdict := range []lb.Verdict{lb.TX, lb.Drop, lb.Pass} {
		for r := range lb.ReasonLen {
			n := s.Reasons[r.String()]
			// Those that should be 0 are worth a line only when they are not.
			if r.Verdict() == verdict && (n != 0 || r == lb.ReasonForwarded) {
				fmt.Fprintf(w, "%v\t%v\t%d\t\n", verdict, r, n)
			}
		}
	}
	return w.Flush()
}
