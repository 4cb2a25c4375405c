// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/miekg/dns"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/remora-lb/remora/test/require"
	"github.com/remora-lb/remora/test/rig"
)

// listen opens a TCP port on all addresses of a node.
func listen(t *testing.T, n *rig.Node, port uint16) (l net.Listener) {
	t.Helper()
	require.NoError(t, n.Do(func() (err error) {
		l, err = net.Listen("tcp", fmt.Sprintf(":%d", port))
		return err
	}))
	return l
}

// serveUntilEnd has serve run until the end of the test, when stop ends it.
func serveUntilEnd(t *testing.T, serve, stop func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		serve()
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
}

// serveHTTP runs a web server in a node, with TLS if it has a certificate.
func serveHTTP(t *testing.T, n *rig.Node, port uint16, cert *tls.Certificate, handler http.Handler) {
	t.Helper()
	l := listen(t, n, port)
	if cert != nil {
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{*cert}})
	}
	server := &http.Server{Handler: handler, ErrorLog: log.New(io.Discard, "", 0)}
	serveUntilEnd(t, func() { _ = server.Serve(l) }, func() { _ = server.Close() })
}

// serveGRPCHealth runs a gRPC server in a node that says how a service is.
func serveGRPCHealth(t *testing.T, n *rig.Node, port uint16, service string, status healthpb.HealthCheckResponse_ServingStatus) {
	t.Helper()
	h := health.NewServer()
	h.SetServingStatus(service, status)
	server, l := grpc.NewServer(), listen(t, n, port)
	healthpb.RegisterHealthServer(server, h)
	serveUntilEnd(t, func() { _ = server.Serve(l) }, server.Stop)
}

// serveDNS runs a DNS server in a node that answers every query with an rcode.
func serveDNS(t *testing.T, n *rig.Node, port uint16, rcode int) {
	t.Helper()
	var conn net.PacketConn
	require.NoError(t, n.Do(func() (err error) {
		conn, err = net.ListenPacket("udp", fmt.Sprintf(":%d", port))
		return err
	}))
	started := make(chan struct{})
	server := &dns.Server{PacketConn: conn, NotifyStartedFunc: func() { close(started) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		_ = w.WriteMsg(new(dns.Msg).SetRcode(q, rcode)) // who asked will say what is missing
	})}
	serveUntilEnd(t, func() { _ = server.ActivateAndServe() }, func() { _ = server.Shutdown() })
	select {
	case <-started: // before that, Shutdown does nothing
	case <-time.After(waitTimeout):
		t.Fatal("the DNS server does not start")
	}
}

// authority issues certificates for one test.
type authority struct {
	// file has its own certificate.
	file string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{file: filepath.Join(t.TempDir(), "ca.pem"), key: newKey(t)}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, a.key.Public(), a.key)
	require.NoError(t, err)
	a.cert, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(a.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	return a
}

// issue makes a server's certificate for a name, valid until an end.
func (a *authority) issue(t *testing.T, name string, end time.Time) tls.Certificate {
	t.Helper()
	key := newKey(t)
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: []string{name},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: end,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, a.cert, key.Public(), a.key)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}
