// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// HTTP is a probe that makes one HTTP/1.1 request, over TLS if TLS is set. Redirections are not
// followed.
type HTTP struct {
	// Method is the request's method. Default: GET.
	Method string
	// Path is the request's path and query. Default: /.
	Path string
	// Host is the Host header. Default: the target's address and port.
	Host string
	// Headers are further headers of the request.
	Headers map[string]string
	// TLS makes it HTTPS.
	TLS *TLS
	// Status are the accepted status codes. Default: 200 to 299.
	Status []StatusRange
	// ExpectHeaders are headers of the answer, each with a regular expression (RE2) that one of its
	// values must match.
	ExpectHeaders map[string]string
	// ExpectBody is a regular expression (RE2) that the first BodyLimit bytes of the body must
	// match. Default: the body is not looked at.
	ExpectBody string
	// BodyLimit is how much of the body is read, in bytes, up to 16 MiB. Default: 64 KiB.
	BodyLimit int
	// WeightHeader is a header whose value is the weight that the server asks for: a number from 0
	// to 100 with or without a percent sign. WeightBody takes it from the first word of the body.
	// An answer without such a number passes without a weight.
	WeightHeader string
	WeightBody   bool
}

// StatusRange is a range of HTTP status codes, both ends included.
type StatusRange struct{ First, Last int }

const (
	defaultBodyLimit = 64 << 10
	maxBodyLimit     = 16 << 20
	// maxInformational is how many 1xx answers may come before the real one.
	maxInformational = 8
)

// Validate implements Kind.
func (c HTTP) Validate() error {
	_, err := c.compile()
	return err
}

// Probe implements Kind.
func (c HTTP) Probe() (Probe, error) {
	q, err := c.compile()
	if err != nil {
		return nil, fmt.Errorf("make HTTP probe: %v", err)
	}
	var files [][]byte
	if q.tls, files, err = c.TLS.load("http/1.1"); err != nil {
		return nil, fmt.Errorf("make HTTP probe: %v", err)
	}
	return &probe{kind: c, files: files, ask: q.ask}, nil
}

// httpQuestion is an HTTP that was checked and compiled.
type httpQuestion struct {
	request *http.Request
	tls     *tls.Config
	status  []StatusRange
	// headers are sorted, so that the same answer always has the same problem.
	headers    []headerMatch
	body       *regexp.Regexp
	bodyLimit  int64
	weightFrom string
	weightBody bool
}

type headerMatch struct {
	name    string
	pattern *regexp.Regexp
}

// compile reports all problems.
func (c HTTP) compile() (*httpQuestion, error) {
	q := &httpQuestion{status: c.Status, bodyLimit: int64(c.BodyLimit), weightFrom: c.WeightHeader, weightBody: c.WeightBody}
	if len(q.status) == 0 {
		q.status = []StatusRange{{200, 299}}
	}
	if q.bodyLimit == 0 {
		q.bodyLimit = defaultBodyLimit
	}
	errs := []error{c.TLS.validate(), c.compileRequest(q), c.compileMatches(q)}
	for _, s := range q.status {
		if s.First < 200 || s.Last > 599 || s.First > s.Last {
			errs = append(errs, fmt.Errorf("Status: %d to %d is no range within 200 to 599", s.First, s.Last))
		}
	}
	if q.bodyLimit < 0 || q.bodyLimit > maxBodyLimit {
		errs = append(errs, fmt.Errorf("BodyLimit: %d is not from 0 to %d", c.BodyLimit, maxBodyLimit))
	}
	if c.WeightHeader != "" && c.WeightBody {
		errs = append(errs, errors.New("WeightHeader: is of no use with WeightBody"))
	}
	return q, errors.Join(errs...)
}

func (c HTTP) compileRequest(q *httpQuestion) error {
	path := c.Path
	if path == "" {
		path = "/"
	}
	u, err := url.ParseRequestURI(path)
	if err != nil || !strings.HasPrefix(path, "/") {
		return fmt.Errorf("Path: %q is not a path with or without a query", path)
	}
	// A name stands for the address, which only the target knows.
	u.Scheme, u.Host = "http", "target"
	q.request, err = http.NewRequest(c.Method, u.String(), nil)
	if err != nil {
		return fmt.Errorf("Method: %q cannot be used: %v", c.Method, err)
	}
	q.request.Close = true
	q.request.Host = c.Host
	q.request.Header.Set("User-Agent", "remora")
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		value := c.Headers[name]
		switch {
		case strings.EqualFold(name, "Host"):
			errs = append(errs, errors.New("Headers: the host has a field of its own"))
		case !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value):
			errs = append(errs, fmt.Errorf("Headers: %q with value %q is no header", name, value))
		}
		q.request.Header.Set(name, value)
	}
	if c.Host != "" && !validHost(c.Host) {
		errs = append(errs, fmt.Errorf("Host: %q is not a host with or without a port", c.Host))
	}
	return errors.Join(errs...)
}

