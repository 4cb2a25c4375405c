// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
	"github.com/remora-lb/remora/lb/control"
)

const drainNodeHelp = `

With --node the balancer itself is drained: its VIPs are announced by BGP with the attributes of
draining ones (bgp.attributes.draining) for bgp.announce.drain, then withdrawn, and served until
no packet can come any more. With --wait the command stays until then, and the balancer can be
stopped. It lasts until ` + "`remora undrain --node`" + `, over restarts too.`

// nodeArgs is the arguments of verbs that are about a backend, or, with --node, about the balancer.
func nodeArgs(cmd *cobra.Command, args []string) error {
	node, err := cmd.Flags().GetBool("node")
	if err != nil || !node {
		return errors.Join(err, backendArgs(cmd, args))
	}
	if len(args) > 0 {
		return fmt.Errorf("--node is about the whole balancer: write `remora %s --node`", cmd.Name())
	}
	if cmd.Flags().Changed("timeout") {
		return errors.New("--timeout is for backends: that of the balancer is bgp.announce.drain in the configuration")
	}
	return nil
}

// drainNode takes the balancer out, and waits for the end if that is asked for.
func (f *drainFlags) drainNode(ctx context.Context, c *control.Client, out io.Writer) error {
	if err := c.DrainNode(ctx); err != nil {
		return err
	}
	if !f.wait {
		return f.printNode(out, "draining")
	}
	err := awaitWithdrawn(ctx, c)
	if err != nil && ctx.Err() != nil {
		return errors.New("interrupted: the drain goes on; `remora undrain --node` ends it")
	}
	if err != nil {
		return fmt.Errorf("wait for the drain: %v", err)
	}
	return f.printNode(out, "drained: no VIP is announced, and it can be stopped")
}

// undrainNode takes it in again.
func (f *clientFlags) undrainNode(ctx context.Context, c *control.Client, out io.Writer) error {
	if err := c.UndrainNode(ctx); err != nil {
		return err
	}
	return f.printNode(out, "not drained any more")
}

// printNode prints what became of the balancer. The API's own answer is empty.
func (f *clientFlags) printNode(out io.Writer, text string) error {
	if f.json() {
		text = "{}"
	} else {
		text = "balancer: " + text
	}
	_, err := fmt.Fprintln(out, text)
	return err
}

// nodeInterval is the time between two looks at how far the drain of a balancer is.
const nodeInterval = 200 * time.Millisecond

// awaitWithdrawn waits until no VIP is announced any more and no packet can come.
func awaitWithdrawn(ctx context.Context, c *control.Client) error {
	look := time.NewTicker(nodeInterval)
	defer look.Stop()
	for {
		s, err := c.Status(ctx)
		if err != nil {
			return err
		}
		if !s.GetBgp().GetDrained() {
			return errors.New("it was ended before it was done")
		}
		if allWithdrawn(s.GetBgp().GetVips()) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-look.C:
		}
	}
}

func allWithdrawn(vips []*remorav1.Announcement) bool {
	for _, v := range vips {
		if v.State != remorav1.AnnounceState_ANNOUNCE_STATE_WITHDRAWN {
			return false
		}
	}
	return true
}
