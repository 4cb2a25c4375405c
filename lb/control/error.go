// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"errors"
	"slices"

	"connectrpc.com/connect"

	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
)

// Error is what a call of the API answers when it cannot do what it was asked, on both sides of the
// socket.
type Error struct {
	Code Code
	// Object is what it is about: a VIP, a backend, a field of the request. May be empty.
	Object string
	// Problem is a whole message: it names what it is about.
	Problem string
	// Cure says what the caller can do. May be empty.
	Cure string
}

func (e *Error) Error() string {
	if e.Cure == "" {
		return e.Problem
	}
	return e.Problem + "; " + e.Cure
}

// Code is the kind of an Error.
type Code uint8

// The codes; the API has the same.
const (
	// CodeInternal is a fault of the daemon.
	CodeInternal Code = iota
	// CodeInvalid is a request that says something that cannot be.
	CodeInvalid
	// CodeNotFound is a VIP or a backend that is not there.
	CodeNotFound
	// CodeRefused is what is impossible in the daemon's present state.
	CodeRefused
	// CodeUnavailable is a daemon that is not there, stops, or cannot read its data plane.
	CodeUnavailable
	// CodeExhausted is too many calls at a time, or too long a message.
	CodeExhausted
	// CodeDenied is a caller that may not use the socket.
	CodeDenied
	// CodeLate is a call that took too long.
	CodeLate
	// CodeCanceled is a call that its caller gave up.
	CodeCanceled
)

// wireCodes are the codes as connect has them.
var wireCodes = [...]connect.Code{
	CodeInternal:    connect.CodeInternal,
	CodeInvalid:     connect.CodeInvalidArgument,
	CodeNotFound:    connect.CodeNotFound,
	CodeRefused:     connect.CodeFailedPrecondition,
	CodeUnavailable: connect.CodeUnavailable,
	CodeExhausted:   connect.CodeResourceExhausted,
	CodeDenied:      connect.CodePermissionDenied,
	CodeLate:        connect.CodeDeadlineExceeded,
	CodeCanceled:    connect.CodeCanceled,
}

// wire is the error as it is sent.
func (e *Error) wire() *connect.Error {
	code := connect.CodeInternal
	if int(e.Code) < len(wireCodes) {
		code = wireCodes[e.Code]
	}
	ce := connect.NewError(code, errors.New(e.Problem))
	if e.Object == "" && e.Cure == "" {
		return ce
	}
	// A detail fails only if it is no message.
	if d, err := connect.NewErrorDetail(&remorav1.ErrorInfo{Object: e.Object, Cure: e.Cure}); err == nil {
		ce.AddDetail(d)
	}
	return ce
}

// fromWire is the error as it was sent. Codes that this package does not send are internal.
func fromWire(ce *connect.Error) *Error {
	e := &Error{Problem: ce.Message()}
	if i := slices.Index(wireCodes[:], ce.Code()); i >= 0 {
		e.Code = Code(i)
	}
	for _, d := range ce.Details() {
		m, err := d.Value()
		if info, ok := m.(*remorav1.ErrorInfo); err == nil && ok {
			e.Object, e.Cure = info.Object, info.Cure
		}
	}
	return e
}