func (c HTTP) compileMatches(q *httpQuestion) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(c.ExpectHeaders)) {
		pattern, err := regexp.Compile(c.ExpectHeaders[name])
		if err != nil {
			errs = append(errs, fmt.Errorf("ExpectHeaders: %q: %v", name, err))
		}
		q.headers = append(q.headers, headerMatch{name, pattern})
	}
	if c.ExpectBody != "" {
		var err error
		if q.body, err = regexp.Compile(c.ExpectBody); err != nil {
			errs = append(errs, fmt.Errorf("ExpectBody: %v", err))
		}
	}
	return errors.Join(errs...)
}

func (q *httpQuestion) ask(ctx context.Context, t Target) (answer, error) {
	raw, release, err := t.dialTCP(ctx, nil)
	if err != nil {
		return answer{}, err
	}
	defer release()
	request := *q.request
	if request.Host == "" {
		request.Host = t.Addr.String()
	}
	conn := io.ReadWriter(raw)
	if q.tls != nil {
		if conn, err = handshake(ctx, raw, q.tls, hostOf(request.Host)); err != nil {
			return answer{}, err
		}
	}
	if err := request.Write(conn); err != nil {
		return answer{}, awaiting("send the request", err)
	}
	response, err := readResponse(conn, &request)
	if err != nil {
		return answer{}, err
	}
	return q.judge(response)
}

func validHost(host string) bool {
	return httpguts.ValidHostHeader(host) && !strings.ContainsAny(host, "/ ")
}

// hostOf leaves out the port, if there is one.
func hostOf(host string) string {
	if a, err := netip.ParseAddrPort(host); err == nil {
		return a.Addr().String()
	}
	if name, _, ok := strings.Cut(host, ":"); ok && strings.Count(host, ":") == 1 {
		return name
	}
	return strings.Trim(host, "[]")
}

// readResponse reads up to the body of the first answer that is not informational.
func readResponse(conn io.Reader, request *http.Request) (*http.Response, error) {
	r := bufio.NewReader(conn)
	for range maxInformational {
		response, err := http.ReadResponse(r, request)
		if err != nil {
			return nil, readFailure("read the answer", err)
		}
		if response.StatusCode >= 200 {
			return response, nil
		}
	}
	return nil, fail(BadAnswer, "read the answer: more than %d informational ones", maxInformational)
}

// readFailure takes what is no error of the connection for one of the protocol.
func readFailure(what string, err error) error {
	if classify(err) == Local {
		return fail(BadAnswer, "%s: %v", what, err)
	}
	return awaiting(what, err)
}

// judge compares an answer with what is expected.
func (q *httpQuestion) judge(response *http.Response) (answer, error) {
	if !slices.ContainsFunc(q.status, func(s StatusRange) bool {
		return response.StatusCode >= s.First && response.StatusCode <= s.Last
	}) {
		return answer{}, fail(BadStatus, "the status is %q", response.Status)
	}
	for _, h := range q.headers {
		values := response.Header.Values(h.name)
		if !slices.ContainsFunc(values, h.pattern.MatchString) {
			return answer{}, fail(BadHeader, "header %s is %q, which does not match %q", h.name, values, h.pattern)
		}
	}
	if q.body == nil && !q.weightBody {
		return weigh(response.Header.Get(q.weightFrom), q.weightFrom != ""), nil
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, q.bodyLimit))
	if err != nil {
		return answer{}, readFailure("read the body", err)
	}
	if q.body != nil && !q.body.Match(body) {
		return answer{}, fail(BadBody, "the body, %s, does not match %q", excerpt(body), q.body)
	}
	if q.weightBody {
		word, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
		return weigh(firstWord(word), true), nil
	}
	return weigh(response.Header.Get(q.weightFrom), q.weightFrom != ""), nil
}

func firstWord(s string) string {
	if words := strings.Fields(s); len(words) > 0 {
		return words[0]
	}
	return ""
}

// weigh reads the weight that a server asks for, if it was asked.
func weigh(text string, asked bool) answer {
	if !asked {
		return answer{}
	}
	n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(text), "%"))
	if err != nil || n < 0 || n > 100 {
		return answer{detail: fmt.Sprintf("%s is no weight from 0 to 100", excerpt([]byte(text)))}
	}
	return answer{weight: n, hasWeight: true}
}

// excerpt quotes the beginning of what a server sent.
func excerpt(b []byte) string {
	const longest = 80
	if len(b) > longest {
		return strconv.Quote(string(b[:longest])) + "..."
	}
	return strconv.Quote(string(b))
}
