// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/remora-lb/remora/lb/control"
	"github.com/remora-lb/remora/lb/dataplane"
)

const resetLong = `List everything that an instance left on this machine, and with --yes remove it: its programs are
taken off their interfaces, and what is pinned below BPFFS/remora/INSTANCE goes, also what another
version of remora pinned, and the control socket. With --state, the daemon's state goes too: drains,
the history of rings, and the backends that were last known of Consul.

Packets to VIPs then go to the host's network stack. Refused while a daemon runs for the instance.
The programs of ` + "`remora decap`" + ` and of health checks through tunnels are not among what is removed:
they end with their process.

Exit status: 0 removed, or nothing is there; 1 not removed, as without --yes.`

const resetExample = `  # What is there?
  remora reset --state

  remora reset --state --yes`

// resetFlags are the command's flags as given.
type resetFlags struct {
	instanceFlags
	stateDir, socket string
	state, yes       bool
}

func newResetCommand() *cobra.Command {
	var f resetFlags
	cmd := &cobra.Command{
		Use:     "reset",
		Short:   "Remove everything that an instance left, of any version",
		Long:    resetLong,
		Example: resetExample,
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return err
			}
			return f.run(cmd.OutOrStdout())
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&f.state, "state", false, "the daemon's state too")
	cmd.Flags().StringVar(&f.stateDir, "state-dir", defaultStateDir, "folder of the daemons' state, in a folder for each instance")
	cmd.Flags().StringVar(&f.socket, "socket", "", "the daemon's unix socket (default "+control.DefaultSocket("INSTANCE")+")")
	cmd.Flags().BoolVar(&f.yes, "yes", false, "remove what is listed")
	return cmd
}

// run lists what is there, and removes it if that is asked for. The pins go last, since with them goes
// what keeps a daemon from starting meanwhile.
func (f *resetFlags) run(out io.Writer) error {
	remains, err := dataplane.OpenRemains(f.bpffs, f.instance)
	if errors.Is(err, dataplane.ErrNoInstance) {
		remains = nil
	} else if err != nil {
		return err
	} else {
		defer remains.Close()
	}
	files, err := f.files()
	if err != nil {
		return err
	}
	n, err := printRemains(out, remains, files)
	if err != nil {
		return err
	}
	switch {
	case n == 0:
		_, err := fmt.Fprintf(out, "instance %s: nothing is there\n", f.instance)
		return err
	case !f.yes:
		return errors.New("nothing is removed yet: repeat with --yes to remove what is listed")
	}
	if err := f.remove(remains, files); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "instance %s: removed\n", f.instance)
	return err
}

func (f *resetFlags) remove(remains *dataplane.Remains, files []leftFile) error {
	for _, file := range files {
		if err := os.RemoveAll(file.path); err != nil {
			return fmt.Errorf("remove %s: %v", file.what, err)
		}
	}
	if f.state {
		_ = os.Remove(f.stateFolder()) // what is not remora's stays, and so does the folder then
	}
	if remains == nil {
		return nil
	}
	return remains.Remove()
}

// printRemains prints a line for each thing that is there, and returns how many there are.
func printRemains(out io.Writer, remains *dataplane.Remains, files []leftFile) (n int, err error) {
	var pinned []dataplane.Pin
	if remains != nil {
		if pinned, err = remains.List(); err != nil {
			return 0, err
		}
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, p := range pinned {
		fmt.Fprintf(w, "%s\t%s\n", p.Path, p.What)
	}
	for _, file := range files {
		fmt.Fprintf(w, "%s\t%s\n", file.path, file.what)
	}
	return len(pinned) + len(files), w.Flush()
}

// leftFile is a file that is left, and what it is, for people.
type leftFile struct{ path, what string }

func (f *resetFlags) stateFolder() string { return filepath.Join(f.stateDir, f.instance) }

// files are the socket and, if asked for, what the store has.
func (f *resetFlags) files() (files []leftFile, err error) {
	socket := f.socket
	if socket == "" {
		socket = control.DefaultSocket(f.instance)
	}
	if info, err := os.Lstat(socket); err == nil && info.Mode().Type() == fs.ModeSocket {
		files = append(files, leftFile{socket, "control socket"})
	}
	if !f.state {
		return files, nil
	}
	entries, err := os.ReadDir(f.stateFolder())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list state: %v", err)
	}
	for _, e := range entries {
		if stateFile.MatchString(e.Name()) {
			files = append(files, leftFile{filepath.Join(f.stateFolder(), e.Name()), "state"})
		}
	}
	return files, nil
}

// stateFile is the name of a file of lb/store: a value, one that is half written, or one that was damaged.
// Others are not the daemon's.
var stateFile = regexp.MustCompile(`^[a-z0-9-]{1,64}\.(json|new|bad-[0-9TZ.]+)$`)
