// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"crypto/tls"
	"net"
	"net/netip"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/remora-lb/remora/test/require"
)

// TestGRPC asks the health server of grpc-go.
func TestGRPC(t *testing.T) {
	noLeaks(t)
	ca := newAuthority(t)
	ca.issue(t, "good", "grpc.example.com", time.Now().Add(time.Hour))
	h := health.NewServer()
	h.SetServingStatus("shop", healthpb.HealthCheckResponse_SERVING)
	h.SetServingStatus("closing", healthpb.HealthCheckResponse_NOT_SERVING)
	serve := func(options ...grpc.ServerOption) netip.AddrPort {
		server := grpc.NewServer(options...)
		healthpb.RegisterHealthServer(server, h)
		return serveGRPC(t, server)
	}
	plain := serve()
	secure := serve(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{ca.pair(t, "good")}, NextProtos: []string{"h2"}})))
	bare := serveGRPC(t, grpc.NewServer())
	trust := func(name string) *TLS { return &TLS{ServerName: name, CAFile: ca.path("ca.pem")} }
	for _, tc := range []struct {
		name   string
		kind   GRPC
		server netip.AddrPort
		want   Reason
		detail string
	}{
		{"server", GRPC{}, plain, OK, ""},
		{"service", GRPC{Service: "shop"}, plain, OK, ""},
		{"not serving", GRPC{Service: "closing"}, plain, NotServing, `service "closing" is NOT_SERVING`},
		{"unknown service", GRPC{Service: "bar"}, plain, NotServing, `service "bar" is not known`},
		{"no health service", GRPC{}, bare, BadAnswer, "Unimplemented"},
		{"tls", GRPC{Service: "shop", TLS: trust("grpc.example.com")}, secure, OK, ""},
		{"tls, name from the authority", GRPC{Authority: "grpc.example.com:443", TLS: trust("")}, secure, OK, ""},
		{"wrong name", GRPC{TLS: trust("other.example.com")}, secure, TLSName, ""},
		{"tls to plain", GRPC{TLS: trust("grpc.example.com")}, plain, TLSHandshake, ""},
		{"down", GRPC{}, closedPort(t), Refused, "connection refused"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want(t, check(t, tc.kind, Target{Addr: tc.server}, longTime), tc.want, tc.detail)
		})
	}
	t.Run("plain to tls", func(t *testing.T) {
		// Which of the two it is depends on what the server had read when it closed.
		got := check(t, GRPC{}, Target{Addr: secure}, longTime)
		if got.Reason != ClosedEarly && got.Reason != Reset {
			t.Errorf("result %q, want that the connection was closed or reset", got)
		}
	})
}

func serveGRPC(t *testing.T, server *grpc.Server) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		<-ended
	})
	return netip.MustParseAddrPort(l.Addr().String())
}
