// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/remora-lb/remora/lb/control"
)

// clientHelp ends the help of verbs that ask the daemon.
const clientHelp = `

It asks the daemon by its unix socket, which root and members of the socket's group may use.`

// clientFlags say which daemon is asked, and in which form the answer is printed.
type clientFlags struct{ instance, socket, output string }

func (f *clientFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.instance, "instance", "default", "name of the data plane whose daemon is asked")
	cmd.Flags().StringVar(&f.socket, "socket", "", "the daemon's unix socket (default "+control.DefaultSocket("INSTANCE")+")")
}

func (f *clientFlags) addOutput(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&f.output, "output", "o", "text", "text or json; json is that of the API")
}

func (f *clientFlags) check() error {
	if f.output != "" && f.output != "text" && f.output != "json" {
		return fmt.Errorf("output %q is not text or json", f.output)
	}
	return (&instanceFlags{instance: f.instance}).check()
}

func (f *clientFlags) json() bool { return f.output == "json" }

// call dials the daemon and lets do ask it. SIGINT and SIGTERM end do's context.
func (f *clientFlags) call(ctx context.Context, do func(context.Context, *control.Client) error) error {
	if err := f.check(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	socket := f.socket
	if socket == "" {
		socket = control.DefaultSocket(f.instance)
	}
	c, err := control.Dial(ctx, socket)
	if err != nil {
		return err
	}
	defer c.Close()
	return do(ctx, c)
}

// printJSON prints a message of the API on a line.
func printJSON(out io.Writer, m proto.Message) error {
	line, err := control.JSON(m)
	if err != nil {
		return fmt.Errorf("print answer: %v", err)
	}
	_, err = fmt.Fprintf(out, "%s\n", line)
	return err
}

// statusError ends the program with a status of its own.
type statusError struct {
	status int
	text   string
}

func (e *statusError) Error() string { return e.text }

// exitStatus is what the program ends with because of err.
func exitStatus(err error) int {
	var s *statusError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &s):
		return s.status
	}
	return 1
}
