// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"log/slog"
	"slices"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/remora-lb/remora/lb"
	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
	"github.com/remora-lb/remora/lb/event"
)

// eventsPerMessage bounds a message of a stream of events.
const eventsPerMessage = 100

// ListEvents implements the API.
func (c *calls) ListEvents(_ context.Context, req *connect.Request[remorav1.ListEventsRequest]) (*connect.Response[remorav1.ListEventsResponse], error) {
	events, lost := c.events.After(req.Msg.After)
	return connect.NewResponse(&remorav1.ListEventsResponse{Events: eventsToAPI(events), Lost: lost}), nil
}

// WatchEvents implements the API.
func (c *calls) WatchEvents(ctx context.Context, req *connect.Request[remorav1.WatchEventsRequest], stream *connect.ServerStream[remorav1.WatchEventsResponse]) error {
	pace := paceOf(ctx)
	defer pace.bound(c.bounds.answer)
	watch, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.running, cancel)()
	pace.bound(0)
	err := c.events.Follow(watch, req.Msg.After, func(events []event.Event, lost uint64) error {
		for part := range slices.Chunk(events, eventsPerMessage) {
			pace.bound(c.bounds.part)
			if err := stream.Send(&remorav1.WatchEventsResponse{Events: eventsToAPI(part), Lost: lost}); err != nil {
				return err
			}
			lost = 0
		}
		pace.bound(0)
		return nil
	})
	switch {
	case ctx.Err() != nil:
		return c.fail(ctx, "WatchEvents", ctx.Err())
	case c.running.Err() != nil:
		return c.fail(ctx, "WatchEvents", &Error{Code: CodeUnavailable, Problem: "the daemon stops", Cure: "watch again when it runs"})
	}
	return err // of the stream
}

func eventsToAPI(events []event.Event) []*remorav1.Event {
	list := make([]*remorav1.Event, 0, len(events))
	for _, e := range events {
		list = append(list, &remorav1.Event{
			Number: e.Number, At: timestamppb.New(e.At), Kind: string(e.Kind), Warning: e.Level >= slog.LevelWarn,
			Service: e.Service, Vip: vipToText(e.VIP), Real: addrToAPI(e.Real), Source: e.Source, Peer: addrToAPI(e.Peer),
			Interface: e.Interface, From: e.From, To: e.To, Cause: e.Cause,
		})
	}
	return list
}

func vipToText(v lb.VIP) string {
	if v == (lb.VIP{}) {
		return ""
	}
	return v.String()
}

// ListEvents asks for the events that the daemon keeps, of those with greater numbers than after.
func (c *Client) ListEvents(ctx context.Context, after uint64) (*remorav1.ListEventsResponse, error) {
	return unary(ctx, c.control.ListEvents, &remorav1.ListEventsRequest{After: after})
}

// WatchEvents calls each with the events that the daemon keeps, of those with greater numbers than
// after, and with new ones as they come, until ctx ends or each fails, whose error it returns.
func (c *Client) WatchEvents(ctx context.Context, after uint64, each func(*remorav1.WatchEventsResponse) error) error {
	ctx, cancel := context.WithCancel(ctx) // ends the stream if each fails
	defer cancel()
	stream, err := c.control.WatchEvents(ctx, connect.NewRequest(&remorav1.WatchEventsRequest{After: after}))
	return receive(ctx, stream, err, each)
}
