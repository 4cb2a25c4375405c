// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"fmt"
	"time"
)

// Result is the outcome of one probe.
type Result struct {
	// Reason is OK if the server passed.
	Reason Reason
	// Detail is a sentence for people; it may be empty if the server passed.
	Detail string
	// Duration is the time from the start of the probe to its outcome.
	Duration time.Duration
	// Weight is what the server asks for, in percent of its configured weight, 0 to 100. It counts
	// only if HasWeight.
	Weight    int
	HasWeight bool
}

// OK tells whether the server passed.
func (r Result) OK() bool { return r.Reason == OK }

// Conclusive tells whether the result says anything about the server.
func (r Result) Conclusive() bool { return r.Reason != Local && r.Reason != Cancelled }

func (r Result) String() string {
	if r.Detail == "" {
		return r.Reason.String()
	}
	return fmt.Sprintf("%s: %s", r.Reason, r.Detail)
}

// Reason says why a probe ended as it did. The names are stable.
type Reason uint8

// The reasons.
const (
	// OK: the server passed.
	OK Reason = iota
	// Local: this host could not ask (no file descriptor left, no permission, ...). It says
	// nothing about the server.
	Local
	// Cancelled: the probe was called off before it had a result.
	Cancelled

	// Timeout: nothing came back before the deadline: no connection, no datagram, no end.
	Timeout
	// NoAnswer: the connection was made, but the whole answer did not come before the deadline.
	NoAnswer
	// Refused: the server's kernel said that nobody listens.
	Refused
	// Reset: the connection was made and then reset.
	Reset
	// ClosedEarly: the connection was made and then closed without a whole answer.
	ClosedEarly
	// Unreachable: a router or the server's kernel said so, or there is no route.
	Unreachable
	// TooBig: a packet of the asked size does not fit the path.
	TooBig

	// TLSName: the certificate is for another name.
	TLSName
	// TLSExpired: the certificate is expired or not valid yet.
	TLSExpired
	// TLSUntrusted: the certificate is from an unknown authority.
	TLSUntrusted
	// TLSHandshake: any other failure of the handshake; the server may not speak TLS.
	TLSHandshake

	// BadStatus: the HTTP status is not one of the expected.
	BadStatus
	// BadHeader: an HTTP header is missing or not as expected.
	BadHeader
	// BadBody: the HTTP body, or the UDP answer, is not as expected.
	BadBody
	// BadAnswer: the answer breaks its protocol.
	BadAnswer
	// NotServing: gRPC health says NOT_SERVING, or does not know the service.
	NotServing
	// ServFail: DNS rcode SERVFAIL.
	ServFail
	// BadRcode: another DNS rcode than expected.
	BadRcode
	// BadRecord: the expected DNS record is not in the answer.
	BadRecord
	// ExitStatus: the command ended with another exit status than 0, or by a signal.
	ExitStatus

	reasonLen
)

var reasonNames = [reasonLen]string{
	"ok", "local", "cancelled",
	"timeout", "no_answer", "refused", "reset", "closed_early", "unreachable", "too_big",
	"tls_name", "tls_expired", "tls_untrusted", "tls_handshake",
	"bad_status", "bad_header", "bad_body", "bad_answer", "not_serving", "servfail", "bad_rcode", "bad_record",
	"exit_status",
}

func (r Reason) String() string {
	if r < reasonLen {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// reached tells that an answer of the service came back, whatever it said.
func (r Reason) reached() bool { return r == OK || r >= TLSName && r <= BadRecord }

// tls tells that the failure is one of TLS.
func (r Reason) tls() bool { return r >= TLSName && r <= TLSHandshake }
