// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// GRPC is a probe that calls grpc.health.v1.Health/Check, over TLS if TLS is set.
type GRPC struct {
	// Service is the service to ask about. Default: empty, which stands for the whole server.
	Service string
	// Authority is the :authority of the call. Default: the target's address and port.
	Authority string
	// TLS speaks TLS with ALPN h2.
	TLS *TLS
}

// Validate implements Kind.
func (c GRPC) Validate() error {
	errs := []error{c.TLS.validate()}
	if c.Authority != "" && !validHost(c.Authority) {
		errs = append(errs, fmt.Errorf("Authority: %q is not a host with or without a port", c.Authority))
	}
	return errors.Join(errs...)
}

// Probe implements Kind.
func (c GRPC) Probe() (Probe, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("make gRPC probe: %v", err)
	}
	cfg, files, err := c.TLS.load("h2")
	if err != nil {
		return nil, fmt.Errorf("make gRPC probe: %v", err)
	}
	return &probe{kind: c, files: files, ask: func(ctx context.Context, t Target) (answer, error) {
		authority := c.Authority
		if authority == "" {
			authority = t.Addr.String()
		}
		return answer{}, c.ask(ctx, authority, func(ctx context.Context) (net.Conn, func(), error) {
			conn, release, err := t.dialTCP(ctx, nil)
			if err != nil || cfg == nil {
				return conn, release, err
			}
			secure, err := handshake(ctx, conn, cfg, hostOf(authority))
			if err != nil {
				release()
				return nil, nil, err
			}
			return secure, release, nil
		})
	}}, nil
}

// ask makes the connection itself, TLS included: what the library says of a failed connection is
// only text.
func (c GRPC) ask(ctx context.Context, authority string, dial func(context.Context) (net.Conn, func(), error)) error {
	conn, release, err := dial(ctx)
	if err != nil {
		return err
	}
	defer release()
	once := oneConn{conn: conn}
	client, err := grpc.NewClient("passthrough:///target",
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return once.take() }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority(authority),
		grpc.WithUserAgent("remora"),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithDisableHealthCheck())
	if err != nil {
		return fail(Local, "make gRPC client: %v", err)
	}
	defer client.Close()
	answer, err := healthpb.NewHealthClient(client).Check(ctx, &healthpb.HealthCheckRequest{Service: c.Service})
	if err != nil {
		return c.callFailure(err, once.readError())
	}
	if answer.Status != healthpb.HealthCheckResponse_SERVING {
		return fail(NotServing, "service %q is %s", c.Service, answer.Status)
	}
	return nil
}

// callFailure makes a failure of a failed call; cause is what the connection ended with, if it did.
func (c GRPC) callFailure(err, cause error) error {
	s := status.Convert(err)
	switch s.Code() {
	case codes.NotFound:
		return fail(NotServing, "service %q is not known to the server", c.Service)
	case codes.DeadlineExceeded, codes.Canceled:
		return fail(NoAnswer, "call health check: connected, but no answer in time")
	case codes.Unavailable:
		if cause != nil {
			return awaiting("call health check", cause)
		}
		return fail(NotServing, "the server answered Unavailable: %s", s.Message())
	}
	return fail(BadAnswer, "call health check: %s: %s", s.Code(), s.Message())
}

// oneConn hands out a connection once and remembers the first error of reading from it.
type oneConn struct {
	conn net.Conn

	mu    sync.Mutex // guards what follows
	taken bool
	err   error
}

var errTaken = errors.New("the connection is used up")

func (o *oneConn) take() (net.Conn, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.taken {
		return nil, errTaken
	}
	o.taken = true
	return &watchedConn{o.conn, o}, nil
}

func (o *oneConn) readError() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

type watchedConn struct {
	net.Conn
	watch *oneConn
}

func (c *watchedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		c.watch.mu.Lock()
		if c.watch.err == nil {
			c.watch.err = err
		}
		c.watch.mu.Unlock()
	}
	return n, err
}
