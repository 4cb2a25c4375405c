// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
)

// Held is what is refused and held back of what dynamic sources say.
type Held struct {
	// Holds are by service, source and object.
	Holds    []Hold
	Refusals []Refusal
	Rules    []RuleCount
}

// Hold is an answer that is refused or a change that is held back. Until is zero if no time ends it.
type Hold struct {
	Source, Service, Rule, Object string
	Since, Until                  time.Time
	// Release says what would end it, Sentence what it is. Both are for people.
	Release, Sentence string
}

// Refusal is something that a source says and that cannot be used. Service may be empty; Object is
// an instance, a claim or a key.
type Refusal struct{ Source, Service, Object, Reason string }

// RuleCount counts what a rule refused or held back since the start.
type RuleCount struct {
	Rule string
	Held uint64
}

// Freeze is the wish to keep a service as it is for a time. Service may be the name of the service
// or one of its VIPs; all other fields are checked.
type Freeze struct {
	Service, Author, Reason string
	Duration                time.Duration
}

// GetHeld implements the API.
func (c *calls) GetHeld(ctx context.Context, _ *connect.Request[remorav1.GetHeldRequest]) (*connect.Response[remorav1.GetHeldResponse], error) {
	ctx, cancel := context.WithTimeout(ctx, c.bounds.call)
	defer cancel()
	h, err := c.daemon.Held(ctx)
	if err != nil {
		return nil, c.fail(ctx, "GetHeld", err)
	}
	return connect.NewResponse(heldToAPI(h)), nil
}

func heldToAPI(h Held) *remorav1.GetHeldResponse {
	m := &remorav1.GetHeldResponse{}
	for _, one := range h.Holds {
		m.Holds = append(m.Holds, &remorav1.Hold{
			Source: one.Source, Service: one.Service, Rule: one.Rule, Object: one.Object,
			Since: timeToAPI(one.Since), Until: timeToAPI(one.Until), Release: one.Release, Sentence: one.Sentence,
		})
	}
	for _, one := range h.Refusals {
		m.Refusals = append(m.Refusals, &remorav1.Refusal{Source: one.Source, Service: one.Service, Object: one.Object, Reason: one.Reason})
	}
	for _, one := range h.Rules {
		m.Rules = append(m.Rules, &remorav1.RuleCount{Rule: one.Rule, Held: one.Held})
	}
	return m
}

// Freeze implements the API.
func (c *calls) Freeze(ctx context.Context, req *connect.Request[remorav1.FreezeRequest]) (*connect.Response[remorav1.FreezeResponse], error) {
	ctx, cancel := context.WithTimeout(ctx, c.bounds.call)
	defer cancel()
	f, err := freezeFromAPI(req.Msg)
	if err != nil {
		return nil, c.fail(ctx, "Freeze", err)
	}
	service, until, err := c.daemon.Freeze(ctx, f)
	if err != nil {
		return nil, c.fail(ctx, "Freeze", err)
	}
	c.asked(ctx, "freeze", "service", service, "author", f.Author, "reason", f.Reason, "until", until)
	return connect.NewResponse(&remorav1.FreezeResponse{Service: service, Until: timestamppb.New(until)}), nil
}

func freezeFromAPI(m *remorav1.FreezeRequest) (Freeze, error) {
	f := Freeze{Service: m.Service, Author: m.Author, Reason: m.Reason}
	for _, field := range []struct{ name, value string }{{"service", f.Service}, {"author", f.Author}, {"reason", f.Reason}} {
		if strings.TrimSpace(field.value) == "" {
			return f, missing(field.name)
		}
	}
	if m.Duration == nil {
		return f, missing("duration")
	}
	var err error
	if f.Duration, err = timeoutFromAPI(m.Duration); err != nil {
		return f, &Error{
			Code: CodeInvalid, Object: "duration",
			Problem: fmt.Sprintf("duration: %v is not more than 0 and at most %v", m.Duration.AsDuration(), maxTimeout),
		}
	}
	return f, nil
}

func missing(field string) error {
	return &Error{Code: CodeInvalid, Object: field, Problem: field + ": missing"}
}

// Unfreeze implements the API.
func (c *calls) Unfreeze(ctx context.Context, req *connect.Request[remorav1.UnfreezeRequest]) (*connect.Response[remorav1.UnfreezeResponse], error) {
	ctx, cancel := context.WithTimeout(ctx, c.bounds.call)
	defer cancel()
	service, err := c.daemon.Unfreeze(ctx, req.Msg.Service)
	if err != nil {
		return nil, c.fail(ctx, "Unfreeze", err)
	}
	c.asked(ctx, "unfreeze", "service", service)
	return connect.NewResponse(&remorav1.UnfreezeResponse{Service: service}), nil
}

// Accept implements the API.
func (c *calls) Accept(ctx context.Context, req *connect.Request[remorav1.AcceptRequest]) (*connect.Response[remorav1.AcceptResponse], error) {
	ctx, cancel := context.WithTimeout(ctx, c.bounds.call)
	defer cancel()
	service, changes, err := c.daemon.Accept(ctx, req.Msg.Service)
	if err != nil {
		return nil, c.fail(ctx, "Accept", err)
	}
	c.asked(ctx, "accept", "service", service, "changes", changes)
	return connect.NewResponse(&remorav1.AcceptResponse{Service: service, Changes: uint32(changes)}), nil
}
