// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxBody is the longest answer that is read, in bytes: some 200 000 instances.
const maxBody = 256 << 20

// transport sends the requests of one client. It adds the token and takes down what the client does
// not tell of a response. Its methods may be called concurrently.
type transport struct {
	inner *http.Transport
	token *token
}

// exchange is what the client does not tell of a response. It belongs to the one request whose
// context carries it, see withExchange.
type exchange struct {
	status     int
	retryAfter time.Duration
	// anonymous tells that no token was sent.
	anonymous bool
	// body, if not nil, takes the body of a good response, which the client then finds to be an
	// empty list: its way of reading JSON takes several times as long as ours.
	body *bytes.Buffer
}

type exchangeKey struct{}

func withExchange(ctx context.Context, x *exchange) context.Context {
	return context.WithValue(ctx, exchangeKey{}, x)
}

// exchangeOf is the exchange that the context carries, or nil.
func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	secret, err := t.token.get()
	if err != nil {
		return nil, err
	}
	req = req.Clone(req.Context())
	req.Header.Del("X-Consul-Token")
	if secret != "" {
		req.Header.Set("X-Consul-Token", secret)
	}
	resp, err := t.inner.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body = http.MaxBytesReader(nil, resp.Body, maxBody)
	if x := exchangeOf(req.Context()); x != nil {
		x.status, x.anonymous = resp.StatusCode, secret == ""
		x.retryAfter = retryAfter(resp.Header.Get("Retry-After"), time.Now())
		if err := x.receive(resp); err != nil {
			return nil, errors.Join(err, resp.Body.Close())
		}
	}
	return resp, nil
}

// receive checks a response and takes its body if that is wanted.
func (x *exchange) receive(resp *http.Response) error {
	if err := checkContentType(resp); err != nil {
		return err
	}
	if x.body == nil || resp.StatusCode != http.StatusOK {
		return nil
	}
	if _, err := x.body.ReadFrom(resp.Body); err != nil {
		return fmt.Errorf("read body: %w", err)
	}
	if err := resp.Body.Close(); err != nil {
		return fmt.Errorf("close body: %v", err)
	}
	resp.Body = io.NopCloser(strings.NewReader("[]"))
	return nil
}

// checkContentType refuses what something between us and Consul made up, such as the error page of
// a proxy. It has to be done here: the client overwrites the header.
func checkContentType(resp *http.Response) error {
	if resp.StatusCode != http.StatusOK {
		return nil
	}
	text := resp.Header.Get("Content-Type")
	if kind, _, err := mime.ParseMediaType(text); err != nil || kind != "application/json" {
		return fmt.Errorf("content type %q is not application/json", text)
	}
	return nil
}

// retryAfter reads the header of that name: seconds, or a date. 0 means that there is none.
func retryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if date, err := http.ParseTime(text); err == nil {
		return max(0, date.Sub(now))
	}
	return 0
}
