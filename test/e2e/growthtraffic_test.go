// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// stallLimit is how long a transfer may go without a byte.
const stallLimit = 3 * time.Second

// A transfer moves chunkBytes every chunkInterval, so that it is under way for more than a second:
// longer than any one change of the balancer.
const (
	chunkBytes    = 64 << 10
	chunkInterval = 20 * time.Millisecond
)

// traffic is transfers that follow one another.
type traffic struct {
	bed    *bed
	want   []byte // the large file
	group  *errgroup.Group
	failed context.Context // ends with the first transfer that fails
	stop   chan struct{}

	mu      sync.Mutex // guards what follows
	count   map[string]int
	longest time.Duration // without a byte
}

// startTraffic starts two downloads and two uploads at a time for each VIP.
func (b *bed) startTraffic(t *testing.T) *traffic {
	t.Helper()
	want, err := os.ReadFile(b.webs[b.Servers[0]].Large)
	if err != nil {
		t.Fatal(err)
	}
	r := &traffic{bed: b, want: want, stop: make(chan struct{}), count: make(map[string]int)}
	r.group, r.failed = errgroup.WithContext(t.Context())
	t.Cleanup(func() { _ = r.group.Wait() }) // where the test ended early, which ended the context
	for _, vip := range []netip.Addr{vip4(), vip6()} {
		for i := range 2 {
			r.follow(fmt.Sprintf("download %d from %s", i, vip), func(string) error { return r.download(vip) })
			r.follow(fmt.Sprintf("upload %d to %s", i, vip), func(name string) error { return r.upload(t, vip, name) })
		}
	}
	return r
}

// follow starts a transfer whenever the one before has ended. Each gets a name of its own.
func (r *traffic) follow(what string, transfer func(name string) error) {
	file := strings.NewReplacer(" ", "-", ":", "-").Replace(what)
	r.group.Go(func() error {
		for n := 0; ; n++ {
			select {
			case <-r.stop:
				return nil
			case <-r.failed.Done():
				return nil
			default:
			}
			if err := transfer(fmt.Sprintf("%s-%d", file, n)); err != nil {
				return fmt.Errorf("%s, transfer %d: %v", what, n, err)
			}
			r.mu.Lock()
			r.count[what]++
			r.mu.Unlock()
		}
	})
}

// finish lets the transfers that are under way end, and demands that all went well.
func (r *traffic) finish(t *testing.T) {
	t.Helper()
	close(r.stop)
	if err := r.group.Wait(); err != nil {
		t.Error(err)
	}
	for what, n := range r.count {
		if n < 2 {
			t.Errorf("%s: %d transfers", what, n)
		}
	}
	t.Logf("transfers of %d bytes: %v; the longest time without a byte was %v", largeBytes, r.count, r.longest)
}

// pacedConn is a connection on which each read and write must end within stallLimit. Its buffers
// are so small that bytes must move for that.
type pacedConn struct {
	net.Conn
	traffic *traffic
}

func (r *traffic) dial(vip netip.Addr) (*pacedConn, error) {
	c := &pacedConn{traffic: r}
	return c, c.timed(func() error {
		return r.bed.Client.Do(func() (err error) {
			d := net.Dialer{Timeout: stallLimit}
			if c.Conn, err = d.Dial("tcp", netip.AddrPortFrom(vip, 80).String()); err != nil {
				return err
			}
			tcp := c.Conn.(*net.TCPConn)
			return errors.Join(tcp.SetReadBuffer(2*chunkBytes), tcp.SetWriteBuffer(2*chunkBytes))
		})
	})
}

func (c *pacedConn) timed(f func() error) error {
	began := time.Now()
	err := f()
	c.traffic.mu.Lock()
	defer c.traffic.mu.Unlock()
	c.traffic.longest = max(c.traffic.longest, time.Since(began))
	return err
}

func (c *pacedConn) Read(p []byte) (n int, err error) {
	err = c.timed(func() (err error) {
		if err = c.SetReadDeadline(time.Now().Add(stallLimit)); err == nil {
			n, err = c.Conn.Read(p)
		}
		return err
	})
	return n, err
}

func (c *pacedConn) Write(p []byte) (n int, err error) {
	err = c.timed(func() (err error) {
		if err = c.SetWriteDeadline(time.Now().Add(stallLimit)); err == nil {
			n, err = c.Conn.Write(p)
		}
		return err
	})
	return n, err
}

// paced calls f with one part of the large file after the other.
func (r *traffic) paced(f func(part []byte) error) error {
	ticker := time.NewTicker(chunkInterval)
	defer ticker.Stop()
	for part := range slices.Chunk(r.want, chunkBytes) {
		if err := f(part); err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-r.failed.Done():
			return errors.New("the test has failed already")
		}
	}
	return nil
}

func (r *traffic) download(vip netip.Addr) error {
	c, err := r.dial(vip)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /large HTTP/1.1\r\nHost: vip\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.ContentLength != int64(len(r.want)) {
		return fmt.Errorf("HTTP status %s, %d bytes", resp.Status, resp.ContentLength)
	}
	got := make([]byte, chunkBytes)
	return r.paced(func(part []byte) error {
		if _, err := io.ReadFull(resp.Body, got[:len(part)]); err != nil {
			return err
		}
		if !bytes.Equal(got[:len(part)], part) {
			return errors.New("received other bytes than the file's")
		}
		return nil
	})
}

func (r *traffic) upload(t *testing.T, vip netip.Addr, name string) error {
	c, err := r.dial(vip)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := fmt.Fprintf(c, "PUT /upload/%s HTTP/1.1\r\nHost: vip\r\nContent-Length: %d\r\n\r\n", name, len(r.want)); err != nil {
		return err
	}
	if err := r.paced(func(part []byte) error {
		_, err := c.Write(part)
		return err
	}); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		return fmt.Errorf("HTTP status %s", resp.Status)
	}
	r.bed.assertUploaded(t, name, r.want)
	for _, web := range r.bed.webs {
		if err := os.Remove(filepath.Join(web.Dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
