// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
)

// TLS is how a probe speaks TLS.
type TLS struct {
	// ServerName is sent as SNI and must be in the certificate. Default: the host of the Host
	// header (HTTP) or of the authority (gRPC), otherwise the target's address, which is not sent.
	ServerName string
	// SkipVerify accepts any certificate.
	SkipVerify bool
	// CAFile is a PEM file of the authorities to trust. Default: the system's.
	CAFile string
	// CertFile and KeyFile are the PEM files of the client's certificate. Default: none.
	CertFile, KeyFile string
}

func (c *TLS) validate() error {
	if c == nil {
		return nil
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		return errors.New("TLS: CertFile and KeyFile are only of use together")
	}
	if c.SkipVerify && c.CAFile != "" {
		return errors.New("TLS: CAFile has no effect with SkipVerify")
	}
	return nil
}

// load reads the files and makes what handshakes need; files are their contents.
func (c *TLS) load(protocols ...string) (cfg *tls.Config, files [][]byte, err error) {
	if c == nil {
		return nil, nil, nil
	}
	cfg = &tls.Config{
		ServerName:         c.ServerName,
		InsecureSkipVerify: c.SkipVerify,
		NextProtos:         protocols,
	}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, nil, fmt.Errorf("read CAFile: %v", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, nil, fmt.Errorf("read CAFile %q: no certificate in it", c.CAFile)
		}
		files = append(files, pem)
	}
	if c.CertFile == "" {
		return cfg, files, nil
	}
	cert, err := os.ReadFile(c.CertFile)
	if err != nil {
		return nil, nil, fmt.Errorf("read CertFile: %v", err)
	}
	key, err := os.ReadFile(c.KeyFile)
	if err != nil {
		return nil, nil, fmt.Errorf("read KeyFile: %v", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, nil, fmt.Errorf("use CertFile %q with KeyFile %q: %v", c.CertFile, c.KeyFile, err)
	}
	cfg.Certificates = []tls.Certificate{pair}
	return cfg, append(files, cert, key), nil
}

// handshake speaks TLS over conn. Without a server name in cfg, name is used.
func handshake(ctx context.Context, conn net.Conn, cfg *tls.Config, name string) (*tls.Conn, error) {
	if cfg.ServerName == "" {
		cfg = cfg.Clone()
		cfg.ServerName = name
	}
	c := tls.Client(conn, cfg)
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, handshakeFailure(err)
	}
	return c, nil
}

// handshakeFailure tells certificates and broken connections from everything else that can go
// wrong in a handshake, for which the library has no types.
func handshakeFailure(err error) error {
	const what = "TLS handshake"
	if r := classify(err); r == Local {
		return fail(TLSHandshake, "%s: %v", what, err)
	}
	return awaiting(what, err)
}
