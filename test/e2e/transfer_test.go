// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/remora-lb/remora/test/rig"
)

// A transfer moves partBytes each partInterval, so that it is always under way, and there is time for
// others on a small machine.
const (
	partBytes    = 16 << 10
	partInterval = 50 * time.Millisecond
	// bufferBytes is what a socket of the client may hold; the kernel takes twice as much.
	bufferBytes = 16 << 10
	// provenBytes is so much that it did not come out of the buffers alone.
	provenBytes = 6 * bufferBytes
)

// transfers are connections that move files, one after the other, until they are released.
type transfers struct {
	bed      *bed
	want     []byte // the large file
	all      []*transfer
	port     int // of the client, that the next one has
	released chan struct{}
}

// transfer is one of them. It goes on in a goroutine of its own.
type transfer struct {
	*connection
	name  string
	of    *transfers
	moved atomic.Int64
	ended chan struct{}
	err   error // once ended
}

// newTransfers begins so many for each VIP that every server has some, in both directions.
func (b *bed) newTransfers(t *testing.T) *transfers {
	t.Helper()
	want, err := os.ReadFile(b.webs[b.Servers[0]].Large)
	if err != nil {
		t.Fatal(err)
	}
	s := &transfers{bed: b, want: want, port: firstFlowPort, released: make(chan struct{})}
	for range flowsPerVIP {
		s.begin(t)
	}
	for _, n := range b.Servers {
		if len(s.on(n)) == 0 {
			t.Fatalf("no transfer is on %s", n.Name)
		}
	}
	return s
}

// begin begins a transfer for each VIP, a download and an upload by turns.
func (s *transfers) begin(t *testing.T) {
	t.Helper()
	for i, vip := range []netip.Addr{vip4(), vip6()} {
		x := &transfer{connection: s.bed.connect(t, vip, s.port), of: s, name: fmt.Sprintf("transfer-%d-%d", s.port, i), ended: make(chan struct{})}
		tcp := x.Conn.(*net.TCPConn)
		if err := errors.Join(tcp.SetReadBuffer(bufferBytes), tcp.SetWriteBuffer(bufferBytes)); err != nil {
			t.Fatal(err)
		}
		move := x.download
		if (s.port+i)%2 == 0 {
			move = x.upload
		}
		s.all = append(s.all, x)
		t.Cleanup(func() { // where the test ended early
			x.Close()
			<-x.ended
		})
		go func() {
			defer close(x.ended)
			x.err = x.repeat(move)
		}()
	}
	s.port++
}

// on are those that a server has.
func (s *transfers) on(n *rig.Node) (list []*transfer) {
	for _, x := range s.all {
		if x.server == n.Name {
			list = append(list, x)
		}
	}
	return list
}

// move waits until each has moved so much that it is under way, over the network.
func (s *transfers) move(t *testing.T) {
	t.Helper()
	from := make([]int64, len(s.all))
	for i, x := range s.all {
		from[i] = x.moved.Load()
	}
	waitFor(t, "all transfers to go on", func() error {
		for i, x := range s.all {
			select {
			case <-x.ended:
				return fmt.Errorf("%w: %v of %s to %s: %v", rig.ErrExited, x.LocalAddr(), x.name, x.server, x.err)
			default:
			}
			if moved := x.moved.Load() - from[i]; moved < provenBytes {
				return fmt.Errorf("%s on %s moved %d bytes", x.name, x.server, moved)
			}
		}
		return nil
	})
}

// takeReset demands that the connections of a server are reset, and forgets them.
func (s *transfers) takeReset(t *testing.T, n *rig.Node) {
	t.Helper()
	var others []*transfer
	for _, x := range s.all {
		if x.server != n.Name {
			others = append(others, x)
			continue
		}
		select {
		case <-x.ended:
		case <-within(t).Done():
			t.Fatalf("%s is still on %s", x.name, n.Name)
		}
		if !errors.Is(x.err, syscall.ECONNRESET) && !errors.Is(x.err, syscall.EPIPE) {
			t.Errorf("%s on %s ended: %v, want %v", x.name, n.Name, x.err, syscall.ECONNRESET)
		}
	}
	s.all = others
}

// finish lets each complete its file, and demands that all went well.
func (s *transfers) finish(t *testing.T) {
	t.Helper()
	close(s.released)
	for _, x := range s.all {
		<-x.ended
		if x.err != nil {
			t.Errorf("%s on %s, after %d bytes: %v", x.name, x.server, x.moved.Load(), x.err)
		}
	}
}

// repeat moves one file after the other until the transfers are released.
func (x *transfer) repeat(move func(paced func(func([]byte) error) error) error) error {
	for {
		if err := move(x.paced); err != nil {
			return err
		}
		select {
		case <-x.of.released:
			return nil
		default:
		}
	}
}

// paced calls f with one part of the file after the other, without pauses once released.
func (x *transfer) paced(f func(part []byte) error) error {
	ticker := time.NewTicker(partInterval)
	defer ticker.Stop()
	for rest := x.of.want; len(rest) > 0; {
		n := min(partBytes, len(rest))
		if err := errors.Join(x.SetDeadline(time.Now().Add(waitTimeout)), f(rest[:n])); err != nil {
			return err
		}
		x.moved.Add(int64(n))
		rest = rest[n:]
		select {
		case <-ticker.C:
		case <-x.of.released:
		}
	}
	return nil
}

func (x *transfer) download(paced func(func([]byte) error) error) error {
	if _, err := io.WriteString(x, "GET /large HTTP/1.1\r\nHost: vip\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(x.in, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.ContentLength != int64(len(x.of.want)) {
		return fmt.Errorf("HTTP status %s, %d bytes", resp.Status, resp.ContentLength)
	}
	got := make([]byte, partBytes)
	return paced(func(part []byte) error {
		if _, err := io.ReadFull(resp.Body, got[:len(part)]); err != nil {
			return err
		}
		if !bytes.Equal(got[:len(part)], part) {
			return errors.New("received other bytes than the file's")
		}
		return nil
	})
}

func (x *transfer) upload(paced func(func([]byte) error) error) error {
	if _, err := fmt.Fprintf(x, "PUT /upload/%s HTTP/1.1\r\nHost: vip\r\nContent-Length: %d\r\n\r\n", x.name, len(x.of.want)); err != nil {
		return err
	}
	if err := paced(func(part []byte) error {
		_, err := x.Write(part)
		return err
	}); err != nil {
		return err
	}
	resp, err := http.ReadResponse(x.in, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("HTTP status %s", resp.Status)
	}
	return x.checkUploaded()
}

// checkUploaded demands that the server that has the connection has the whole file.
func (x *transfer) checkUploaded() error {
	for n, web := range x.of.bed.webs {
		if n.Name != x.server {
			continue
		}
		got, err := os.ReadFile(filepath.Join(web.Dir, x.name))
		if err == nil && !bytes.Equal(got, x.of.want) {
			err = fmt.Errorf("%s received other bytes than the file's", x.server)
		}
		return err
	}
	return fmt.Errorf("no server is called %q", x.server)
}
