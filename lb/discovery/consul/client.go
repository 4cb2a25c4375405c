// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

// ClientConfig is how Consul is reached. What is empty is taken from the CONSUL_* environment, as
// Consul's own tools do.
type ClientConfig struct {
	// Addresses are agents or servers of one datacenter, tried in this order whenever one fails:
	// HOST:PORT, http://HOST:PORT, https://HOST:PORT or unix:///PATH. Default: CONSUL_HTTP_ADDR,
	// else localhost:8500.
	Addresses []string
	// Token is the ACL token. Default: CONSUL_HTTP_TOKEN. Where Consul denies by default, the agent's
	// own token does not do in its place, see Facts.Anonymous.
	Token string
	// TokenFile is a file that holds the token; it is read anew for each request. It goes before
	// Token. Default: CONSUL_HTTP_TOKEN_FILE, unless Token is set.
	TokenFile string
	// Datacenter, Namespace and Partition are those of every request. Default: the agent's,
	// CONSUL_NAMESPACE, CONSUL_PARTITION.
	Datacenter, Namespace, Partition string
	// TLS is for addresses with https.
	TLS TLSConfig
}

// TLSConfig is how a server of Consul is recognised, and how it recognises remora.
type TLSConfig struct {
	// CAFile and CAPath name a file and a folder of certificates to trust. Default: CONSUL_CACERT,
	// CONSUL_CAPATH, else the system's.
	CAFile, CAPath string
	// CertFile and KeyFile are the client certificate, read anew for each connection; both or
	// none. Default: CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY.
	CertFile, KeyFile string
	// ServerName is the name that the server's certificate must have. Default:
	// CONSUL_TLS_SERVER_NAME, else the address.
	ServerName string
}

// Validate reports all problems, each with the path of its field.
func (c ClientConfig) Validate() error {
	var p problems
	for i, a := range c.Addresses {
		if _, err := parseAddress(a); err != nil {
			p.addf("Client.Addresses[%d]: %v", i, err)
		}
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		p.addf("Client.TLS: CertFile %q and KeyFile %q: there must be both or none", c.TLS.CertFile, c.TLS.KeyFile)
	}
	return p.err()
}

// address is where one agent or server listens.
type address struct {
	// text is what the operator wrote.
	text string
	// scheme is http or https, or empty if the operator left it to CONSUL_HTTP_SSL.
	scheme string
	// host is HOST:PORT and perhaps a path, or empty for a socket.
	host string
	// socket is the path of a unix socket.
	socket string
}

func parseAddress(text string) (address, error) {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		scheme, rest = "", text
	}
	switch {
	case scheme == "unix" && strings.HasPrefix(rest, "/"):
		return address{text: text, scheme: "http", socket: rest}, nil
	case scheme != "" && scheme != "http" && scheme != "https":
		return address{}, fmt.Errorf("%q is not HOST:PORT, http://HOST:PORT, https://HOST:PORT or unix:///PATH", text)
	}
	u, err := url.Parse("http://" + rest)
	if err != nil || u.Hostname() == "" || u.RawQuery != "" || u.User != nil {
		return address{}, fmt.Errorf("%q is not HOST:PORT, http://HOST:PORT, https://HOST:PORT or unix:///PATH", text)
	}
	return address{text: text, scheme: scheme, host: rest}, nil
}

// endpoint is one address and the client for it.
type endpoint struct {
	address   string
	multiplex bool
	client    *api.Client
	transport *transport
}

// timeouts bound requests whose context does not. Zero fields do not.
type timeouts struct {
	// request bounds a whole request, its wait included.
	request time.Duration
	// wait is how long Consul may keep a query that does not say.
	wait time.Duration
}

// newEndpoints makes a client for every address. They share one reader of the token.
func newEndpoints(c ClientConfig, limit timeouts) ([]*endpoint, error) {
	base, err := environment()
	if err != nil {
		return nil, err
	}
	addresses := c.Addresses
	if len(addresses) == 0 {
		addresses = []string{base.Address}
	}
	merge(base, c)
	secret := newToken(c, base)
	var list []*endpoint
	for _, text := range addresses {
		a, err := parseAddress(text)
		if err != nil {
			return nil, fmt.Errorf("reach Consul: %v", err)
		}
		e, err := newEndpoint(a, *base, secret, limit)
		if err != nil {
			return nil, fmt.Errorf("reach Consul at %q: %v", text, err)
		}
		list = append(list, e)
	}
	return list, nil
}

