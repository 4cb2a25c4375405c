// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
	"github.com/remora-lb/remora/lb/control"
)

func newEventsCommand() *cobra.Command {
	var f clientFlags
	var follow bool
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what changed lately, and why",
		Long: `Show what changed lately: for each change of state the time, the kind of object, the object, the
state before and after, and the cause. The daemon keeps the latest thousand since its start; the same
lines are in its log, with the key event. A line that an operator should look at begins with "!".

With --follow it goes on with new ones as they come, until it is interrupted. If they come faster than
they can be shown, some are left out, and a line says how many.` + clientHelp,
		Example: `  remora events
  remora events --follow
  remora events -o json | jq 'select(.kind == "health")'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.call(cmd.Context(), func(ctx context.Context, c *control.Client) error {
				print := func(events []*remorav1.Event, lost uint64) error {
					return printEvents(cmd.OutOrStdout(), events, lost, f.json())
				}
				if !follow {
					m, err := c.ListEvents(ctx, 0)
					if err != nil {
						return err
					}
					return print(m.Events, m.Lost)
				}
				err := c.WatchEvents(ctx, 0, func(m *remorav1.WatchEventsResponse) error { return print(m.Events, m.Lost) })
				if ctx.Err() != nil { // interrupted, which is the way to end it
					return nil
				}
				return err
			})
		},
	}
	f.add(cmd)
	f.addOutput(cmd)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with new ones as they come")
	return cmd
}

// printEvents prints events, each on a line, after those that were lost, which as JSON the numbers tell.
func printEvents(out io.Writer, events []*remorav1.Event, lost uint64, json bool) error {
	var errs []error
	if lost > 0 && !json {
		_, err := fmt.Fprintf(out, "... %d events are kept no more\n", lost)
		errs = append(errs, err)
	}
	for _, e := range events {
		if json {
			errs = append(errs, printJSON(out, e))
			continue
		}
		_, err := fmt.Fprintln(out, eventLine(e))
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// eventLine is an event for people, in one line: texts that would break it, or steer a terminal, are quoted.
func eventLine(e *remorav1.Event) string {
	mark := " "
	if e.Warning {
		mark = "!"
	}
	parts := []string{mark, e.At.AsTime().Local().Format("2006-01-02 15:04:05.000"), e.Kind}
	for _, object := range []string{e.Service, e.Vip, e.Real, e.Source, e.Peer, e.Interface} {
		if object != "" {
			parts = append(parts, lineText(object))
		}
	}
	line := strings.Join(parts, " ") + fmt.Sprintf(": %s -> %s", lineText(e.From), lineText(e.To))
	if e.Cause != "" {
		line += " (" + lineText(e.Cause) + ")"
	}
	return line
}

// lineText is a text, quoted if it has anything that cannot be printed.
func lineText(s string) string {
	if utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return s
	}
	return strconv.Quote(s)
}
