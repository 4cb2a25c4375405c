// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/semaphore"

	"github.com/remora-lb/remora/lb/api/remora/v1/remorav1connect"
)

const (
	// maxCalls bounds the calls at one time, but those that watch, which last as long as their callers like.
	maxCalls = 128
	// maxWatches bounds the latter, so that they leave places for calls.
	maxWatches = 64
	// maxMessageBytes bounds one message. Only parts of documents are longer than a line; as JSON, a
	// part has a third more.
	maxMessageBytes = 256 << 10
)

// peerKey is the key of a call's peer in its context, paceKey that of its pace.
type (
	peerKey struct{}
	paceKey struct{}
)

// handler is the API as an HTTP handler, with its bounds.
type handler struct {
	api     http.Handler
	errors  *connect.ErrorWriter
	log     *slog.Logger
	who     access
	bounds  bounds
	calls   *semaphore.Weighted
	watches *semaphore.Weighted
	// running ends when the server is to stop, by stop or otherwise, and with it the streams.
	running context.Context
	stop    context.CancelFunc
}

// newHandler returns a handler whose streams end when running does.
func newHandler(running context.Context, cfg Config, who access, b bounds) *handler {
	h := &handler{log: cfg.Log, who: who, bounds: b, calls: semaphore.NewWeighted(maxCalls), watches: semaphore.NewWeighted(maxWatches)}
	h.running, h.stop = context.WithCancel(running)
	options := []connect.HandlerOption{
		connect.WithCodec(jsonCodec{"json"}),
		connect.WithCodec(jsonCodec{"json; charset=utf-8"}),
		// On one machine there is nothing to gain from it.
		connect.WithCompression("gzip", nil, nil),
		connect.WithReadMaxBytes(maxMessageBytes),
		connect.WithRecover(h.recovered),
	}
	h.errors = connect.NewErrorWriter(options...)
	path, api := remorav1connect.NewControlHandler(newCalls(h.running, cfg, b), options...)
	mux := http.NewServeMux()
	mux.Handle(path, api)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "the API is at POST "+path+"METHOD, for example "+remorav1connect.ControlGetStatusProcedure, http.StatusNotFound)
	})
	h.api = mux
	return h
}

// ServeHTTP implements http.Handler. The request's context must have a peer.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p := r.Context().Value(peerKey{}).(peer)
	if !h.who.allows(p) {
		h.refuse(w, r, h.who.refusal(p))
		return
	}
	places, full := h.places(r)
	if !places.TryAcquire(1) {
		h.refuse(w, r, full)
		return
	}
	defer places.Release(1)
	pace := pace{http.NewResponseController(w)}
	pace.bound(h.bounds.call + h.bounds.answer)
	defer pace.bound(h.bounds.answer) // net/http reads what is left of the request
	h.api.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), paceKey{}, pace)))
}

// places are those for calls of this kind, and what is said when none is left.
func (h *handler) places(r *http.Request) (places *semaphore.Weighted, full *Error) {
	switch r.URL.Path {
	case remorav1connect.ControlWatchDrainProcedure, remorav1connect.ControlWatchEventsProcedure:
		return h.watches, &Error{Code: CodeExhausted, Problem: fmt.Sprintf("%d callers watch drains or follow events, and more may not at a time", maxWatches),
			Cure: "end one of them; calls that do not watch are still answered"}
	}
	return h.calls, &Error{Code: CodeExhausted, Problem: "too many calls at a time", Cure: "try again later"}
}

// refuse answers without a look at the request's body, and ends the connection.
func (h *handler) refuse(w http.ResponseWriter, r *http.Request, e *Error) {
	pace{http.NewResponseController(w)}.bound(h.bounds.answer)
	w.Header().Set("Connection", "close")
	// An error means that the caller has gone.
	_ = h.errors.Write(w, r, e.wire())
}

// wait returns when no call is left. Later calls are refused.
func (h *handler) wait() {
	// It fails only if the context ends.
	_ = h.calls.Acquire(context.Background(), maxCalls)
	_ = h.watches.Acquire(context.Background(), maxWatches)
}

// recovered makes an answer of a panic.
func (h *handler) recovered(_ context.Context, spec connect.Spec, _ http.Header, fault any) error {
	h.log.Error("control API: panic", "call", spec.Procedure, "panic", fault, "stack", string(debug.Stack()))
	return (&Error{Code: CodeInternal, Problem: "the daemon has a fault", Cure: "its log says where: please report it"}).wire()
}

// pace bounds how long a call may read and write. Where the connection cannot be bounded, as in some
// tests, nothing is.
type pace struct{ rc *http.ResponseController }

func paceOf(ctx context.Context) pace { return ctx.Value(paceKey{}).(pace) }

// bound lets all reads and writes from now on take that long together; 0 ends the bound.
func (p pace) bound(d time.Duration) {
	var until time.Time
	if d > 0 {
		until = time.Now().Add(d)
	}
	_, _ = p.rc.SetReadDeadline(until), p.rc.SetWriteDeadline(until)
}
