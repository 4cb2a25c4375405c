// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/control"
	"github.com/remora-lb/remora/lb/decap"
	"github.com/remora-lb/remora/lb/doctor"
	"github.com/remora-lb/remora/lb/doctor/machine"
)

const doctorLong = `Find out why packets are not forwarded, and say what mends it.

On a balancer it looks at the configuration file, the machine, the interface and its driver, the
pinned data plane, the way to each real, and, if they are there, the daemon, BGP and Consul. With
--server it looks at a server behind balancers: the addresses of the VIPs, what unwraps packets,
reverse path filters, sockets, the way back to clients.

It changes nothing. It asks the kernel (and gives it a program of two instructions, which is not
attached, to see whether that is allowed), reads files, asks the daemon by its socket and Consul as
the daemon would, runs "nft list ruleset" on servers, and connects to the BGP port of a router
whose session is not established.

Each finding has a verdict, what was found, and what mends it:

  fail         packets are lost, or will be
  warn         it works now, or in part
  cannot tell  the check could not be made; "needs" says what it takes
  note         nothing is wrong, but you may want to know
  ok           as it should be; shown with --verbose, and always counted

Without root some checks cannot be made; the last lines say which. docs/troubleshooting.md has the
common breakages.

Exit status: 0 nothing worse than a note, 1 warnings, 2 failures or a mistake in the command line.
What cannot be told counts as a note.`

const doctorExample = `  sudo remora doctor
  sudo remora doctor -c /etc/remora/remora.yaml -o json

  # On a server:
  sudo remora doctor --server --vip 192.0.2.10:80/tcp --vip '[2001:db8:ff::10]:80/tcp'
  sudo remora doctor --server --vip 192.0.2.10:443/tcp --encapsulation gue`

// doctorFlags are the command's flags as given.
type doctorFlags struct {
	instanceFlags
	file, stateDir, socket string
	output                 string
	verbose                bool

	server         bool
	vips           []string
	encapsulations []string
	guePort        uint16
	client         string
}

func newDoctorCommand() *cobra.Command {
	var f doctorFlags
	cmd := &cobra.Command{
		Use:     "doctor [-c FILE] | doctor --server --vip ADDRESS:PORT/PROTOCOL...",
		Short:   "Find out why packets are not forwarded, on a balancer or a server",
		Long:    doctorLong,
		Example: doctorExample,
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			return f.run(ctx, cmd.OutOrStdout())
		},
	}
	f.add(cmd)
	flags := cmd.Flags()
	flags.StringVarP(&f.file, "config", "c", "/etc/remora/remora.yaml", "the balancer's configuration file (YAML)")
	flags.StringVar(&f.stateDir, "state-dir", "/var/lib/remora", "folder of the daemon's own state, as given to run")
	flags.StringVar(&f.socket, "socket", "", "the daemon's unix socket (default "+control.DefaultSocket("INSTANCE")+")")
	flags.StringVarP(&f.output, "output", "o", "text", "text or json")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "show what is as it should be, too")
	flags.BoolVar(&f.server, "server", false, "examine a server behind balancers")
	flags.StringSliceVar(&f.vips, "vip", nil, "with --server: a VIP that it should serve, as ADDRESS:PORT/PROTOCOL; may be repeated")
	flags.StringSliceVar(&f.encapsulations, "encapsulation", nil, "with --server: how balancers send, ipip or gue; may be repeated (default ipip)")
	flags.Uint16Var(&f.guePort, "gue-port", decap.DefaultGUEPort, "with --server: outer UDP destination port of GUE")
	flags.StringVar(&f.client, "client", "", "with --server: address of a client, to look at the way back (default: the default route)")
	return cmd
}

// run examines and prints. Its error has the exit status.
func (f *doctorFlags) run(ctx context.Context, out io.Writer) error {
	server, err := f.serverSetup()
	if err = errors.Join(f.check(), err); err != nil {
		return &statusError{doctorFailed, err.Error()}
	}
	m, done, err := machine.Open()
	if err != nil {
		return &statusError{doctorFailed, err.Error()}
	}
	defer done()
	var report doctor.Report
	if f.server {
		server.Machine = m
		report = server.Examine(ctx)
	} else {
		report = f.balancer(ctx, m).Examine(ctx)
	}
	if f.output == "json" {
		err = printDoctorJSON(out, report)
	} else {
		err = printDoctor(out, report, f.verbose)
	}
	if err != nil {
		return &statusError{doctorFailed, err.Error()}
	}
	return doctorStatus(report)
}

// check reports all mistakes of the flags, but those about a server.
func (f *doctorFlags) check() error {
	var errs []error
	if f.output != "text" && f.output != "json" {
		errs = append(errs, fmt.Errorf("--output %q is not text or json", f.output))
	}
	return errors.Join(append(errs, f.instanceFlags.check())...)
}

// serverSetup reads the flags about a server, and refuses them where none is meant.
func (f *doctorFlags) serverSetup() (s doctor.Server, err error) {
	if !f.server {
		if len(f.vips)+len(f.encapsulations) > 0 || f.client != "" {
			return s, errors.New("--vip, --encapsulation and --client are for --server")
		}
		return s, nil
	}
	var errs []error
	if len(f.vips) == 0 {
		errs = append(errs, errors.New("--vip is missing: name what the server should serve, such as --vip 192.0.2.10:80/tcp"))
	}
	for _, text := range f.vips {
		v, err := lb.ParseVIP(text)
		if err == nil && v.IsPrefix() {
			err = fmt.Errorf("--vip %s is a prefix: name addresses within it", v)
		}
		errs = append(errs, err)
		s.VIPs = append(s.VIPs, v)
	}
	for _, e := range f.encapsulations {
		switch e {
		case lb.IPIP.String():
			s.IPIP = true
		case lb.GUE.String():
			s.GUE = true
		default:
			errs = append(errs, fmt.Errorf("--encapsulation %q is not ipip or gue", e))
		}
	}
	if len(f.encapsulations) == 0 {
		s.IPIP = true
	}
	if s.GUEPort = f.guePort; f.guePort == 0 {
		errs = append(errs, errors.New("--gue-port 0: expected 1 to 65535"))
	}
	if f.client != "" {
		s.Client, err = netip.ParseAddr(f.client)
		if err != nil {
			errs = append(errs, fmt.Errorf("--client %q is not an IPv4 or IPv6 address", f.client))
		}
	}
	return s, errors.Join(errs...)
}

// doctorFailed is the exit status of failures.
const doctorFailed = 2

// doctorStatus is the report's exit status, as an error; nil if that is 0.
func doctorStatus(r doctor.Report) error {
	if r.Status() == 0 {
		return nil
	}
	return &statusError{r.Status(), fmt.Sprintf("doctor found %s and %s", plural(r.Count(doctor.Fail), "failure"), plural(r.Count(doctor.Warn), "warning"))}
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// socketPath is where the daemon's control API is.
func (f *doctorFlags) socketPath() string { return cmp.Or(f.socket, control.DefaultSocket(f.instance)) }

// indent puts text behind a label, its further lines below its first.
func indent(text string) string {
	return strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n               ")
}
