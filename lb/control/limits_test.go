// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
	"github.com/remora-lb/remora/lb/event"
	"github.com/remora-lb/remora/test/require"
)

// rawClient speaks HTTP over connections of its own.
func rawClient(t *testing.T, socket string) *http.Client {
	t.Helper()
	var d net.Dialer
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return d.DialContext(ctx, "unix", socket)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

// TestManyClients: 50 clients at once, with calls of all kinds, sense and nonsense.
func TestManyClients(t *testing.T) {
	const clients, rounds = 50, 20
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	s := serve(t, &fakeDaemon{document: randomBytes(3 * partBytes)})
	var answers, refusals atomic.Int64
	var wg sync.WaitGroup
	for i := range clients {
		c, raw := s.client(t), rawClient(t, s.socket)
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		wg.Go(func() {
			for range rounds {
				err := anyCall(t.Context(), c, raw, s.socket, random)
				if err == nil {
					answers.Add(1)
				} else {
					refusals.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if answers.Load() == 0 || refusals.Load() == 0 {
		t.Errorf("%d answers, %d refusals", answers.Load(), refusals.Load())
	}
	if strings.Contains(s.log.String(), "panic") {
		t.Errorf("the log is\n%s", s.log)
	}
	got, err := s.client(t).Status(t.Context())
	if err != nil || len(got.Services) != 2 {
		t.Errorf("after that, status is %v, %v", got, err)
	}
}

// anyCall makes one call.
func anyCall(ctx context.Context, c *Client, raw *http.Client, socket string, random *rand.Rand) error {
	backends := []string{"10.20.0.11", "10.20.0.12", "10.9.9.9", "x", ""}
	backend := backends[random.IntN(len(backends))]
	switch random.IntN(8) {
	case 0:
		_, err := c.Drain(ctx, &remorav1.DrainRequest{Backend: backend})
		return err
	case 1:
		_, err := c.Undrain(ctx, &remorav1.UndrainRequest{Backend: backend})
		return err
	case 2:
		stop := fmt.Errorf("seen")
		err := c.WatchDrain(ctx, &remorav1.WatchDrainRequest{Backend: backend}, func(*remorav1.WatchDrainResponse) error { return stop })
		if err == stop {
			return nil
		}
		return err
	case 3:
		return c.ExportState(ctx, io.Discard)
	case 4:
		_, err := c.ImportState(ctx, bytes.NewReader(randomBytes(random.IntN(2*partBytes))))
		return err
	case 5:
		return post(ctx, raw, "Drain", "application/json", randomBytes(random.IntN(1000)))
	case 6:
		return hangUp(socket, randomBytes(random.IntN(200)))
	}
	_, err := c.Status(ctx)
	return err
}

// post makes a call with any body.
func post(ctx context.Context, c *http.Client, method, contentType string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://localhost/remora.v1.Control/"+method, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", contentType)
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, text)
	}
	return err
}

// hangUp sends what is no HTTP, or a part of it, and leaves.
func hangUp(socket string, text []byte) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write(text)
	return err
}

func TestLongMessages(t *testing.T) {
	s := serve(t, &fakeDaemon{})
	c := rawClient(t, s.socket)
	long := strings.Repeat("x", maxMessageBytes+1)
	require.ErrorSays(t, post(t.Context(), c, "Drain", "application/json", []byte(`{"vip":"`+long+`"}`)), "resource_exhausted")
	require.ErrorSays(t, post(t.Context(), c, "Drain", "application/proto", []byte(long)), "resource_exhausted")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://localhost/remora.v1.Control/GetStatus", strings.NewReader("{}"))
	require.NoError(t, err)
	req.Header.Set("X-Long", long)
	res, err := c.Do(req)
	require.NoError(t, err)
	res.Body.Close()
	if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a long header is answered with %s", res.Status)
	}
}

// TestManyCalls: one more than there may be at a time is refused, and later ones are not.
func TestManyCalls(t *testing.T) {
	var begun atomic.Int64
	end := make(chan struct{})
	s := serve(t, &fakeDaemon{status: func(context.Context) (Status, error) {
		begun.Add(1)
		<-end
		return Status{}, nil
	}})
	c := rawClient(t, s.socket)
	var wg sync.WaitGroup
	for range maxCalls {
		wg.Go(func() {
			if err := post(t.Context(), c, "GetStatus", "application/json", []byte("{}")); err != nil {
				t.Error(err)
			}
		})
	}
	await(t, "calls", func() bool { return begun.Load() == maxCalls })
	err := post(t.Context(), c, "GetStatus", "application/json", []byte("{}"))
	close(end)
	wg.Wait()
	require.ErrorSays(t, err, "resource_exhausted", "too many calls at a time")
	require.NoError(t, post(t.Context(), c, "GetStatus", "application/json", []byte("{}")))
}

// TestManyWatches: one more than there may be at a time is refused, and calls are answered all the same.
func TestManyWatches(t *testing.T) {
	s := serve(t, &fakeDaemon{}, withEvents(someEvent()))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var begun atomic.Int64
	var wg sync.WaitGroup
	for range maxWatches {
		c := s.client(t)
		wg.Go(func() {
			_ = c.WatchEvents(ctx, 0, func(*remorav1.WatchEventsResponse) error { // until ctx ends
				begun.Add(1)
				return nil
			})
		})
	}
	await(t, "watches", func() bool { return begun.Load() == maxWatches })
	c := s.client(t)
	watch := func() error {
		enough := errors.New("enough")
		return c.WatchEvents(t.Context(), 0, func(*remorav1.WatchEventsResponse) error { return enough })
	}
	require.ErrorSays(t, watch(), "64 callers watch drains or follow events", "end one of them")
	_, err := c.Status(t.Context())
	require.NoError(t, err)
	cancel()
	wg.Wait()
	await(t, "room", func() bool { err := watch(); return err != nil && err.Error() == "enough" })
}

func someEvent() *event.Log {
	l := event.NewLog(nil)
	emit(l, 1)
	return l
}

// TestManyConnections: connections beyond the bound are closed, and there is room again when others
// are.
func TestManyConnections(t *testing.T) {
	s := serve(t, &fakeDaemon{})
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for range maxConns {
		conn, err := net.Dial("unix", s.socket)
		require.NoError(t, err)
		conns = append(conns, conn)
	}
	await(t, "a connection that is closed", func() bool {
		conn, err := net.Dial("unix", s.socket)
		require.NoError(t, err)
		conns = append(conns, conn)
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
		_, err = conn.Read(make([]byte, 1))
		return err == io.EOF
	})
	for _, c := range conns {
		c.Close()
	}
	await(t, "room", func() bool {
		_, err := s.client(t).Status(t.Context())
		return err == nil
	})
}

// request begins a call over HTTP/1.
func request(t *testing.T, socket, method, body string, length int) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	_, err = fmt.Fprintf(conn, "POST /remora.v1.Control/%s HTTP/1.1\r\nHost: x\r\nContent-Type: application/%s\r\nContent-Length: %d\r\n\r\n%s",
		method, map[bool]string{true: "connect+proto", false: "json"}[strings.HasSuffix(method, "State")], length, body)
	require.NoError(t, err)
	return conn
}

// TestSlowClients: who sends half of a request, or does not read, is not waited for.
func TestSlowClients(t *testing.T) {
	short := func(_ *Config, b *bounds) {
		b.call, b.answer, b.part = 50*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
	}
	for _, tc := range []struct{ method, body string }{{"Drain", "{"}, {"ImportState", "\x00\x00"}} {
		t.Run("half of "+tc.method, func(t *testing.T) {
			conn := request(t, serve(t, &fakeDaemon{}, short).socket, tc.method, tc.body, 100)
			if _, err := io.Copy(io.Discard, conn); err != nil {
				t.Errorf("the connection is not closed: %v", err)
			}
		})
	}
	t.Run("does not read", func(t *testing.T) {
		exported := make(chan error, 1)
		d := &fakeDaemon{export: func(_ context.Context, w io.Writer) error {
			_, err := w.Write(randomBytes(4 << 20))
			exported <- err
			return err
		}}
		request(t, serve(t, d, short).socket, "ExportState", "\x00\x00\x00\x00\x00", 5)
		select {
		case err := <-exported:
			if err == nil {
				t.Error("4 MiB are sent to nobody")
			}
		case <-time.After(20 * time.Second):
			t.Error("the daemon waits")
		}
	})
}

// TestSlowWatch: a watch is not bounded as calls are, as long as it is read.
func TestSlowWatch(t *testing.T) {
	const bound = time.Second
	looks, began := 0, time.Now()
	d := &fakeDaemon{drains: func(context.Context, Selection) ([]Drain, error) {
		looks++
		if time.Since(began) < 5*bound/2 { // longer than a call and its answer
			return []Drain{drainOf(vip4, DrainRunning, 1)}, nil
		}
		return []Drain{drainOf(vip4, DrainDone, 0)}, nil
	}}
	s := serve(t, d, func(_ *Config, b *bounds) { b.call, b.answer, b.part = bound, bound, bound })
	raw := rawClient(t, s.socket)
	body := []byte("\x00\x00\x00\x00\x18{\"backend\":\"10.20.0.11\"}")
	body[4] = byte(len(body) - 5)
	require.NoError(t, post(t.Context(), raw, "WatchDrain", "application/connect+json", body))
	if took := time.Since(began); took < 5*bound/2 {
		t.Errorf("it ended after %v and %d looks", took, looks)
	}
}

// TestStop: whatever connections and calls do, the server ends.
func TestStop(t *testing.T) {
	for _, tc := range []struct {
		name string
		call func(t *testing.T, s *served)
	}{
		{"connection without a request", func(t *testing.T, s *served) {
			conn, err := net.Dial("unix", s.socket)
			require.NoError(t, err)
			t.Cleanup(func() { conn.Close() })
		}},
		{"half a request", func(t *testing.T, s *served) { request(t, s.socket, "Drain", "{", 100) }},
		{"call that waits", func(t *testing.T, s *served) { request(t, s.socket, "GetStatus", "{}", 2) }},
		{"idle client", func(t *testing.T, s *served) {
			_, err := s.client(t).Undrain(t.Context(), &remorav1.UndrainRequest{Backend: "10.20.0.11"})
			require.NoError(t, err)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := serve(t, &fakeDaemon{status: func(ctx context.Context) (Status, error) {
				<-ctx.Done()
				return Status{}, ctx.Err()
			}}, func(_ *Config, b *bounds) { b.grace = 50 * time.Millisecond })
			tc.call(t, s)
			s.stop()
		})
	}
}
