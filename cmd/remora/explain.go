// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/remora-lb/remora/lb"
	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
	"github.com/remora-lb/remora/lb/control"
	"github.com/remora-lb/remora/lb/dataplane"
	"github.com/remora-lb/remora/lb/explain"
)

const explainLong = `Say what becomes of a packet, and why: each step of docs/packet-path.md with the tables as they are
now. Or say which flows reach a server.

PACKET is "tcp CLIENT:PORT -> VIP:PORT" or the same with udp; IPv6 addresses go in brackets. Behind it
may stand any of syn, ack, fin, rst, psh and urg (ack if there is none), and bytes=N, the length of
the IP packet. --hex and --pcap take whole Ethernet frames as they came in.

Nothing is changed: no counter, and nothing that is remembered of flows. The packet goes through a
model of the packet program. With --check it also goes through the program itself, on copies of all
tables that are made for it and take as much memory as they do.

With --real it says, of each VIP that has the server: how many slots of the ring it has, how many
flows are remembered there, and examples of packets that would reach it. Their clients are made up
(198.51.100.0/24 and 2001:db8::/120, which nobody has).

It asks the daemon by its unix socket. If none runs, or with --check, it reads the pinned maps, for
which it must be root; health is not known then.

Exit status: 0 explained, 1 not, 2 the program does not do what was explained (--check).`

// explainFlags are the command's flags as given.
type explainFlags struct {
	instanceFlags
	socket, output      string
	hex, pcap, real, on string
	examples            int
	check               bool
}

func newExplainCommand() *cobra.Command {
	var f explainFlags
	cmd := &cobra.Command{
		Use:   "explain PACKET | --hex FRAME | --pcap FILE[:N] | --real ADDRESS",
		Short: "Say what becomes of a packet, and why",
		Long:  explainLong,
		Example: `  remora explain "tcp 198.51.100.7:50000 -> 192.0.2.10:80 syn"
  remora explain "udp [2001:db8::7]:50000 -> [2001:db8:ff::10]:443 bytes=1500" -o json
  remora explain --pcap lost.pcapng:3 --check
  remora explain --real 10.20.0.11 --vip 192.0.2.10:80/tcp`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q, err := f.query(args)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			return f.explain(ctx, cmd.OutOrStdout(), q)
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&f.socket, "socket", "", "the daemon's unix socket (default "+control.DefaultSocket("INSTANCE")+")")
	cmd.Flags().StringVarP(&f.output, "output", "o", "text", "text or json")
	cmd.Flags().StringVar(&f.hex, "hex", "", "a frame in hexadecimal, from its Ethernet header on")
	cmd.Flags().StringVar(&f.pcap, "pcap", "", "a frame of a pcap or pcapng file; the first one without :N")
	cmd.Flags().StringVar(&f.real, "real", "", "the address of a server: say which flows reach it")
	cmd.Flags().StringVar(&f.on, "vip", "", "with --real: only on this VIP, ADDRESS:PORT/PROTOCOL")
	cmd.Flags().IntVar(&f.examples, "examples", 20, "with --real: how many examples for each VIP, at most")
	cmd.Flags().BoolVar(&f.check, "check", false, "compare with the loaded program, on copies of its tables")
	return cmd
}

// query is what is asked, and whether that can be.
func (f *explainFlags) query(args []string) (q control.Explanation, err error) {
	if err := f.instanceFlags.check(); err != nil {
		return q, err
	}
	if f.output != "text" && f.output != "json" {
		return q, fmt.Errorf("output %q is not text or json", f.output)
	}
	given := len(args)
	for _, flag := range []string{f.hex, f.pcap, f.real} {
		if flag != "" {
			given++
		}
	}
	switch {
	case given != 1:
		return q, errors.New("give one of PACKET, --hex, --pcap and --real")
	case f.real != "":
		return f.realQuery()
	case f.on != "":
		return q, errors.New("--vip goes with --real")
	case f.hex != "":
		q.Frame, err = explain.ParseHex(f.hex)
	case f.pcap != "":
		q.Frame, err = readCapture(f.pcap)
	default:
		q.Frame, err = explain.ParsePacket(args[0])
	}
	return q, err
}

func (f *explainFlags) realQuery() (q control.Explanation, err error) {
	if f.check {
		return q, errors.New("--check goes with a packet")
	}
	if f.examples < 0 || f.examples > explain.MaxExamples {
		return q, fmt.Errorf("--examples %d is not 0 to %d", f.examples, explain.MaxExamples)
	}
	q.Examples = f.examples
	if q.Backend, err = lb.ParseBackendAddr(f.real); err != nil {
		return q, fmt.Errorf("read --real: %v", err)
	}
	if f.on != "" {
		q.VIP, err = lb.ParseVIP(f.on)
	}
	return q, err
}

// explain asks the daemon, or else the maps.
func (f *explainFlags) explain(ctx context.Context, out io.Writer, q control.Explanation) error {
	if !f.check {
		report, err := f.askDaemon(ctx, q)
		var e *control.Error
		if err == nil {
			return f.print(out, q, report)
		}
		if !errors.As(err, &e) || e.Code != control.CodeUnavailable {
			return err
		}
	}
	i, err := dataplane.Inspect(f.bpffs, f.instance)
	if err != nil {
		return fmt.Errorf("%w: is `remora run` running, with this --instance, --bpffs and --socket? The maps are for root", err)
	}
	defer i.Close()
	report, err := explainIn(worldOf(i), q, func(r *explain.Report) error {
		if !f.check {
			return nil
		}
		return checkReport(i, r, q.Frame)
	})
	if err != nil {
		return err
	}
	return f.print(out, q, report)
}

func (f *explainFlags) askDaemon(ctx context.Context, q control.Explanation) (report []byte, err error) {
	req := &remorav1.ExplainRequest{Frame: q.Frame, Examples: uint32(q.Examples)}
	if len(q.Frame) == 0 {
		req.Backend = q.Backend.String()
		if q.VIP != (lb.VIP{}) {
			req.Vip = q.VIP.String()
		}
	}
	asked := clientFlags{instance: f.instance, socket: f.socket}
	err = asked.call(ctx, func(ctx context.Context, c *control.Client) error {
		res, err := c.Explain(ctx, req)
		report = res.GetReport()
		return err
	})
	return report, err
}

// print prints a report. The error says that the program did something else.
func (f *explainFlags) print(out io.Writer, q control.Explanation, document []byte) error {
	if len(q.Frame) == 0 {
		return printReport(out, f.output, document, new(explain.RealReport))
	}
	r := new(explain.Report)
	if err := printReport(out, f.output, document, r); err != nil {
		return err
	}
	if r.Check != nil && !r.Check.Agrees {
		return &statusError{status: 2, text: "the program does not do what is explained"}
	}
	return nil
}

// printReport reads a report, and prints it.
func printReport(out io.Writer, output string, document []byte, into interface{ Print(io.Writer) error }) error {
	if err := json.Unmarshal(document, into); err != nil {
		return fmt.Errorf("read report: %v", err)
	}
	if output == "text" {
		return into.Print(out)
	}
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	return enc.Encode(into)
}

// checkReport has the program process the frame on copies of the tables.
func checkReport(i *dataplane.Inspection, r *explain.Report, frame []byte) error {
	replica, err := i.Replicate()
	if err != nil {
		return err
	}
	defer replica.Close()
	verdict, reason, sent, err := replica.Run(frame)
	if err != nil {
		return err
	}
	r.Compare(verdict, reason, sent, !replica.Same)
	return nil
}
