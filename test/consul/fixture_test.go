// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	source "github.com/remora-lb/remora/lb/discovery/consul"
	"github.com/remora-lb/remora/test/consul"
	"github.com/remora-lb/remora/test/require"
)

const (
	buildTimeout = 20 * time.Minute
	// patience is how long a test waits for what must happen.
	patience = time.Minute
)

var build = sync.OnceValues(func() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), buildTimeout)
	defer cancel()
	return consul.Build(ctx)
})

// binary is the program. Without it the test is skipped, or fails where it was promised.
func binary(t *testing.T) string {
	t.Helper()
	path, err := build()
	if err != nil && os.Getenv("REMORA_REQUIRE_ROOT") != "1" {
		t.Skipf("this test needs Consul: %v", err)
	}
	require.NoError(t, err)
	return path
}

// limited is a context for one step of a test.
func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// startAgent runs an agent until the test ends.
func startAgent(t *testing.T, o consul.Options) *consul.Agent {
	t.Helper()
	o.Binary = binary(t)
	a, err := consul.Start(limited(t), o)
	require.NoError(t, err)
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

func client(t *testing.T, a *consul.Agent, token string) *api.Client {
	t.Helper()
	c, err := a.Client(token)
	require.NoError(t, err)
	return c
}

// config is a configuration for one agent, with times that suit a test.
func config(a *consul.Agent) source.Config {
	c := source.DefaultConfig()
	c.Client.Addresses = []string{a.Address}
	c.Retry = source.Retry{Min: 20 * time.Millisecond, Max: 500 * time.Millisecond}
	return c
}

func watch(service string) []source.Watch {
	return []source.Watch{{Name: service, Service: service}}
}

// feed is what a source hands over.
type feed struct {
	*source.Source
	updates chan source.Update
}

// follow runs a source until the test ends.
func follow(t *testing.T, c source.Config) *feed {
	t.Helper()
	s, err := source.New(c)
	require.NoError(t, err)
	f := &feed{s, make(chan source.Update, 10_000)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx, func(u source.Update) { f.updates <- u }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the source ended with %v", err)
		}
	})
	return f
}

// await waits for an update that is as wanted.
func (f *feed) await(t *testing.T, what string, wanted func(source.Update) bool) source.Update {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	last := "nothing"
	for {
		select {
		case u := <-f.updates:
			if wanted(u) {
				return u
			}
			last = describe(u)
		case <-timer.C:
			t.Fatalf("%s: not within %v; the last update was %s", what, patience, last)
		}
	}
}

func describe(u source.Update) string {
	switch {
	case u.Answer != nil:
		return fmt.Sprintf("answer %+v", *u.Answer)
	case u.Overlay != nil:
		return fmt.Sprintf("overlay %+v", *u.Overlay)
	}
	return fmt.Sprintf("definitions %+v", *u.Definitions)
}

// verdicts waits until the verdicts of a service's whole answer are as wanted, one line each.
func (f *feed) verdicts(t *testing.T, service string, want ...string) *source.Answer {
	t.Helper()
	var got []string
	u := f.await(t, fmt.Sprintf("verdicts of %s: %q", service, want), func(u source.Update) bool {
		if u.Answer == nil || u.Answer.Service != service || u.Answer.Problem() != "" {
			return false
		}
		got = lines(u.Answer.Instances)
		return fmt.Sprint(got) == fmt.Sprint(want)
	})
	return u.Answer
}

// lines are verdicts as text.
func lines(instances []source.Instance) []string {
	var texts []string
	for _, v := range source.JudgeAll(instances, source.Rules{Ports: []uint16{80}}) {
		texts = append(texts, fmt.Sprintf("%s %s %d %s", v.ID.Service, v.Backend.Addr, v.Backend.Weight, v.State))
	}
	return texts
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, reached func() error) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := reached()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			t.Fatalf("%s: not within %v: %v", what, patience, err)
		case <-ticker.C:
		}
	}
}

// register registers an instance with a check that passes until it is told otherwise.
func register(t *testing.T, c *api.Client, id, address string, more ...func(*api.AgentServiceRegistration)) {
	t.Helper()
	r := &api.AgentServiceRegistration{
		ID: id, Name: "web", Address: address, Port: 80,
		Check: &api.AgentServiceCheck{CheckID: id + "-check", TTL: "1h", Status: api.HealthPassing},
	}
	for _, change := range more {
		change(r)
	}
	require.NoError(t, c.Agent().ServiceRegister(r))
}

func setCheck(t *testing.T, c *api.Client, id, status string) {
	t.Helper()
	require.NoError(t, c.Agent().UpdateTTL(id+"-check", "said by the test", status))
}
