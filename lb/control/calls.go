// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/semaphore"

	"github.com/remora-lb/remora/lb"
	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
	"github.com/remora-lb/remora/lb/event"
)

// calls are the methods of the API.
type calls struct {
	daemon   Daemon
	events   *event.Log
	log      *slog.Logger
	bounds   bounds
	interval time.Duration
	running  context.Context // ends when the server stops
	transfer *semaphore.Weighted
}

func newCalls(running context.Context, cfg Config, b bounds) *calls {
	return &calls{
		daemon:   cfg.Daemon,
		events:   cfg.Events,
		log:      cfg.Log,
		bounds:   b,
		interval: cfg.WatchInterval,
		running:  running,
		transfer: semaphore.NewWeighted(1),
	}
}

// GetStatus implements the API.
func (c *calls) GetStatus(ctx context.Context, _ *connect.Request[remorav1.GetStatusRequest]) (*connect.Response[remorav1.GetStatusResponse], error) {
	ctx, cancel := context.WithTimeout(ctx, c.bounds.call)
	defer cancel()
	s, err := c.daemon.Status(ctx)
	if err != nil {
		return nil, c.fail(ctx, "GetStatus", err)
	}
	return connect.NewResponse(statusToAPI(s)), nil
}

// Drain implements the API.
func (c *calls) Drain(ctx context.Context, req *connect.Request[remorav1.DrainRequest]) (*connect.Response[remorav1.DrainResponse], error) {
	ctx, cancel := context.WithTimeout(ctx, c.bounds.call)
	defer cancel()
	s, err := selectionFromAPI(req.Msg)
	if err != nil {
		return nil, c.fail(ctx, "Drain", err)
	}
	timeout, err := timeoutFromAPI(req.Msg.Timeout)
	if err != nil {
		return nil, c.fail(ctx, "Drain", err)
	}
	drains, err := c.daemon.Drain(ctx, s, timeout)
	if err != nil {
		return nil, c.failAbout(ctx, "Drain", s, err)
	}
	for _, d := range drains {
		c.asked(ctx, "drain", "vip", d.VIP, "real", d.Backend, "deadline", d.Deadline)
	}
	return connect.NewResponse(&remorav1.DrainResponse{Drains: drainsToAPI(drains)}), nil
}

// ListDrains implements the API.
func (c *calls) ListDrains(ctx context.Context, _ *connect.Request[remorav1.ListDrainsRequest]) (*connect.Response[remorav1.ListDrainsResponse], error) {
	ctx, cancel := context.WithTimeout(ctx, c.bounds.call)
	defer cancel()
	drains, err := c.daemon.Drains(ctx, Selection{})
	if err != nil {
		return nil, c.fail(ctx, "ListDrains", err)
	}
	return connect.NewResponse(&remorav1.ListDrainsResponse{Drains: drainsToAPI(drains)}), nil
}

// Undrain implements the API.
func (c *calls) Undrain(ctx context.Context, req *connect.Request[remorav1.UndrainRequest]) (*connect.Response[remorav1.UndrainResponse], error) {
	ctx, cancel := context.WithTimeout(ctx, c.bounds.call)
	defer cancel()
	s, err := selectionFromAPI(req.Msg)
	if err != nil {
		return nil, c.fail(ctx, "Undrain", err)
	}
	targets, err := c.daemon.Undrain(ctx, s)
	if err != nil {
		return nil, c.failAbout(ctx, "Undrain", s, err)
	}
	res := &remorav1.UndrainResponse{}
	for _, t := range targets {
		c.asked(ctx, "undrain", "vip", t.VIP, "real", t.Backend)
		res.Vips = append(res.Vips, t.VIP.String())
	}
	return connect.NewResponse(res), nil
}

// DrainNode implements the API.
func (c *calls) DrainNode(ctx context.Context, _ *connect.Request[remorav1.DrainNodeRequest]) (*connect.Response[remorav1.DrainNodeResponse], error) {
	if err := c.drainNode(ctx, "DrainNode", true); err != nil {
		return nil, err
	}
	return connect.NewResponse(&remorav1.DrainNodeResponse{}), nil
}

// UndrainNode implements the API.
func (c *calls) UndrainNode(ctx context.Context, _ *connect.Request[remorav1.UndrainNodeRequest]) (*connect.Response[remorav1.UndrainNodeResponse], error) {
	if err := c.drainNode(ctx, "UndrainNode", false); err != nil {
		return nil, err
	}
	return connect.NewResponse(&remorav1.UndrainNodeResponse{}), nil
}

func (c *calls) drainNode(ctx context.Context, call string, on bool) error {
	ctx, cancel := context.WithTimeout(ctx, c.bounds.call)
	defer cancel()
	if err := c.daemon.DrainNode(ctx, on); err != nil {
		return c.fail(ctx, call, err)
	}
	c.asked(ctx, "drain of the balancer", "on", on)
	return nil
}

// asked logs that a caller had something changed.
func (c *calls) asked(ctx context.Context, what string, args ...any) {
	p := ctx.Value(peerKey{}).(peer)
	c.log.Info("control API: "+what, append(args, "uid", p.uid, "pid", p.pid)...)
}

// failAbout is fail for an error about a selection: if that names nothing, it says what there is.
func (c *calls) failAbout(ctx context.Context, call string, s Selection, err error) error {
	if !isNotFound(err) {
		return c.fail(ctx, call, err)
	}
	st, statusErr := c.daemon.Status(ctx)
	if statusErr != nil {
		return c.fail(ctx, call, err)
	}
	return c.fail(ctx, call, unknown(st, s))
}

func isNotFound(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == CodeNotFound
}

// fail is the answer to a call that failed.
func (c *calls) fail(ctx context.Context, call string, err error) error {
	var e *Error
	switch {
	case errors.As(err, &e):
	case errors.Is(err, context.DeadlineExceeded), ctx.Err() == context.DeadlineExceeded:
		e = &Error{Code: CodeLate, Problem: fmt.Sprintf("%s took too long: %v", call, err)}
	case ctx.Err() != nil:
		e = &Error{Code: CodeCanceled, Problem: fmt.Sprintf("%s was given up: %v", call, err)}
	default:
		// It is told to the caller, and here to those who look after the daemon.
		c.log.Error("control API: call failed", "call", call, "error", err)
		e = &Error{Code: CodeInternal, Problem: err.Error(), Cure: "the daemon's log may say more"}
	}
	return e.wire()
}

// selector is a request that names a backend.
type selector interface {
	GetVip() string
	GetBackend() string
}

// selectionFromAPI checks what a request names.
func selectionFromAPI(r selector) (s Selection, err error) {
	if text := r.GetVip(); text != "" {
		if s.VIP, err = lb.ParseVIP(text); err != nil {
			return s, &Error{Code: CodeInvalid, Object: "vip", Problem: err.Error(), Cure: "write it as 192.0.2.10:80/tcp or [2001:db8::10]:443/udp"}
		}
	}
	if s.Backend, err = lb.ParseBackendAddr(r.GetBackend()); err != nil {
		return s, &Error{Code: CodeInvalid, Object: "backend", Problem: fmt.Sprintf("backend: %v", err), Cure: "write it as 10.20.0.11 or 2001:db8:20::11"}
	}
	return s, nil
}
