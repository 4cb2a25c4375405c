// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/remora-lb/remora/test/require"
)

// clearEnvironment takes away what the machine may have set.
func clearEnvironment(t *testing.T) {
	t.Helper()
	for _, name := range os.Environ() {
		if name, _, _ = strings.Cut(name, "="); strings.HasPrefix(name, "CONSUL_") {
			t.Setenv(name, "")
		}
	}
}

// seen runs a query with a configuration and returns the request that arrived.
func seen(t *testing.T, configure func(address string) ClientConfig) *http.Request {
	t.Helper()
	requests := make(chan *http.Request, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests <- r
		w.Header().Set("Content-Type", "application/json")
		w.Write([]byte("[]"))
	}))
	defer server.Close()
	endpoints, err := newEndpoints(configure(server.URL), timeouts{})
	require.NoError(t, err)
	defer endpoints[0].transport.inner.CloseIdleConnections()
	_, _, err = endpoints[0].client.Health().Service("web", "", false, nil)
	require.NoError(t, err)
	return <-requests
}

// TestEnvironment: what is not configured is taken from the environment, and the rest is not.
func TestEnvironment(t *testing.T) {
	clearEnvironment(t)
	t.Setenv("CONSUL_HTTP_TOKEN", "env-token")
	t.Setenv("CONSUL_NAMESPACE", "env-ns")
	t.Setenv("CONSUL_PARTITION", "env-partition")
	t.Setenv("CONSUL_HTTP_AUTH", "ada:secret")
	r := seen(t, func(address string) ClientConfig {
		t.Setenv("CONSUL_HTTP_ADDR", strings.TrimPrefix(address, "http://"))
		return ClientConfig{}
	})
	user, password, _ := r.BasicAuth()
	if q := r.URL.Query(); r.Header.Get("X-Consul-Token") != "env-token" || q.Get("ns") != "env-ns" || q.Get("partition") != "env-partition" ||
		user+":"+password != "ada:secret" {
		t.Errorf("request %v, header %v", r.URL, r.Header)
	}
	t.Setenv("CONSUL_HTTP_ADDR", "unix:///nowhere")
	r = seen(t, func(address string) ClientConfig {
		return ClientConfig{Addresses: []string{address}, Token: "own", Namespace: "own-ns", Partition: "own-partition", Datacenter: "own-dc"}
	})
	if q := r.URL.Query(); r.Header.Get("X-Consul-Token") != "own" || q.Get("ns") != "own-ns" || q.Get("partition") != "own-partition" || q.Get("dc") != "own-dc" {
		t.Errorf("request %v, header %v", r.URL, r.Header)
	}
	t.Setenv("CONSUL_HTTP_SSL", "perhaps")
	_, err := newEndpoints(ClientConfig{}, timeouts{})
	require.ErrorSays(t, err, `CONSUL_HTTP_SSL is "perhaps", not true or false`)
}

// TestSchemes: which addresses get TLS, and with it one connection for many queries.
func TestSchemes(t *testing.T) {
	for _, tc := range []struct {
		address, ssl string
		multiplex    bool
	}{
		{"localhost:8500", "", false},
		{"localhost:8500", "true", true},
		{"http://localhost:8500", "true", false},
		{"https://localhost:8501", "", true},
		{"unix:///run/consul.sock", "true", false},
	} {
		clearEnvironment(t)
		t.Setenv("CONSUL_HTTP_SSL", tc.ssl)
		endpoints, err := newEndpoints(ClientConfig{Addresses: []string{tc.address}}, timeouts{})
		require.NoError(t, err)
		if endpoints[0].multiplex != tc.multiplex || endpoints[0].address != tc.address {
			t.Errorf("%s with CONSUL_HTTP_SSL=%q: %+v", tc.address, tc.ssl, endpoints[0])
		}
	}
}

func TestMissingCertificates(t *testing.T) {
	clearEnvironment(t)
	_, err := newEndpoints(ClientConfig{Addresses: []string{"https://a"}, TLS: TLSConfig{CAFile: "/nowhere/ca.pem"}}, timeouts{})
	require.ErrorSays(t, err, `reach Consul at "https://a"`, "/nowhere/ca.pem")
	_, err = newEndpoints(ClientConfig{Addresses: []string{"https://a"}, TLS: TLSConfig{CertFile: "/nowhere/a", KeyFile: "/nowhere/b"}}, timeouts{})
	require.ErrorSays(t, err, "/nowhere/a")
}

func TestToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	get := func(tok *token, want string) {
		t.Helper()
		if got, err := tok.get(); err != nil || got != want {
			t.Errorf("token %q, %v; want %q", got, err, want)
		}
	}
	env := &api.Config{Token: "env", TokenFile: file}
	get(newToken(ClientConfig{Token: "own"}, env), "own")
	get(newToken(ClientConfig{}, &api.Config{Token: "env"}), "env")
	get(newToken(ClientConfig{}, &api.Config{}), "")

	for _, tok := range []*token{newToken(ClientConfig{TokenFile: file, Token: "own"}, &api.Config{}), newToken(ClientConfig{}, env)} {
		_, err := tok.get()
		require.ErrorSays(t, err, "read token", file)
		require.NoError(t, os.WriteFile(file, []byte(" \n"), 0o600))
		_, err = tok.get()
		require.ErrorSays(t, err, "is empty")
		require.NoError(t, os.WriteFile(file, []byte("first\n"), 0o600))
		get(tok, "first")
		require.NoError(t, os.WriteFile(file, nil, 0o600))
		get(tok, "first")
		require.NoError(t, os.WriteFile(file, []byte("second"), 0o600))
		get(tok, "second")
		require.NoError(t, os.Remove(file))
		get(tok, "second")
	}
}

// TestTokenFileAway: the reader says so, and does not ask without a token.
func TestTokenFileAway(t *testing.T) {
	clearEnvironment(t)
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request was sent") }))
	defer server.Close()
	endpoints, err := newEndpoints(ClientConfig{Addresses: []string{server.URL}, TokenFile: "/nowhere/token"}, timeouts{})
	require.NoError(t, err)
	_, _, err = endpoints[0].client.Health().Service("web", "", false, nil)
	require.ErrorSays(t, err, "read token", "/nowhere/token")
}
