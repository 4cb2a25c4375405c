// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os/signal"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/dataplane"
)

func newStatusCommand() *cobra.Command {
	var f instanceFlags
	var output string
	var interval time.Duration
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show VIPs, reals, rates, and what became of packets",
		Long: `Show VIPs, reals, rates, and what became of packets.

It is read from the pinned maps, so it works whether or not the daemon runs. Rates are measured over
the interval. Bytes are those of the clients' IP packets, without the outer headers. A real's state is
"ok", "no next hop" (its link address is not known: packets to it are dropped as
nexthop_unknown), "stale next hop" (the kernel could not confirm the link address lately; packets
still go to it), or "no weight" (it gets no new flows).`,
		Example: `  remora status
  remora status --interval 5s
  remora status -o json | jq '.reasons'`,
		Args: cobra.NoArgs,
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
}

// traffic is what was counted, and its rate.
type traffic struct {
	Packets          uint64  `json:"packets"`
	Bytes            uint64  `json:"bytes"`
	PacketsPerSecond float64 `json:"packets_per_second"`
	BitsPerSecond    float64 `json:"bits_per_second"`
}

type vipStatus struct {
	VIP      string       `json:"vip"`
	Service  string       `json:"service"`
	RingSize uint32       `json:"ring_size"`
	RingHash string       `json:"ring_hash"`
	Reals    []realStatus `json:"reals"`
	traffic
}

type realStatus struct {
	ID            lb.RealID `json:"id"`
	Address       string    `json:"address"`
	Weight        uint32    `json:"weight"`
	Encapsulation string    `json:"encapsulation"`
	State         string    `json:"state"`
	MAC           string    `json:"mac,omitempty"`
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
	earlier := make(map[lb.RealID]dataplane.Counter)
	for _, r := range before.Reals {
		earlier[r.ID] = r.Counter
	}
	reals := make(map[lb.VIP][]dataplane.RealState)
	for _, r := range now.Reals {
		reals[r.VIP] = append(reals[r.VIP], r)
	}
	for _, v := range now.VIPs {
		vs := vipStatus{VIP: v.VIP.String(), Service: v.Service, RingSize: v.Ring.Size, RingHash: v.Ring.Hash.String(), Reals: []realStatus{}}
		for _, r := range reals[v.VIP] {
			rs := newRealStatus(r, earlier[r.ID], elapsed)
			vs.Reals = append(vs.Reals, rs)
			vs.add(rs.traffic)
		}
		s.VIPs = append(s.VIPs, vs)
	}
	return s
}

func newRealStatus(r dataplane.RealState, earlier dataplane.Counter, elapsed time.Duration) realStatus {
	rs := realStatus{
		ID:            r.ID,
		Address:       r.Backend.Addr.String(),
		Weight:        r.Backend.Weight,
		Encapsulation: r.Tunnel.Encap.String(),
		State:         "ok",
		traffic:       newTraffic(earlier, r.Counter, elapsed),
	}
	switch {
	case !r.NextHop.Resolved():
		rs.State = "no next hop"
	case r.NextHop.Stale:
		rs.State = "stale next hop"
	case r.Backend.Weight == 0:
		rs.State = "no weight"
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
	fmt.Fprintf(out, "instance %s on %s, %s mode (%s), attached %s; %s\n\n", s.Instance, s.Interface, s.Mode, s.ModeReason,
		s.Attached.Format(time.RFC3339), daemon)
	if err := s.printVIPs(out); err != nil {
		return err
	}
	return s.printReasons(out)
}

func (s *status) printVIPs(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "VIP / REAL\tSERVICE\tSTATE\tWEIGHT\tVIA\tPACKETS\tBYTES\tPKT/S\tBIT/S")
	for _, v := range s.VIPs {
		state := ""
		if len(v.Reals) == 0 {
			state = "no backends"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t\t%d %s\t%s\n", v.VIP, v.Service, state, v.RingSize, v.RingHash, v.traffic)
		for _, r := range v.Reals {
			fmt.Fprintf(w, "  %s\t\t%s\t%d\t%s %s\t%s\n", r.Address, r.State, r.Weight, r.Encapsulation, r.MAC, r.traffic)
		}
	}
	return w.Flush()
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
