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
	"os/signal"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/remora-lb/remora/lb/dataplane"
	"github.com/remora-lb/remora/lb/tcpid"
)

const tcpIDLong = `Say and name servers in TCP options, for VIPs with tcp_ids: a connection then finds its server, whichever
balancer its packets come to, and whatever became of the ring meanwhile.

It concerns the sockets that processes open within a cgroup of version 2, or below it, after it was
attached. With --server-id they say their id on connections that they accept (option 0xb6), until the
client shows that it knows it. With --client they remember it, and name it on all later packets (option
0xb7), never on SYN. Both ends must run it: it is for one's own clients, not for browsers. A client
whose SYN has option 0xb8 is told no id. These are the options of Katran's TCP server ids.

The id is the backend's server_id in the balancers' file. Listening sockets that there are already say
none: attach before the server starts, or restart it.

The program is attached as long as this command runs. On SIGINT or SIGTERM it is detached and the
counters are printed. With --pin it stays: the command ends at once, and --detach takes it off and
prints the counters.

Privileges: root, or the capabilities CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON. Needs Linux 5.10.`

const tcpIDExample = `  remora tcp-id --cgroup /sys/fs/cgroup/system.slice/nginx.service --server-id 12

  remora tcp-id --cgroup /sys/fs/cgroup/system.slice/edge.service --client --pin
  remora tcp-id --cgroup /sys/fs/cgroup/system.slice/edge.service --detach -o json`

// tcpIDFlags are the command's flags as given.
type tcpIDFlags struct {
	cgroup, bpffs, output string
	serverID              uint32
	client, pin, detach   bool
	interval              time.Duration
}

// newTCPIDCommand is the verb for servers and clients. It runs until its context, SIGINT or SIGTERM ends
// it.
func newTCPIDCommand() *cobra.Command {
	var f tcpIDFlags
	cmd := &cobra.Command{
		Use:     "tcp-id --cgroup PATH (--server-id N | --client | --detach)",
		Short:   "Say and name servers in TCP options, on servers and clients",
		Long:    tcpIDLong,
		Example: tcpIDExample,
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(cmd.Flags().Changed("server-id")); err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			return f.run(cmd.Context(), cmd.OutOrStdout(), log)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.cgroup, "cgroup", "", "cgroup of version 2 whose sockets are meant (required)")
	flags.Uint32Var(&f.serverID, "server-id", 0, "they are a server's, with this id, 1 to 4294967295")
	flags.BoolVar(&f.client, "client", false, "they are a client's")
	flags.BoolVar(&f.pin, "pin", false, "leave it attached, and end at once")
	flags.BoolVar(&f.detach, "detach", false, "take off what --pin left")
	flags.StringVar(&f.bpffs, "bpffs", dataplane.DefaultBPFFS, "mount point of the BPF file system, for --pin and --detach")
	flags.DurationVar(&f.interval, "interval", 0, "also print the counters this often, for example 10s (default: at the end only)")
	flags.StringVarP(&f.output, "output", "o", "table", "form of the counters: table or json")
	// The only error is a flag that does not exist.
	_ = cmd.MarkFlagRequired("cgroup")
	cmd.MarkFlagsOneRequired("server-id", "client", "detach")
	cmd.MarkFlagsMutuallyExclusive("server-id", "client", "detach")
	cmd.MarkFlagsMutuallyExclusive("pin", "detach")
	cmd.MarkFlagsMutuallyExclusive("interval", "pin")
	cmd.MarkFlagsMutuallyExclusive("interval", "detach")
	return cmd
}

// check reports all mistakes among the flags that cobra does not see.
func (f *tcpIDFlags) check(server bool) error {
	var errs []error
	if server && f.serverID == 0 {
		errs = append(errs, errors.New("--server-id 0 stands for none: expected 1 to 4294967295"))
	}
	if f.interval < 0 {
		errs = append(errs, fmt.Errorf("--interval %s: expected 0 (never) or more", f.interval))
	}
	if f.output != "table" && f.output != "json" {
		errs = append(errs, fmt.Errorf("--output %q: expected table or json", f.output))
	}
	return errors.Join(errs...)
}

func (f *tcpIDFlags) run(ctx context.Context, out io.Writer, log *slog.Logger) (err error) {
	if f.detach {
		c, err := tcpid.Unpin(f.bpffs, f.cgroup)
		if err != nil {
			return err
		}
		return f.print(out, c)
	}
	// Before attaching: a signal from here on ends in detaching and printing.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	p, err := tcpid.New(tcpid.Config{Cgroup: f.cgroup, ServerID: f.serverID})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	if err := p.Attach(); err != nil {
		return err
	}
	log.Info("attached", "cgroup", f.cgroup, "server_id", f.serverID, "client", f.client, "pinned", f.pin)
	if f.pin {
		return p.Pin(f.bpffs)
	}
	printNow := func() error {
		c, err := p.Counters()
		if err != nil {
			return err
		}
		return f.print(out, c)
	}
	if err := every(ctx, f.interval, printNow); err != nil {
		return err
	}
	if err := p.Detach(); err != nil {
		return err
	}
	return printNow()
}

func (f *tcpIDFlags) print(out io.Writer, c tcpid.Counters) error {
	if f.output == "json" {
		if err := json.NewEncoder(out).Encode(c); err != nil {
			return fmt.Errorf("print counters: %v", err)
		}
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, row := range []struct {
		name  string
		count uint64
	}{
		{"segments with the server's id (0xb6)", c.Handed},
		{"connections whose client knows it", c.Confirmed},
		{"connections whose client wants none (0xb8)", c.NoneWanted},
		{"packets that name another id", c.Foreign},
		{"connections that were told an id", c.Learned},
		{"segments that name the server (0xb7)", c.Named},
		{"segments without room", c.NoRoom},
	} {
		fmt.Fprintf(w, "%s\t%d\n", row.name, row.count)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print counters: %v", err)
	}
	return nil
}
