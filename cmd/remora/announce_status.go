// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
	"github.com/remora-lb/remora/lb/control"
)

// askTime is how long status waits for a daemon that may hang.
const askTime = 2 * time.Second

// ask asks the daemon what its health checks know, and what it announces. One that does not answer
// adds nothing: status is also for such times.
func (s *status) ask(ctx context.Context, socket string) error {
	if s.DaemonPID == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	c, err := control.Dial(ctx, cmp.Or(socket, control.DefaultSocket(s.Instance)))
	if err != nil {
		return nil
	}
	defer c.Close()
	answer, err := c.Status(ctx)
	if err != nil {
		return nil
	}
	s.addHealth(answer)
	if l := answer.Metrics; l != nil {
		s.Metrics = &metricsListener{Listen: l.Listen, Serving: l.Serving, Error: l.Error}
	}
	if answer.Bgp == nil {
		return nil
	}
	s.bgp = answer.Bgp
	text, err := control.JSON(answer.Bgp)
	if err != nil {
		return fmt.Errorf("print answer: %v", err)
	}
	s.BGP = json.RawMessage(text)
	return nil
}

// printBGP prints who is told which VIPs are served, and why.
func printBGP(out io.Writer, b *remorav1.BGP, now time.Time) error {
	title := "BGP (docs/bgp.md):"
	if b.Drained {
		title = fmt.Sprintf("BGP (docs/bgp.md), the balancer is drained since %s:", localTime(b.DrainedSince.AsTime()))
	}
	fmt.Fprintf(out, "\n%s\n", title)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ROUTER\tAS\tSESSION\tFOR\tROUTES\tBFD\tLAST ERROR")
	for _, s := range b.Sessions {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%d\t%s\t%s\n", s.Peer, s.Asn, s.State, age(s.Since.AsTime(), now), s.Routes, s.Bfd, s.LastError)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	fmt.Fprintln(w, "VIP\tSTATE\tANNOUNCED\tFOR\tWHY")
	for _, v := range b.Vips {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", v.Vip, announceState(v.State), yesNo(v.Announced), age(v.Since.AsTime(), now), v.Reason)
	}
	return w.Flush()
}

// announceState is a state as the documents have it.
func announceState(s remorav1.AnnounceState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "ANNOUNCE_STATE_"))
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// age is how long ago something was, in whole seconds.
func age(since, now time.Time) string { return max(0, now.Sub(since)).Truncate(time.Second).String() }
