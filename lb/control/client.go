// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"

	"connectrpc.com/connect"

	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
	"github.com/remora-lb/remora/lb/api/remora/v1/remorav1connect"
)

// Client calls the API of a daemon. It may be used from several goroutines. All its errors are
// *Error, but those of the caller's own functions, readers and writers. Close it after use.
type Client struct {
	socket  string
	control remorav1connect.ControlClient

	mu    sync.Mutex // guards conns
	conns map[*clientConn]bool
}

// clientConn is a connection that its client knows until it is closed.
type clientConn struct {
	net.Conn
	client *Client
}

// Close implements net.Conn.
func (c *clientConn) Close() error {
	c.client.mu.Lock()
	delete(c.client.conns, c)
	c.client.mu.Unlock()
	return c.Conn.Close()
}

// Dial finds out whether a daemon serves the socket, and returns its client. The error is an *Error
// that says what is in the way.
func Dial(ctx context.Context, socket string) (*Client, error) {
	conn, err := dial(ctx, socket)
	if err != nil {
		return nil, err
	}
	conn.Close()
	c := &Client{socket: socket, conns: make(map[*clientConn]bool)}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	c.control = remorav1connect.NewControlClient(&http.Client{Transport: &http.Transport{
		DialContext: c.connect,
		Protocols:   protocols,
		// A daemon that is stopped, or hangs, answers no ping.
		HTTP2:              &http.HTTP2Config{SendPingTimeout: pingTime, PingTimeout: pingTime},
		DisableCompression: true,
	}}, "http://localhost")
	return c, nil
}

// connect makes a connection for the transport.
func (c *Client) connect(ctx context.Context, _, _ string) (net.Conn, error) {
	conn, err := dial(ctx, c.socket)
	if err != nil {
		return nil, err
	}
	known := &clientConn{conn, c}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conns[known] = true
	return known, nil
}

// Close ends the client's connections, and with them the calls that are under way.
func (c *Client) Close() {
	c.mu.Lock()
	conns := slices.Collect(maps.Keys(c.conns))
	c.mu.Unlock()
	for _, conn := range conns {
		conn.Close()
	}
}

func dial(ctx context.Context, socket string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err == nil {
		return conn, nil
	}
	e := &Error{Code: CodeUnavailable, Object: socket, Problem: fmt.Sprintf("connect to the daemon at %s: %v", socket, cause(err))}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.Problem = fmt.Sprintf("no daemon serves %s: there is no such socket", socket)
		e.Cure = "start `remora run`, or give its --instance or --socket"
	case errors.Is(err, syscall.ECONNREFUSED):
		e.Problem = fmt.Sprintf("no daemon serves %s: the one that did has ended", socket)
		e.Cure = "start `remora run`; packets are forwarded as last configured"
	case errors.Is(err, fs.ErrPermission):
		e.Code = CodeDenied
		e.Problem = fmt.Sprintf("you may not connect to the daemon at %s", socket)
		e.Cure = "use sudo, or become a member of the socket's group"
	}
	return nil, e
}

