// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os/signal"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/attach"
	"github.com/remora-lb/remora/lb/decap"
)

const decapLong = `Take the outer headers off packets that balancers tunnel to this server.

An XDP program on the interface opens IPIP (IPv4 and IPv6 in each other, all four ways) and
GUE (IP directly in UDP) packets to the tunnel addresses, and hands the inner packets to the
network stack. All other packets pass untouched. No tunnel device is needed.

The program stays attached as long as this command runs. On SIGINT or SIGTERM it is detached
and the counters are printed. VLAN tags (up to two) stay; the ECN mark of the outer header is
kept as RFC 6040 says. The outer UDP checksum of GUE and the outer IPv4 header checksum are
not verified; the stack verifies the inner packet's. Outer fragments and outer IPv6 extension
headers are not opened.

Privileges: root, or the capabilities CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON.

What the server needs besides:

  VIPs       on the loopback interface, so that the stack takes the inner packets:
               ip address add 192.0.2.10/32 dev lo
               ip address add 2001:db8:ff::10/128 dev lo
  ARP        no answers for the VIPs, if the server shares a link with the router:
               sysctl net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2
  rp_filter  0 or 2, if clients are not routed out of the interface that the tunnelled
             packets come in by; the greater value of "all" and the interface counts:
               sysctl net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.eth0.rp_filter=2
  MTU        tunnelled packets are longer than the client's by 20 bytes (outer IPv4) or 40
             (outer IPv6), and 8 more for GUE. Either the network from the balancers takes
             that much more, or clients are told to send less, in the MSS that the server
             announces (MTU 1500, IPv4 clients: 1440 and 1420, GUE 1432 and 1412; IPv6
             clients 20 less each):
               ip route change default via 10.20.0.1 advmss 1412
             Native mode takes an MTU of at most about 3498; generic mode any.
  Senders    whoever can send to a tunnel address can send inner packets with any source
             address. Give the VIPs with --vip, and let only the balancers' outer sources
             in at the network's edge. Packet filters on the server see the inner packet.
`

const decapExample = `  # Whatever comes tunnelled to one of eth0's addresses:
  remora decap --interface eth0

  # Only to these addresses, and only for these VIPs:
  remora decap --interface eth0 --address 10.20.0.11 --address 2001:db8:20::11 \
      --vip 192.0.2.10 --vip 2001:db8:ff::10

  # GUE on another port; counters every 10 seconds as JSON, a line each:
  remora decap --interface eth0 --gue-port 9999 --interval 10s -o json`

// decapFlags are the command's flags as given.
type decapFlags struct {
	ifname          string
	addresses, vips []string
	guePort         uint16
	mode            string
	interval        time.Duration
	output          string
}

// newDecapCommand is the verb for servers. It runs until its context, SIGINT or SIGTERM ends it.
func newDecapCommand() *cobra.Command {
	var f decapFlags
	cmd := &cobra.Command{
		Use:          "decap --interface NAME [--address ADDRESS]... [--vip ADDRESS]...",
		Short:        "Open tunnelled packets on a server",
		Long:         decapLong,
		Example:      decapExample,
		Args:         decapArgs,
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			return f.run(cmd.Context(), cmd.OutOrStdout(), log)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.ifname, "interface", "", "network interface that tunnelled packets arrive on (required)")
	flags.StringSliceVar(&f.addresses, "address", nil, "outer destination to accept; may be repeated\n"+
		"(default: all addresses of the interface, but link-local ones, as they are at the start)")
	flags.StringSliceVar(&f.vips, "vip", nil, "inner destination to accept; may be repeated (default: all)")
	flags.Uint16Var(&f.guePort, "gue-port", decap.DefaultGUEPort, "outer UDP destination port of GUE")
	flags.StringVar(&f.mode, "mode", attach.Auto.String(), "auto, native or generic: where in the kernel the program runs;\n"+
		"auto is native if the driver can, else generic")
	flags.DurationVar(&f.interval, "interval", 0, "also print the counters this often, for example 10s (default: at the end only)")
	flags.StringVarP(&f.output, "output", "o", "table", "form of the counters: table or json")
	return cmd
}

// decapArgs refuses arguments, and guesses what was meant.
func decapArgs(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return fmt.Errorf("unexpected argument %q: the interface is named by --interface, addresses by --address and --vip", args[0])
}

