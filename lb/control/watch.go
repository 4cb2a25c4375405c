// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"

	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
)

// WatchDrain implements the API.
func (c *calls) WatchDrain(ctx context.Context, req *connect.Request[remorav1.WatchDrainRequest], stream *connect.ServerStream[remorav1.WatchDrainResponse]) error {
	s, err := selectionFromAPI(req.Msg)
	if err != nil {
		return c.fail(ctx, "WatchDrain", err)
	}
	pace := paceOf(ctx)
	defer pace.bound(c.bounds.answer)
	tick := time.NewTicker(c.interval)
	defer tick.Stop()
	var sent []Drain
	for {
		now, err := c.look(ctx, s, sent)
		if err != nil {
			return c.failAbout(ctx, "WatchDrain", s, err)
		}
		if !slices.Equal(sent, now) {
			pace.bound(c.bounds.part)
			if err := stream.Send(&remorav1.WatchDrainResponse{Drains: drainsToAPI(now)}); err != nil {
				return err
			}
			sent = now
		}
		if !slices.ContainsFunc(now, func(d Drain) bool { return d.State == DrainRunning }) {
			return nil
		}
		pace.bound(0)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return c.fail(ctx, "WatchDrain", ctx.Err())
		case <-c.running.Done():
			return c.fail(ctx, "WatchDrain", &Error{Code: CodeUnavailable, Problem: "the daemon stops", Cure: "watch again when it runs"})
		}
	}
}

// look is the drains as they are now. Those that were sent are followed, and none is added to them.
func (c *calls) look(ctx context.Context, s Selection, sent []Drain) ([]Drain, error) {
	ctx, cancel := context.WithTimeout(ctx, c.bounds.call)
	defer cancel()
	now, err := c.daemon.Drains(ctx, s)
	switch {
	case len(sent) > 0 && (err == nil || isNotFound(err)):
		return follow(sent, now), nil
	case err != nil:
		return nil, err
	case len(now) == 0:
		return nil, &Error{
			Code:    CodeRefused,
			Object:  s.String(),
			Problem: fmt.Sprintf("%s is not drained", s),
			Cure:    "`remora drain` drains a backend, `remora drains` lists those that are drained",
		}
	}
	return now, nil
}

// follow is the drains that were sent as they are now: those that the daemon has no more have ended.
func follow(sent, now []Drain) []Drain {
	next := slices.Clone(sent)
	for i, d := range next {
		k := slices.IndexFunc(now, func(n Drain) bool { return n.Target == d.Target })
		switch {
		case k >= 0:
			next[i] = now[k]
		case d.State == DrainRunning:
			next[i].State = DrainEnded
		}
	}
	return next
}