// cause is the innermost error: those around it repeat the path.
func cause(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

// fault is an error of a call as an *Error. The context tells a call that was given up from a
// connection that broke: the error has the same code for both.
func fault(ctx context.Context, err error) error {
	var own *Error
	if errors.As(err, &own) { // dial's
		return own
	}
	// All errors of calls should be connect.Error; one that is not is shown as it is.
	e := &Error{Problem: cause(err).Error()}
	var ce *connect.Error
	if errors.As(err, &ce) {
		e = fromWire(ce)
	}
	switch {
	case connect.CodeOf(err) == connect.CodeUnimplemented:
		e.Problem, e.Cure = "the daemon does not know this call", "it may be older than this program: restart it"
	case connect.IsWireError(err), ctx.Err() == context.Canceled: // said by the daemon, or wanted by the caller
	case e.Code == CodeLate:
		e.Problem, e.Cure = "the daemon did not answer in time", "see what its log says"
	default:
		e.Code = CodeUnavailable
		e.Problem, e.Cure = fmt.Sprintf("the connection to the daemon broke: %s", e.Problem), "see whether it runs, and what its log says"
	}
	return e
}

// unary makes a call that has one answer.
func unary[Req, Res any](ctx context.Context, call func(context.Context, *connect.Request[Req]) (*connect.Response[Res], error), req *Req) (*Res, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	res, err := call(ctx, connect.NewRequest(req))
	if err != nil {
		return nil, fault(ctx, err)
	}
	return res.Msg, nil
}

// Status asks for all that the data plane has.
func (c *Client) Status(ctx context.Context) (*remorav1.GetStatusResponse, error) {
	return unary(ctx, c.control.GetStatus, &remorav1.GetStatusRequest{})
}

// Drain begins a drain.
func (c *Client) Drain(ctx context.Context, req *remorav1.DrainRequest) (*remorav1.DrainResponse, error) {
	return unary(ctx, c.control.Drain, req)
}

// Drains asks for all drains.
func (c *Client) Drains(ctx context.Context) (*remorav1.ListDrainsResponse, error) {
	return unary(ctx, c.control.ListDrains, &remorav1.ListDrainsRequest{})
}

// Undrain ends a drain.
func (c *Client) Undrain(ctx context.Context, req *remorav1.UndrainRequest) (*remorav1.UndrainResponse, error) {
	return unary(ctx, c.control.Undrain, req)
}

// Held asks what is refused and held back of what dynamic sources say.
func (c *Client) Held(ctx context.Context) (*remorav1.GetHeldResponse, error) {
	return unary(ctx, c.control.GetHeld, &remorav1.GetHeldRequest{})
}

// Freeze keeps the backends of a service as they are.
func (c *Client) Freeze(ctx context.Context, req *remorav1.FreezeRequest) (*remorav1.FreezeResponse, error) {
	return unary(ctx, c.control.Freeze, req)
}

// Unfreeze ends a freeze.
func (c *Client) Unfreeze(ctx context.Context, req *remorav1.UnfreezeRequest) (*remorav1.UnfreezeResponse, error) {
	return unary(ctx, c.control.Unfreeze, req)
}

// Accept lets what is held of a service through.
func (c *Client) Accept(ctx context.Context, req *remorav1.AcceptRequest) (*remorav1.AcceptResponse, error) {
	return unary(ctx, c.control.Accept, req)
}

// Explain asks what becomes of a packet, or which flows reach a backend.
func (c *Client) Explain(ctx context.Context, req *remorav1.ExplainRequest) (*remorav1.ExplainResponse, error) {
	return unary(ctx, c.control.Explain, req)
}

// DrainNode takes the balancer out.
func (c *Client) DrainNode(ctx context.Context) error {
	_, err := unary(ctx, c.control.DrainNode, &remorav1.DrainNodeRequest{})
	return err
}

// UndrainNode takes it in again.
func (c *Client) UndrainNode(ctx context.Context) error {
	_, err := unary(ctx, c.control.UndrainNode, &remorav1.UndrainNodeRequest{})
	return err
}

// WatchDrain calls each with the state of the drains, at once and whenever it changes, until none
// runs any more or each fails, whose error it returns.
func (c *Client) WatchDrain(ctx context.Context, req *remorav1.WatchDrainRequest, each func(*remorav1.WatchDrainResponse) error) error {
	ctx, cancel := context.WithCancel(ctx) // ends the stream if each fails
	defer cancel()
	stream, err := c.control.WatchDrain(ctx, connect.NewRequest(req))
	return receive(ctx, stream, err, each)
}

// ExportState writes the document to w. What was written before an error is of no use.
func (c *Client) ExportState(ctx context.Context, w io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.control.ExportState(ctx, connect.NewRequest(&remorav1.ExportStateRequest{}))
	return receive(ctx, stream, err, func(m *remorav1.ExportStateResponse) error {
		_, err := w.Write(m.Part)
		return err
	})
}

// receive calls each with what comes, and ends the stream.
func receive[Res any](ctx context.Context, stream *connect.ServerStreamForClient[Res], err error, each func(*Res) error) error {
	if err != nil {
		return fault(ctx, err)
	}
	defer stream.Close()
	for stream.Receive() {
		if err := each(stream.Msg()); err != nil {
			return err
		}
	}
	if err := stream.Err(); err != nil {
		return fault(ctx, err)
	}
	return nil
}

// ImportState sends the document that r has, to the end. If r fails, the daemon changes nothing.
func (c *Client) ImportState(ctx context.Context, r io.Reader) (*remorav1.ImportStateResponse, error) {
	ctx, cancel := context.WithCancel(ctx) // if r fails
	defer cancel()
	stream := c.control.ImportState(ctx)
	part := make([]byte, partBytes)
	for {
		n, readErr := io.ReadFull(r, part)
		atEnd := readErr == io.EOF || readErr == io.ErrUnexpectedEOF
		if readErr != nil && !atEnd {
			return nil, readErr
		}
		// If the daemon has answered already, its answer says why.
		if sendErr := stream.Send(&remorav1.ImportStateRequest{Part: part[:n]}); sendErr != nil || atEnd {
			break
		}
	}
	res, err := stream.CloseAndReceive()
	if err != nil {
		return nil, fault(ctx, err)
	}
	return res.Msg, nil
}