// config checks the flags and reports all mistakes among them.
func (f *decapFlags) config(log *slog.Logger) (decap.Config, error) {
	cfg := decap.Config{Interface: f.ifname, GUEPort: f.guePort, Log: log}
	var errs []error
	report := func(err error) { errs = append(errs, err) }
	if f.ifname == "" {
		report(errors.New("--interface is missing: name the network interface that tunnelled packets arrive on, for example --interface eth0"))
	}
	var err error
	cfg.TunnelAddrs, err = parseAddrs("--address", f.addresses)
	report(err)
	cfg.VIPs, err = parseAddrs("--vip", f.vips)
	report(err)
	if f.guePort == 0 {
		report(errors.New("--gue-port 0: expected 1 to 65535"))
	}
	if cfg.Mode, err = attach.ParseMode(f.mode); err != nil {
		report(fmt.Errorf("--mode: %v", err))
	}
	if f.interval < 0 {
		report(fmt.Errorf("--interval %s: expected 0 (never) or more", f.interval))
	}
	if f.output != "table" && f.output != "json" {
		report(fmt.Errorf("--output %q: expected table or json", f.output))
	}
	return cfg, errors.Join(errs...)
}

func parseAddrs(flag string, texts []string) ([]netip.Addr, error) {
	var addrs []netip.Addr
	var errs []error
	for _, s := range texts {
		a, err := lb.ParseBackendAddr(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %v", flag, err))
		}
		addrs = append(addrs, a)
	}
	return addrs, errors.Join(errs...)
}

// run attaches, waits, detaches and prints.
func (f *decapFlags) run(ctx context.Context, out io.Writer, log *slog.Logger) (err error) {
	cfg, err := f.config(log)
	if err != nil {
		return err
	}
	if len(cfg.TunnelAddrs) == 0 {
		if cfg.TunnelAddrs, err = decap.InterfaceAddrs(cfg.Interface); err != nil {
			return err
		}
	}
	// Before attaching: a signal from here on ends in detaching and printing.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	d, err := decap.New(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	at, err := d.Attach()
	if err != nil {
		return err
	}
	log.Info("decapsulating", "interface", cfg.Interface, "mode", at.Mode, "addresses", cfg.TunnelAddrs, "vips", cfg.VIPs, "gue_port", cfg.GUEPort)
	printNow := func() error { return f.print(out, d, at) }
	if err := every(ctx, f.interval, printNow); err != nil {
		return err
	}
	if err := d.Detach(); err != nil {
		return err
	}
	return printNow()
}

// every calls do at an interval, or never if that is 0, until ctx ends or do fails.
func every(ctx context.Context, interval time.Duration, do func() error) error {
	if interval == 0 {
		<-ctx.Done()
		return nil
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			if err := do(); err != nil {
				return err
			}
		}
	}
}

func (f *decapFlags) print(out io.Writer, d *decap.Decap, at *attach.Attachment) error {
	c, err := d.Counters()
	if err != nil {
		return err
	}
	if f.output == "json" {
		return printDecapJSON(out, f.ifname, at, c)
	}
	return printDecapTable(out, f.ifname, at, c)
}

// decapReport is the JSON form of the counters, all of them, zero or not.
type decapReport struct {
	Interface string `json:"interface"`
	Mode      string `json:"mode"`
	// ModeReason says why this mode and not a better one.
	ModeReason   string                 `json:"mode_reason"`
	Decapsulated map[string]decap.Count `json:"decapsulated"`
	Reasons      map[string]uint64      `json:"reasons"`
}

func printDecapJSON(out io.Writer, ifname string, at *attach.Attachment, c decap.Counters) error {
	r := decapReport{
		Interface:    ifname,
		Mode:         at.Mode.String(),
		ModeReason:   at.Reason,
		Decapsulated: make(map[string]decap.Count, len(c.Kinds)),
		Reasons:      make(map[string]uint64, len(c.Reasons)),
	}
	for k, n := range c.Kinds {
		r.Decapsulated[decap.Kind(k).String()] = n
	}
	for i, n := range c.Reasons {
		r.Reasons[decap.Reason(i).String()] = n
	}
	if err := json.NewEncoder(out).Encode(r); err != nil {
		return fmt.Errorf("print counters: %v", err)
	}
	return nil
}

// printDecapTable leaves out what was never counted, except the total.
func printDecapTable(out io.Writer, ifname string, at *attach.Attachment, c decap.Counters) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(out, "interface %s, %s mode\n", ifname, at.Mode)
	fmt.Fprintln(w, "DECAPSULATED\tPACKETS\tBYTES\t")
	for k, n := range c.Kinds {
		if n.Packets > 0 {
			fmt.Fprintf(w, "%s\t%d\t%d\t\n", decap.Kind(k), n.Packets, n.Bytes)
		}
	}
	total := c.Total()
	fmt.Fprintf(w, "total\t%d\t%d\t\n", total.Packets, total.Bytes)
	fmt.Fprintln(w, "OTHER REASONS\tPACKETS\tVERDICT\t")
	for i, n := range c.Reasons {
		if r := decap.Reason(i); n > 0 && r != decap.Decapsulated {
			fmt.Fprintf(w, "%s\t%d\t%s\t\n", r, n, r.Verdict())
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print counters: %v", err)
	}
	return nil
}
