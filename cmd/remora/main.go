// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Command remora is a layer-4 load balancer: the daemon, the servers' side, and the verbs that ask
// and steer them. Each verb has a file of its own.
//
// Go's Multipath TCP, which listening sockets have otherwise, knows neither MD5 keys nor TTL security.
//
//go:debug multipathtcp=0
package main

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime/debug"

	"github.com/cilium/ebpf"
	"github.com/spf13/cobra"

	"github.com/remora-lb/remora/bench"
	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/dataplane"
	"github.com/remora-lb/remora/lb/engine"
)

// version is set by the linker: see the Makefile.
var version = ""

var instanceName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

func main() {
	if err := newRootCommand().Execute(); err != nil {
		fmt.Fprintf(os.Stderr, "remora: %v\n", err)
		os.Exit(exitStatus(err))
	}
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "remora",
		Short: "A layer-4 load balancer in XDP",
		Long: `remora balances TCP and UDP over servers: an XDP program picks a server for each packet by Maglev
hashing, wraps the packet in an outer header and sends it out again; the server unwraps it
(remora decap) and answers the client directly.

Exit status: 0 done, 1 not done (the message on standard error says why); a verb's own help names
further ones.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       buildVersion(),
	}
	root.AddCommand(
		newRunCommand(),
		newCheckCommand(),
		newImportCommand(),
		newStatusCommand(),
		newEventsCommand(),
		newDoctorCommand(),
		newExplainCommand(),
		newPlanCommand(),
		newDrainCommand(),
		newUndrainCommand(),
		newDrainsCommand(),
		newFreezeCommand(),
		newUnfreezeCommand(),
		newAcceptCommand(),
		newStateCommand(),
		newDetachCommand(),
		newResetCommand(),
		newDecapCommand(),
		newTCPIDCommand(),
		newBenchCommand(loadBench),
		newOffloadCommand(),
		newVersionCommand(),
	)
	return root
}

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "remora", buildVersion())
			return err
		},
	}
}

// buildVersion is the linker's, else what the Go toolchain recorded.
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return "unknown"
}

// instanceFlags say which data plane of the machine is meant.
type instanceFlags struct{ bpffs, instance string }

func (f *instanceFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.instance, "instance", "default", "name of the data plane; its programs, links and maps are pinned below BPFFS/remora/NAME")
	cmd.Flags().StringVar(&f.bpffs, "bpffs", dataplane.DefaultBPFFS, "mount point of the BPF file system")
}

// check refuses names that are no single folder.
func (f *instanceFlags) check() error {
	if !instanceName.MatchString(f.instance) {
		return fmt.Errorf("instance name %q: 1 to 63 letters, digits, '-', '_' and '.' are allowed, beginning with a letter or digit", f.instance)
	}
	return nil
}

// loadBench loads the packet program with a bench's topology, attached nowhere.
func loadBench(t bench.Topology) (*ebpf.Program, io.Closer, error) {
	d, err := dataplane.Open(dataplane.Config{
		Flows: t.FlowTable, FlowInserts: dataplane.MaxFlowInserts, AnswerLimit: dataplane.AnswersUnlimited,
		Decap: t.Decap, QUICLB: t.QUICLB,
	})
	if err != nil {
		return nil, nil, err
	}
	if err := fillBench(d, t); err != nil {
		d.Close()
		return nil, nil, err
	}
	return d.Program(), d, nil
}

func fillBench(d *dataplane.Dataplane, t bench.Topology) error {
	room := engine.Capacity{
		Reals: len(t.Reals), Targets: len(t.Servers) + len(t.Routes), SourceRoutes: len(t.SourceRoutes), Options: t.Features,
	}
	if t.Features {
		room.Prefixes = 1
	}
	for _, v := range t.VIPs {
		if v.VIP.Addr.Is4() {
			room.VIPs4++
		} else {
			room.VIPs6++
		}
	}
	for _, slots := range t.Rings {
		room.RingSlots += len(slots)
	}
	if err := d.Reserve(room); err != nil {
		return err
	}
	if err := d.SetReals(t.Reals); err != nil {
		return err
	}
	for id, slots := range t.Rings {
		if _, err := d.SetRing(lb.RingID(id), slots); err != nil {
			return err
		}
	}
	if err := d.SetTargets(t.Servers, t.Routes); err != nil {
		return err
	}
	if err := d.SetSourceRoutes(t.SourceRoutes); err != nil {
		return err
	}
	return d.SetVIPs(t.VIPs)
}
