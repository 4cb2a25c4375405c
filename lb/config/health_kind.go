// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/hex"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// HTTPCheck is an HTTP request and what its answer must be.
type HTTPCheck struct {
	// Method and Path are the request's. Default GET and /.
	Method, Path string
	// Host is the Host header. Default the address and port that the probe goes to.
	Host string
	// Headers are further ones of the request. Default none.
	Headers map[string]string
	// Status are the accepted ones. Default 200 to 299.
	Status []StatusRange
	// ExpectHeaders are regular expressions that headers of the answer must match, ExpectBody one
	// for the body. Default none.
	ExpectHeaders map[string]string
	ExpectBody    string
	// WeightHeader is a header of the answer that has the weight that the server asks for, in
	// percent; WeightBody takes it from the body. Default neither.
	WeightHeader string
	WeightBody   bool
}

// StatusRange is a range of HTTP status codes, both ends included, of 100 to 599.
type StatusRange struct{ First, Last int }

// TLSCheck is how a check speaks TLS.
type TLSCheck struct {
	// ServerName is sent and must be in the certificate. Default the host of the request.
	ServerName string
	// SkipVerify takes any certificate. Default false.
	SkipVerify bool
	// CAFile has the authorities to trust. Default the system's.
	CAFile string
	// CertFile and KeyFile are the client's certificate; both or neither.
	CertFile, KeyFile string
}

// GRPCCheck asks for a service by its name; empty for the server as a whole.
type GRPCCheck struct{ Service, Authority string }

// DNSCheck is a query and what its answer must be.
type DNSCheck struct {
	// Name is required. Type is by default A, Rcode NOERROR. Answer is the data of a record that
	// must be in the answer; default none.
	Name, Type, Rcode, Answer string
	// TCP asks over TCP. Default false: UDP.
	TCP bool
}

// UDPCheck is a datagram and what must be in the answer: text, or hexadecimal digits after "hex:".
type UDPCheck struct{ Send, Expect string }

// ExecCheck is a command, with an absolute path, and its arguments.
type ExecCheck struct {
	Command string
	Args    []string
}

func checkHTTPCheck(s httpCheckSection, r *report) HTTPCheck {
	c := HTTPCheck{Method: "GET", Path: "/", Host: s.host.value, ExpectBody: s.expectBody.value}
	if s.method.ok {
		c.Method = s.method.value
		if !isMadeOf(c.Method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") || c.Method == "" {
			r.add(s.method.place, "%s is not a method: expected one such as GET or HEAD", quote(s.method.text))
		}
	}
	if s.uri.ok {
		c.Path = s.uri.value
		if !strings.HasPrefix(c.Path, "/") {
			r.add(s.uri.place, "%s is not a path: expected one such as /health", quote(s.uri.text))
		}
	}
	c.Headers = checkHeaders(s.headers, false, r)
	c.ExpectHeaders = checkHeaders(s.expectHeaders, true, r)
	checkPattern(s.expectBody, c.ExpectBody, r)
	for _, f := range s.status.items {
		if status, ok := checkStatus(f, r); ok {
			c.Status = append(c.Status, status)
		}
	}
	switch header, isHeader := strings.CutPrefix(s.weightFrom.value, "header "); {
	case !s.weightFrom.ok:
	case isHeader && header != "":
		c.WeightHeader = header
	case s.weightFrom.value == "body":
		c.WeightBody = true
	default:
		r.add(s.weightFrom.place, "%s is not known: expected body, or header and its name", quote(s.weightFrom.text))
	}
	return c
}

// checkHeaders reads lines as in HTTP; the values of patterns are regular expressions.
func checkHeaders(lines list[field[string]], patterns bool, r *report) map[string]string {
	var headers map[string]string
	for _, f := range lines.items {
		if !f.ok {
			continue
		}
		name, value, ok := strings.Cut(f.value, ":")
		if name, value = strings.TrimSpace(name), strings.TrimSpace(value); !ok || name == "" {
			r.add(f.place, "%s is not a header: expected NAME: VALUE, in quotes", quote(f.text))
			continue
		}
		if patterns {
			checkPattern(f, value, r)
		}
		if headers == nil {
			headers = make(map[string]string)
		}
		headers[name] = value
	}
	return headers
}

func checkPattern(f field[string], pattern string, r *report) {
	if !f.ok {
		return
	}
	if _, err := regexp.Compile(pattern); err != nil {
		r.add(f.place, "%s is not a regular expression: expected one as in RE2", quote(pattern))
	}
}

func checkStatus(f field[string], r *report) (StatusRange, bool) {
	if !f.ok {
		return StatusRange{}, false
	}
	first, last, isRange := strings.Cut(f.value, "-")
	if !isRange {
		last = first
	}
	a, err := strconv.Atoi(first)
	b, err2 := strconv.Atoi(last)
	if err != nil || err2 != nil || a < 100 || b > 599 || a > b {
		r.add(f.place, "%s is no status: expected one of 100 to 599, or a range, in quotes, such as \"200-399\"", quote(f.text))
		return StatusRange{}, false
	}
	return StatusRange{a, b}, true
}

func checkTLSCheck(s tlsCheckSection, r *report) *TLSCheck {
	c := &TLSCheck{
		ServerName: s.serverName.value,
		SkipVerify: choose(r, s.verify, false, choice[bool]{"full", false}, choice[bool]{"none", true}),
		CAFile:     s.caFile.value, CertFile: s.certFile.value, KeyFile: s.keyFile.value,
	}
	if s.certFile.given != s.keyFile.given {
		r.add(s.place, "cert_file and key_file are only of use together: expected both or neither")
	}
	if c.SkipVerify && s.caFile.given {
		r.add(s.caFile.place, "has no effect with verify: none")
	}
	return c
}

func checkDNSCheck(s healthSection, r *report) DNSCheck {
	if !s.dns.name.given {
		r.add(s.field("dns").field("name"), "missing: expected the name to ask for")
	}
	return DNSCheck{
		Name: s.dns.name.value, Type: s.dns.kind.value, Rcode: s.dns.rcode.value, Answer: s.dns.answer.value,
		TCP: choose(r, s.dns.transport, false, choice[bool]{"udp", false}, choice[bool]{"tcp", true}),
	}
}

func checkUDPCheck(s udpCheckSection, r *report) UDPCheck {
	for _, f := range []field[string]{s.send, s.expect} {
		if digits, isHex := strings.CutPrefix(f.value, "hex:"); isHex {
			if _, err := hex.DecodeString(digits); err != nil {
				r.add(f.place, "%s is not hexadecimal: expected pairs of digits after hex:", quote(digits))
			}
		}
	}
	return UDPCheck{Send: s.send.value, Expect: s.expect.value}
}

func checkExecCheck(s healthSection, r *report) ExecCheck {
	c := ExecCheck{Command: s.exec.command.value}
	switch {
	case !s.exec.command.given:
		r.add(s.field("exec").field("command"), "missing: expected the absolute path of a command")
	case s.exec.command.ok && !path.IsAbs(c.Command):
		r.add(s.exec.command.place, "%s is not an absolute path: expected one such as /usr/local/bin/check", quote(s.exec.command.text))
	}
	for _, f := range s.exec.args.items {
		c.Args = append(c.Args, f.value)
	}
	return c
}