// environment is what the CONSUL_* environment says. Consul's own reader only warns of truth values
// that it cannot read, and a certificate check that was meant to be on might then be off.
func environment() (*api.Config, error) {
	var p problems
	for _, name := range []string{api.HTTPSSLEnvName, api.HTTPSSLVerifyEnvName} {
		if v := os.Getenv(name); v != "" {
			if _, err := strconv.ParseBool(v); err != nil {
				p.addf("read environment: %s is %q, not true or false", name, v)
			}
		}
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	return api.DefaultConfig(), nil
}

// merge puts what is configured over what the environment says.
func merge(base *api.Config, c ClientConfig) {
	set := func(field *string, value string) {
		if value != "" {
			*field = value
		}
	}
	set(&base.Datacenter, c.Datacenter)
	set(&base.Namespace, c.Namespace)
	set(&base.Partition, c.Partition)
	set(&base.TLSConfig.CAFile, c.TLS.CAFile)
	set(&base.TLSConfig.CAPath, c.TLS.CAPath)
	set(&base.TLSConfig.CertFile, c.TLS.CertFile)
	set(&base.TLSConfig.KeyFile, c.TLS.KeyFile)
	set(&base.TLSConfig.Address, c.TLS.ServerName)
}

// newEndpoint makes the client for one address. The base is the caller's copy.
func newEndpoint(a address, base api.Config, secret *token, limit timeouts) (*endpoint, error) {
	if a.scheme != "" {
		base.Scheme = a.scheme
	}
	e := &endpoint{address: a.text, multiplex: base.Scheme == "https"}
	inner := newHTTPTransport(a.socket)
	if e.multiplex {
		var err error
		if inner.TLSClientConfig, err = newTLS(base.TLSConfig); err != nil {
			return nil, err
		}
	}
	e.transport = &transport{inner: inner, token: secret}
	base.Transport = inner
	base.HttpClient = &http.Client{Transport: e.transport, Timeout: limit.request}
	base.WaitTime = limit.wait
	base.Address = "localhost"
	if a.socket == "" {
		base.Address = base.Scheme + "://" + a.host
	}
	// The transport sets the token of each request. The client must have one that is not from the
	// environment, lest it read a token file, once, of its own accord.
	base.Token, base.TokenFile = "set by the transport", ""
	var err error
	e.client, err = api.NewClient(&base)
	return e, err
}

const (
	dialTimeout      = 5 * time.Second
	handshakeTimeout = 5 * time.Second
	pingAfter        = 15 * time.Second
	idleConnTimeout  = 90 * time.Second
)

// newHTTPTransport makes the connections of one address, or of a unix socket if one is named.
func newHTTPTransport(socket string) *http.Transport {
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: pingAfter}
	t := &http.Transport{
		DialContext:         dialer.DialContext,
		TLSHandshakeTimeout: handshakeTimeout,
		IdleConnTimeout:     idleConnTimeout,
		// Every watch has a connection; between two of its queries it must not be closed.
		MaxIdleConnsPerHost: maxConnections,
		ForceAttemptHTTP2:   true,
		// Packing costs more time than it saves on the way from an agent nearby.
		DisableCompression: true,
		// Without pings, queries would go on being sent into a connection that died silently.
		HTTP2: &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingAfter},
	}
	if socket != "" {
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		}
	}
	return t
}

// newTLS reads the certificates to trust. The client's own is read at each handshake, so that its
// renewal needs no restart; it is read here, too, so that a mistake shows at once.
func newTLS(c api.TLSConfig) (*tls.Config, error) {
	t, err := api.SetupTLSConfig(&c)
	if err != nil {
		return nil, fmt.Errorf("set up TLS: %v", err)
	}
	t.MinVersion = tls.VersionTLS12
	if c.CertFile != "" {
		t.Certificates = nil
		t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
			if err != nil {
				return nil, fmt.Errorf("read client certificate: %v", err)
			}
			return &cert, nil
		}
	}
	return t, nil
}
