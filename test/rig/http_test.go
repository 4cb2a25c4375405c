// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/remora-lb/remora/test/require"
)

// httpClient returns an HTTP client whose connections start in the node.
func (n *Node) httpClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
			err = n.Do(func() error {
				conn, err = (&net.Dialer{}).DialContext(ctx, network, addr)
				return err
			})
			return conn, err
		},
	}}
}

// request makes a request from the node and returns the answer's body.
func request(t *testing.T, n *Node, method, url string, body []byte) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(testContext(t), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := n.httpClient().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, got
}

// TestHTTP uses a server in this process, so that it needs no other program.
func TestHTTP(t *testing.T) {
	l := newLab(t, Config{Servers: 1})
	var listener net.Listener
	err := l.Servers[0].Do(func() (err error) {
		listener, err = net.Listen("tcp", ":80")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(w, r.Body)
	})}
	go srv.Serve(listener)
	t.Cleanup(func() { srv.Close() })
	sent := bytes.Repeat([]byte("full-size packets both ways "), 10000)
	for _, url := range []string{"http://10.20.0.11/", "http://[2001:db8:20::11]/"} {
		t.Run(url, func(t *testing.T) {
			if _, got := request(t, l.Client, "PUT", url, sent); !bytes.Equal(got, sent) {
				t.Errorf("%d bytes sent, %d came back", len(sent), len(got))
			}
		})
	}
}

func TestNginx(t *testing.T) {
	require.Tools(t, "nginx")
	l := newLab(t, Config{Servers: 2})
	ctx := testContext(t)
	const size = 300_000
	for i, n := range l.Servers {
		web, err := n.StartNginx(ctx, size)
		if err != nil {
			t.Fatal(err)
		}
		base := "http://" + n.IPv4.String()
		if i == 1 {
			base = "http://[" + n.IPv6.String() + "]"
		}
		t.Run(n.Name, func(t *testing.T) {
			resp, got := request(t, l.Client, "GET", base+"/", nil)
			if string(got) != n.Name+"\n" || resp.Header.Get("X-Served-By") != n.Name {
				t.Errorf("%s answered %q, served by %q", n.Name, got, resp.Header.Get("X-Served-By"))
			}
			_, got = request(t, l.Client, "GET", base+"/large", nil)
			want, err := os.ReadFile(web.Large)
			if err != nil || len(want) != size || !bytes.Equal(got, want) {
				t.Errorf("got %d bytes that are not the %d of the file, error %v", len(got), len(want), err)
			}
			resp, _ = request(t, l.Client, "PUT", base+"/upload/x", want)
			stored, err := os.ReadFile(filepath.Join(web.Dir, "x"))
			if resp.StatusCode != http.StatusCreated || err != nil || !bytes.Equal(stored, want) {
				t.Errorf("status %s, stored %d bytes, error %v", resp.Status, len(stored), err)
			}
		})
	}
	t.Run("port taken", func(t *testing.T) {
		_, err := l.Servers[0].StartNginx(ctx, 1)
		if err == nil || !strings.Contains(err.Error(), "in use") {
			t.Errorf("error %v", err)
		}
	})
}
