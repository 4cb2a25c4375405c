// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/remora-lb/remora/lb"
	source "github.com/remora-lb/remora/lb/discovery/consul"
	"github.com/remora-lb/remora/test/consul"
	"github.com/remora-lb/remora/test/require"
)

func backend(address string, weight uint32) lb.Backend {
	return lb.Backend{Addr: prefix(address + "/32").Addr(), Weight: weight}
}

// certificates makes an authority and a certificate for both sides of loopback in a folder.
func certificates(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificate(rand.Reader, authority, authority, &key.PublicKey, key)
	require.NoError(t, err)
	write(t, filepath.Join(dir, "ca.pem"), "CERTIFICATE", der)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err = x509.CreateCertificate(rand.Reader, leaf, authority, &key.PublicKey, key)
	require.NoError(t, err)
	write(t, filepath.Join(dir, "cert.pem"), "CERTIFICATE", der)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	write(t, filepath.Join(dir, "key.pem"), "PRIVATE KEY", private)
	return dir
}

func write(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

// TestTLS: over HTTPS with certificates on both sides, more services than Consul allows connections
// (200) are watched, and each change is seen.
func TestTLS(t *testing.T) {
	t.Parallel()
	const services = 300
	dir := certificates(t)
	a := startAgent(t, consul.Options{TLS: true, Config: fmt.Sprintf(
		"tls { https { ca_file = %q cert_file = %q key_file = %q verify_incoming = true } }",
		dir+"/ca.pem", dir+"/cert.pem", dir+"/key.pem")})
	c := client(t, a, "")
	configuration := config(a)
	configuration.Client.Addresses = []string{"https://" + a.TLSAddress}
	configuration.Client.TLS = source.TLSConfig{CAFile: dir + "/ca.pem", CertFile: dir + "/cert.pem", KeyFile: dir + "/key.pem"}
	missing := make(map[string]bool)
	for i := range services {
		name := fmt.Sprintf("service-%d", i)
		missing[name] = true
		configuration.Watches = append(configuration.Watches, source.Watch{Name: name, Service: name})
	}
	f := follow(t, configuration)
	f.awaitAll(t, missing, func(a *source.Answer) bool { return a.Err == nil })
	for i := range services {
		name := fmt.Sprintf("service-%d", i)
		missing[name] = true
		register(t, c, name, "10.0.0.1", func(r *api.AgentServiceRegistration) { r.Name = name })
	}
	f.awaitAll(t, missing, func(a *source.Answer) bool { return a.Err == nil && len(a.Instances) == 1 })

	configuration.Client.TLS.CertFile, configuration.Client.TLS.KeyFile = "", ""
	configuration.Watches = configuration.Watches[:1]
	u := follow(t, configuration).await(t, "an answer", func(source.Update) bool { return true })
	require.ErrorSays(t, u.Answer.Err, `read service "service-0" at "https://`)
}

// awaitAll waits until every service of the set had an answer as wanted, and empties the set.
func (f *feed) awaitAll(t *testing.T, missing map[string]bool, wanted func(*source.Answer) bool) {
	t.Helper()
	f.await(t, "an answer for each service", func(u source.Update) bool {
		if wanted(u.Answer) {
			delete(missing, u.Answer.Service)
		}
		return len(missing) == 0
	})
}

// TestManyServicesWithoutTLS: more services than connections take turns, and none is left out.
func TestManyServicesWithoutTLS(t *testing.T) {
	t.Parallel()
	const services = 50
	a := startAgent(t, consul.Options{Config: "limits { http_max_conns_per_client = 12 }"})
	configuration := config(a)
	configuration.Connections, configuration.Wait = 8, 6*time.Second
	missing := make(map[string]bool)
	for i := range services {
		name := fmt.Sprintf("service-%d", i)
		missing[name] = true
		configuration.Watches = append(configuration.Watches, source.Watch{Name: name, Service: name})
	}
	f := follow(t, configuration)
	f.awaitAll(t, missing, func(a *source.Answer) bool {
		if a.Err != nil {
			t.Errorf("with fewer connections than Consul allows: %v", a.Err)
		}
		return true
	})
	register(t, client(t, a, ""), "late", "10.0.0.1", func(r *api.AgentServiceRegistration) { r.Name = "service-49" })
	f.verdicts(t, "service-49", "late 10.0.0.1 1 active")
}
