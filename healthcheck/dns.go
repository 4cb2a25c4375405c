// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/miekg/dns"
)

// DNS is a probe that makes one query with recursion desired.
type DNS struct {
	// Name is the name to ask for, with or without the dot at its end.
	Name string
	// Type is the type to ask for, such as AAAA. Default: A.
	Type string
	// TCP asks over TCP. Default: UDP, without EDNS.
	TCP bool
	// Rcode is the expected response code. Default: NOERROR.
	Rcode string
	// Answer, if set, is the data of a record of the type that must be in the answer, in the form
	// of zone files: 192.0.2.1, or 10 mail.example.com.
	Answer string
}

// Validate implements Kind.
func (c DNS) Validate() error {
	var errs []error
	if _, ok := dns.IsDomainName(c.Name); c.Name == "" || !ok {
		errs = append(errs, fmt.Errorf("Name: %q is not a domain name", c.Name))
	}
	if _, ok := dns.StringToType[c.Type]; c.Type != "" && !ok {
		errs = append(errs, fmt.Errorf("Type: %q is not a record type", c.Type))
	}
	if _, ok := dns.StringToRcode[c.Rcode]; c.Rcode != "" && !ok {
		errs = append(errs, fmt.Errorf("Rcode: %q is not a response code", c.Rcode))
	}
	return errors.Join(errs...)
}

// Probe implements Kind.
func (c DNS) Probe() (Probe, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("make DNS probe: %v", err)
	}
	return &probe{kind: c, ask: c.ask}, nil
}

func (c DNS) ask(ctx context.Context, t Target) (answer, error) {
	dial := t.dialUDP
	if c.TCP {
		dial = func(ctx context.Context) (net.Conn, func(), error) { return t.dialTCP(ctx, nil) }
	}
	raw, release, err := dial(ctx)
	if err != nil {
		return answer{}, err
	}
	defer release()
	conn := &dns.Conn{Conn: raw}
	query := c.query()
	if err := conn.WriteMsg(query); err != nil {
		return answer{}, c.readFailure("send the query", err)
	}
	reply, err := c.receive(conn, query)
	if err != nil {
		return answer{}, err
	}
	return answer{}, c.judge(reply)
}

func (c DNS) query() *dns.Msg {
	qtype := dns.TypeA
	if c.Type != "" {
		qtype = dns.StringToType[c.Type]
	}
	return new(dns.Msg).SetQuestion(dns.Fqdn(c.Name), qtype)
}

// receive reads until the reply to the query comes. Over UDP, what is no reply to it is not heard:
// anybody can send that.
func (c DNS) receive(conn *dns.Conn, query *dns.Msg) (*dns.Msg, error) {
	for {
		reply, err := conn.ReadMsg()
		var broken *net.OpError
		matches := err == nil && reply.Id == query.Id && reply.Response && len(reply.Question) == 1 &&
			strings.EqualFold(reply.Question[0].Name, query.Question[0].Name) && reply.Question[0].Qtype == query.Question[0].Qtype
		switch {
		case matches:
			return reply, nil
		case errors.As(err, &broken), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil, c.readFailure("read the reply", err)
		case c.TCP && err != nil:
			return nil, fail(BadAnswer, "read the reply: %v", err)
		case c.TCP:
			return nil, fail(BadAnswer, "the reply is not to the query")
		}
	}
}

// readFailure: without a connection, silence has only one name.
func (c DNS) readFailure(what string, err error) error {
	if c.TCP {
		return awaiting(what, err)
	}
	return during(what, err)
}

func (c DNS) judge(reply *dns.Msg) error {
	want := dns.RcodeSuccess
	if c.Rcode != "" {
		want = dns.StringToRcode[c.Rcode]
	}
	if reply.Rcode != want {
		reason := BadRcode
		if reply.Rcode == dns.RcodeServerFailure {
			reason = ServFail
		}
		return fail(reason, "the rcode is %s, not %s", dns.RcodeToString[reply.Rcode], dns.RcodeToString[want])
	}
	if c.Answer == "" {
		return nil
	}
	for _, record := range reply.Answer {
		data := strings.TrimPrefix(record.String(), record.Header().String())
		if record.Header().Rrtype == reply.Question[0].Qtype && strings.EqualFold(data, c.Answer) {
			return nil
		}
	}
	return fail(BadRecord, "%q is not among the %d records of the answer", c.Answer, len(reply.Answer))
}
