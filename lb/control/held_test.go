// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
	"github.com/remora-lb/remora/test/require"
)

func (f *fakeDaemon) Held(context.Context) (Held, error) {
	return Held{
		Holds: []Hold{{Source: "consul", Service: "web", Rule: "radius", Object: shared.String(), Since: began,
			Until: began.Add(time.Minute), Release: "its time", Sentence: "stays active"}},
		Refusals: []Refusal{{Source: "consul", Service: "web", Object: "node/web", Reason: "port 81"}},
		Rules:    []RuleCount{{Rule: "radius", Held: 3}},
	}, nil
}

func (f *fakeDaemon) Freeze(_ context.Context, z Freeze) (string, time.Time, error) {
	if z.Service != "web" {
		return "", time.Time{}, &Error{Code: CodeNotFound, Problem: "there is no service " + z.Service, Cure: "the nearest: web"}
	}
	return z.Service, began.Add(z.Duration), nil
}

func (f *fakeDaemon) Unfreeze(_ context.Context, service string) (string, error) {
	return "", &Error{Code: CodeRefused, Object: service, Problem: "it is not frozen"}
}

func (f *fakeDaemon) Accept(_ context.Context, service string) (string, int, error) {
	return service, 2, nil
}

// TestHeld: what is held back reaches the caller as it is.
func TestHeld(t *testing.T) {
	c := serve(t, new(fakeDaemon)).client(t)
	got, err := c.Held(t.Context())
	require.NoError(t, err)
	want := &remorav1.GetHeldResponse{
		Holds: []*remorav1.Hold{{Source: "consul", Service: "web", Rule: "radius", Object: "10.20.0.11", Since: timestamppb.New(began),
			Until: timestamppb.New(began.Add(time.Minute)), Release: "its time", Sentence: "stays active"}},
		Refusals: []*remorav1.Refusal{{Source: "consul", Service: "web", Object: "node/web", Reason: "port 81"}},
		Rules:    []*remorav1.RuleCount{{Rule: "radius", Held: 3}},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestFreezeAndAccept: what an operator asks is checked, passed on, and logged.
func TestFreezeAndAccept(t *testing.T) {
	s := serve(t, new(fakeDaemon))
	c := s.client(t)
	whole := func() *remorav1.FreezeRequest {
		return &remorav1.FreezeRequest{Service: "web", Author: "ada", Reason: "upgrade", Duration: durationpb.New(time.Hour)}
	}
	frozen, err := c.Freeze(t.Context(), whole())
	require.NoError(t, err)
	if frozen.Service != "web" || !frozen.Until.AsTime().Equal(began.Add(time.Hour)) {
		t.Errorf("frozen: %v", frozen)
	}
	for _, tc := range []struct {
		name, says string
		change     func(*remorav1.FreezeRequest)
		code       Code
	}{
		{"no service", "service: missing", func(m *remorav1.FreezeRequest) { m.Service = " " }, CodeInvalid},
		{"no author", "author: missing", func(m *remorav1.FreezeRequest) { m.Author = "" }, CodeInvalid},
		{"no reason", "reason: missing", func(m *remorav1.FreezeRequest) { m.Reason = "" }, CodeInvalid},
		{"no duration", "duration: missing", func(m *remorav1.FreezeRequest) { m.Duration = nil }, CodeInvalid},
		{"backwards", "duration: -1s is not more than 0", func(m *remorav1.FreezeRequest) { m.Duration = durationpb.New(-time.Second) }, CodeInvalid},
		{"another service", "the nearest: web", func(m *remorav1.FreezeRequest) { m.Service = "wab" }, CodeNotFound},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := whole()
			tc.change(m)
			_, err := c.Freeze(t.Context(), m)
			require.ErrorSays(t, err, tc.says)
			var e *Error
			if !errors.As(err, &e) || e.Code != tc.code {
				t.Errorf("%#v", err)
			}
		})
	}
	_, err = c.Unfreeze(t.Context(), &remorav1.UnfreezeRequest{Service: "web"})
	require.ErrorSays(t, err, "not frozen")
	accepted, err := c.Accept(t.Context(), &remorav1.AcceptRequest{Service: "web"})
	require.NoError(t, err)
	if accepted.Changes != 2 || accepted.Service != "web" {
		t.Errorf("accepted: %v", accepted)
	}
	for _, text := range []string{"control API: freeze", "author=ada", "control API: accept", "changes=2"} {
		await(t, text, func() bool { return strings.Contains(s.log.String(), text) })
	}
}
