// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/remora-lb/remora/lb"
	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
	"github.com/remora-lb/remora/lb/control"
	"github.com/remora-lb/remora/lb/dataplane"
	"github.com/remora-lb/remora/lb/discovery/consul"
)

// readHeld asks the daemon what it refuses and holds back.
func readHeld(ctx context.Context, instance, socket string) (*remorav1.GetHeldResponse, error) {
	c, err := control.Dial(ctx, cmp.Or(socket, control.DefaultSocket(instance)))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Held(ctx)
}

// heldJSON is the answer as a part of a JSON document.
func heldJSON(held *remorav1.GetHeldResponse) (json.RawMessage, error) {
	text, err := control.JSON(held)
	return json.RawMessage(text), err
}

// printHeld prints what is refused and held back, a paragraph for each.
func printHeld(out io.Writer, held *remorav1.GetHeldResponse) {
	fmt.Fprintln(out, "\nHeld back, refused, or not used (docs/consul.md):")
	if len(held.Holds)+len(held.Refusals) == 0 {
		fmt.Fprintln(out, "  nothing")
	}
	for _, h := range held.Holds {
		fmt.Fprintf(out, "  %s %s: %s\n    rule %s, since %s", h.Service, h.Object, h.Sentence, h.Rule, localTime(h.Since.AsTime()))
		if h.Until != nil {
			fmt.Fprintf(out, ", until %s", localTime(h.Until.AsTime()))
		}
		fmt.Fprintf(out, "; ends by %s\n", h.Release)
	}
	for _, r := range held.Refusals {
		fmt.Fprintf(out, "  %s %s: %s\n", cmp.Or(r.Service, r.Source), r.Object, r.Reason)
	}
	for i, c := range held.Rules {
		if i == 0 {
			fmt.Fprint(out, "  since the start:")
		}
		fmt.Fprintf(out, " %s %d", c.Rule, c.Held)
	}
	if len(held.Rules) > 0 {
		fmt.Fprintln(out)
	}
}

func localTime(t time.Time) string { return t.Local().Format(time.DateTime) }

// digest is the same on every balancer on which a VIP gives new flows to the same backends by the same
// weights.
func digest(vip lb.VIP, reals []dataplane.RealState) string {
	var backends []lb.Backend
	for _, r := range reals {
		if r.Use == lb.RealActive && r.Backend.Weight > 0 {
			backends = append(backends, r.Backend)
		}
	}
	return consul.Digest(vip, backends)
}
