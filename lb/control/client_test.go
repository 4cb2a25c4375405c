// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
	"github.com/remora-lb/remora/test/require"
)

// answering is a socket on which each connection is handed to answer, and then closed.
func answering(t *testing.T, answer func(net.Conn)) string {
	t.Helper()
	noLeaks(t)
	socket := filepath.Join(socketDir(t), "x.sock")
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			answer(conn)
			conn.Close()
		}
	}()
	return socket
}

// TestStrangeDaemons: what is no daemon, or ends in the middle of a call, is told as such.
func TestStrangeDaemons(t *testing.T) {
	for _, tc := range []struct {
		name   string
		answer func(net.Conn)
	}{
		{"closes", func(net.Conn) {}},
		{"ends after the request", func(c net.Conn) { _, _ = c.Read(make([]byte, 4096)) }},
		{"speaks something else", func(c net.Conn) {
			_, _ = c.Read(make([]byte, 4096))
			_, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := Dial(t.Context(), answering(t, tc.answer))
			require.NoError(t, err)
			defer c.Close()
			_, err = c.Status(t.Context())
			require.ErrorSays(t, err, "the connection to the daemon broke: ", "see whether it runs")
			err = c.WatchDrain(t.Context(), &remorav1.WatchDrainRequest{}, nil)
			require.ErrorSays(t, err, "the connection to the daemon broke: ")
		})
	}
	t.Run("says nothing", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		c, err := Dial(ctx, answering(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }))
		require.NoError(t, err)
		defer c.Close()
		_, err = c.Status(ctx)
		require.ErrorSays(t, err, "the daemon did not answer in time")
	})
	t.Run("does not know the call", func(t *testing.T) {
		l, err := net.Listen("unix", filepath.Join(socketDir(t), "x.sock"))
		require.NoError(t, err)
		server := &http.Server{Handler: http.NotFoundHandler(), Protocols: new(http.Protocols)}
		server.Protocols.SetUnencryptedHTTP2(true)
		go server.Serve(l)
		defer server.Close()
		c, err := Dial(t.Context(), l.Addr().String())
		require.NoError(t, err)
		defer c.Close()
		_, err = c.Status(t.Context())
		require.ErrorSays(t, err, "the daemon does not know this call; it may be older")
	})
}
