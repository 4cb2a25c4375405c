// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/remora-lb/remora/test/require"
	"github.com/remora-lb/remora/test/rig"
)

// echoPort is the TCP port of the server.
const echoPort = 80

// serveEcho sends back what comes, on all addresses of a node, until the test ends.
func serveEcho(t *testing.T, n *rig.Node) {
	t.Helper()
	var listener net.Listener
	require.NoError(t, n.Do(func() (err error) {
		listener, err = net.Listen("tcp", ":"+strconv.Itoa(echoPort))
		return err
	}))
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // closed
			}
			serving.Go(func() {
				defer conn.Close()
				// The client sees what fails.
				if conn.SetDeadline(time.Now().Add(waitTimeout)) == nil {
					_, _ = io.Copy(conn, conn)
				}
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		serving.Wait()
	})
}

// transferBytes is so much that many packets are of full size.
const transferBytes = 300_000

// transfer sends random bytes from the client to a VIP and demands that they come back.
func (b *bed) transfer(t *testing.T, vip netip.Addr) {
	t.Helper()
	if err := b.tryTransfer(vip); err != nil {
		t.Errorf("transfer by way of %s: %v", vip, err)
	}
}

func (b *bed) tryTransfer(vip netip.Addr) error {
	var conn net.Conn
	err := b.Client.Do(func() (err error) {
		conn, err = net.DialTimeout("tcp", netip.AddrPortFrom(vip, echoPort).String(), waitTimeout/2)
		return err
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(waitTimeout)); err != nil {
		return err
	}
	sent := make([]byte, transferBytes)
	rand.NewChaCha8([32]byte{1}).Read(sent)
	failed := make(chan error, 1)
	go func() {
		_, err := conn.Write(sent)
		if err == nil {
			err = conn.(*net.TCPConn).CloseWrite()
		}
		failed <- err
	}()
	received, err := io.ReadAll(conn)
	if err := errors.Join(<-failed, err); err != nil {
		return fmt.Errorf("after %d bytes: %v", len(received), err)
	}
	if !bytes.Equal(received, sent) {
		return fmt.Errorf("%d bytes came back that differ from the %d sent", len(received), len(sent))
	}
	return nil
}
