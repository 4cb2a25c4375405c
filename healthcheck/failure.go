// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// failure is an error whose reason is known.
type failure struct {
	reason Reason
	text   string
}

func (f *failure) Error() string { return f.text }

// fail makes a failure.
func fail(r Reason, format string, args ...any) error {
	return &failure{r, fmt.Sprintf(format, args...)}
}

// during says what was being done when err came.
func during(what string, err error) error {
	if errors.As(err, new(*failure)) {
		return err
	}
	return &failure{classify(err), what + ": " + short(err)}
}

// awaiting is during for what happens after the connection was made.
func awaiting(what string, err error) error {
	if classify(err) == Timeout {
		return fail(NoAnswer, "%s: connected, but no whole answer in time", what)
	}
	return during(what, err)
}

// failed makes a result of the error that ended a probe. Once the context was cancelled the error
// is only its consequence.
func failed(ctx context.Context, err error) Result {
	if errors.Is(ctx.Err(), context.Canceled) {
		return Result{Reason: Cancelled, Detail: "called off"}
	}
	var f *failure
	if errors.As(err, &f) {
		return Result{Reason: f.reason, Detail: f.text}
	}
	return Result{Reason: classify(err), Detail: short(err)}
}

// classify gives the reason of errors of the kernel, of TLS and of reading.
func classify(err error) Reason {
	var errno unix.Errno
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return Timeout
	case errors.As(err, &errno):
		return classifyErrno(errno)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return ClosedEarly
	}
	return classifyTLS(err)
}

func classifyErrno(errno unix.Errno) Reason {
	switch errno {
	case unix.ECONNREFUSED:
		return Refused
	case unix.ECONNRESET, unix.EPIPE, unix.ECONNABORTED:
		return Reset
	case unix.ETIMEDOUT:
		return Timeout
	// ENOPROTOOPT and EPROTO are what the kernel makes of ICMP protocol unreachable and parameter
	// problem. It makes EACCES of ICMPv6 "prohibited", but also of a privilege that we lack.
	case unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EHOSTDOWN, unix.ENETDOWN, unix.ENONET, unix.ENOPROTOOPT, unix.EPROTO:
		return Unreachable
	case unix.EMSGSIZE:
		return TooBig
	}
	return Local
}

func classifyTLS(err error) Reason {
	var (
		name      x509.HostnameError
		authority x509.UnknownAuthorityError
		invalid   x509.CertificateInvalidError
		verify    *tls.CertificateVerificationError
		alert     tls.AlertError
		record    tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &name):
		return TLSName
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return TLSExpired
	case errors.As(err, &authority), errors.As(err, &invalid), errors.As(err, &verify):
		return TLSUntrusted
	case errors.As(err, &alert), errors.As(err, &record):
		return TLSHandshake
	}
	return Local
}

// short leaves out what is known anyway: the addresses and the system call.
func short(err error) string {
	var errno unix.Errno
	switch {
	case errors.As(err, &errno):
		return errno.Error()
	case classify(err) == Timeout:
		return "nothing came back in time"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the server closed the connection"
	}
	return err.Error()
}
