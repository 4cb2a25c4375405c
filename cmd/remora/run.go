// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/remora-lb/remora/lb/attach"
	"github.com/remora-lb/remora/lb/config"
	"github.com/remora-lb/remora/lb/control"
)

const runLong = `Load the packet program, attach it to the interface of the configuration file, and keep its maps
equal to the file, the routes and the neighbours.

Programs, links and maps are pinned below BPFFS/remora/INSTANCE, so forwarding goes on when this
command ends, however it ends; the next start adopts what is there without losing a packet.

With a section bgp, VIPs that can be served are announced to routers, and withdrawn when they cannot
be (docs/bgp.md). If BGP cannot run, forwarding goes on, ` + "`remora status`" + ` says why, and it is tried
again.

  SIGHUP           reads the file again; a bad file changes nothing and is reported. The
                   interface, the mode, a fixed next hop, decapsulation, quic_lb and icmp are
                   among what needs a restart.
  SIGTERM, SIGINT  end the command. What it leaves is the file's on_exit: keep (forwarding
                   goes on) or detach. With BGP, detach withdraws the routes first; keep leaves
                   them to graceful restart.

Privileges: root, or the capabilities CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON. A BPF file system
that is not mounted needs root to be mounted.`

const runExample = `  remora run -c /etc/remora/remora.yaml

  # Apply the file, leave everything attached, and exit:
  remora run -c /etc/remora/remora.yaml --once`

// defaultStateDir has a folder for each instance.
const defaultStateDir = "/var/lib/remora"

// runFlags are the command's flags as given.
type runFlags struct {
	instanceFlags
	file      string
	once      bool
	logLevel  string
	logFormat string
	stateDir  string
	socket    string
	group     string
}

// socketPath is where the control API is served.
func (f runFlags) socketPath() string {
	if f.socket != "" {
		return f.socket
	}
	return control.DefaultSocket(f.instance)
}

func newRunCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:     "run -c FILE",
		Short:   "Balance: load, attach, and follow the configuration",
		Long:    runLong,
		Example: runExample,
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := newLogger(cmd, f.logLevel, f.logFormat)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			return run(ctx, f, log)
		},
	}
	addConfigFlag(cmd, &f.file)
	f.add(cmd)
	cmd.Flags().BoolVar(&f.once, "once", false, "apply the file, leave program and maps attached and pinned, and exit; nothing is announced by BGP")
	cmd.Flags().StringVar(&f.stateDir, "state-dir", defaultStateDir, "folder of the daemon's own state, in a folder for each instance")
	cmd.Flags().StringVar(&f.socket, "socket", "", "unix socket of the control API (default /run/remora/INSTANCE.sock)")
	cmd.Flags().StringVar(&f.group, "group", "", "group whose members may use the socket, beside root and the daemon's own user")
	cmd.Flags().StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	cmd.Flags().StringVar(&f.logFormat, "log-format", "text", "text or json")
	return cmd
}

func newLogger(cmd *cobra.Command, level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q is not debug, info, warn or error", level)
	}
	opts := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), opts)), nil
	}
	return nil, fmt.Errorf("log format %q is not text or json", format)
}

func run(ctx context.Context, f runFlags, log *slog.Logger) (err error) {
	if err := f.check(); err != nil {
		return err
	}
	c, err := config.Load(f.file)
	if err != nil {
		return err
	}
	if err := checkPrivileges(); err != nil {
		return err
	}
	// From here on a signal is a reload, also one that comes while the start is under way.
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	b, err := newBalancer(f, c, log)
	if err != nil {
		return err
	}
	defer b.close()
	if err := b.start(ctx); err != nil {
		return err
	}
	if f.once {
		return b.settle(ctx)
	}
	return b.run(ctx, func() (*config.Config, error) { return config.Load(f.file) }, hup)
}

func checkPrivileges() error {
	p, err := attach.CurrentPrivileges()
	if err != nil {
		return err
	}
	if err := p.Check(); err != nil {
		return err
	}
	return attach.CheckKernel()
}

// resolveTime is how long a start or a reload waits for the link addresses of servers, before it
// goes on without those that do not answer.
const resolveTime = 2 * time.Second
