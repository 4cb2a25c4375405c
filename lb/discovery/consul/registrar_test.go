// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/remora-lb/remora/test/require"
)

// TestRegistrarIsCalledOff: an agent that does not answer does not keep a balancer from stopping.
func TestRegistrarIsCalledOff(t *testing.T) {
	asked, deregistered, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	agent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/agent/service/register":
			close(asked)
			<-ended
		case "/v1/agent/service/deregister/remora":
			close(deregistered)
		}
	}))
	defer agent.Close()
	defer close(ended)
	c := DefaultRegistration()
	c.Client.Addresses = []string{agent.URL}
	r, err := NewRegistrar(c)
	require.NoError(t, err)
	patient, err := newEndpoints(c.Client, timeouts{request: time.Hour})
	require.NoError(t, err)
	r.endpoint = patient[0]
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	<-asked
	cancel()
	select {
	case err := <-done:
		require.NoError(t, err)
	case <-time.After(time.Minute):
		t.Fatal("it waits for the agent")
	}
	<-deregistered
}
