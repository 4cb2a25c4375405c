// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"

	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
)

// partBytes is the length of the parts of a document, but the last.
const partBytes = 64 << 10

// ExportState implements the API.
func (c *calls) ExportState(ctx context.Context, _ *connect.Request[remorav1.ExportStateRequest], stream *connect.ServerStream[remorav1.ExportStateResponse]) error {
	ctx, end, err := c.beginTransfer(ctx)
	if err != nil {
		return c.fail(ctx, "ExportState", err)
	}
	defer end()
	w := &partWriter{pace: paceOf(ctx), bound: c.bounds.part, buf: make([]byte, 0, partBytes), send: func(part []byte) error {
		return stream.Send(&remorav1.ExportStateResponse{Part: part})
	}}
	if err := c.daemon.ExportState(ctx, w); err != nil {
		return c.fail(ctx, "ExportState", err)
	}
	return w.flush()
}

// ImportState implements the API.
func (c *calls) ImportState(ctx context.Context, stream *connect.ClientStream[remorav1.ImportStateRequest]) (*connect.Response[remorav1.ImportStateResponse], error) {
	ctx, end, err := c.beginTransfer(ctx)
	if err != nil {
		return nil, c.fail(ctx, "ImportState", err)
	}
	defer end()
	im, err := c.daemon.ImportState(ctx, &partReader{pace: paceOf(ctx), bounds: c.bounds, stream: stream})
	if err != nil {
		return nil, c.fail(ctx, "ImportState", err)
	}
	c.asked(ctx, "import", "rings", im.Rings, "rings_skipped", im.RingsSkipped, "flows", im.Flows, "flows_skipped", im.FlowsSkipped)
	return connect.NewResponse(importedToAPI(im)), nil
}

// beginTransfer lets one export or import through at a time, since each may hold a whole document. It
// is given up when the server stops.
func (c *calls) beginTransfer(ctx context.Context) (_ context.Context, end func(), err error) {
	if !c.transfer.TryAcquire(1) {
		return ctx, nil, &Error{Code: CodeExhausted, Problem: "another export or import is under way", Cure: "try again when it has ended"}
	}
	pace := paceOf(ctx)
	pace.bound(0) // each part has a bound of its own
	ctx, cancel := context.WithTimeout(ctx, c.bounds.transfer)
	unhook := context.AfterFunc(c.running, cancel)
	return ctx, func() {
		unhook()
		cancel()
		pace.bound(c.bounds.answer)
		c.transfer.Release(1)
	}, nil
}

// partWriter sends what is written in parts.
type partWriter struct {
	pace  pace
	bound time.Duration // of a part
	buf   []byte
	send  func(part []byte) error
}

// Write implements io.Writer.
func (w *partWriter) Write(p []byte) (n int, err error) {
	for n < len(p) {
		k := copy(w.buf[len(w.buf):cap(w.buf)], p[n:])
		w.buf = w.buf[:len(w.buf)+k]
		n += k
		if len(w.buf) == cap(w.buf) {
			if err := w.flush(); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// flush sends what is left.
func (w *partWriter) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	w.pace.bound(w.bound)
	defer w.pace.bound(0)
	err := w.send(w.buf)
	w.buf = w.buf[:0]
	return err
}

// partReader reads a stream of parts. It ends with io.EOF only if the stream ended as it should.
type partReader struct {
	pace   pace
	bounds bounds
	stream *connect.ClientStream[remorav1.ImportStateRequest]
	part   []byte
	total  int
}

// Read implements io.Reader.
func (r *partReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(r.part) == 0 {
		if err := r.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.part)
	r.part = r.part[n:]
	return n, nil
}

func (r *partReader) next() error {
	r.pace.bound(r.bounds.part)
	defer r.pace.bound(0)
	if !r.stream.Receive() {
		if err := r.stream.Err(); err != nil {
			return &Error{Code: CodeInvalid, Problem: fmt.Sprintf("the document broke off after %d bytes: %v", r.total, err)}
		}
		return io.EOF
	}
	r.part = r.stream.Msg().Part
	if r.total += len(r.part); r.total > r.bounds.document {
		return &Error{Code: CodeExhausted, Problem: fmt.Sprintf("the document has more than %d bytes", r.bounds.document)}
	}
	return nil
}
