// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func TestNarrowClient(t *testing.T) {
	const mtu = 1300
	l := newLab(t, Config{Servers: 1})
	server := l.Servers[0]
	if err := l.NarrowClient(mtu); err != nil {
		t.Fatal(err)
	}
	for _, to := range []netip.Addr{l.Client.IPv4, l.Client.IPv6} {
		t.Run(to.String(), func(t *testing.T) {
			if got, err := server.PathMTU(to); err != nil || got != 0 {
				t.Fatalf("before the first packet the path MTU is %d, error %v", got, err)
			}
			if err := server.Ping(testContext(t), to, 1000); err != nil {
				t.Fatal(err)
			}
			if got, err := server.PathMTU(to); err != nil || got != 0 {
				t.Errorf("a packet that fits taught the path MTU %d, error %v", got, err)
			}
			err := WaitFor(testContext(t), "path MTU", func() error {
				// No answer comes: the router refuses the packet, or fragments get there and
				// the client's answer is too long.
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				_ = server.Ping(ctx, to, 1400)
				got, err := server.PathMTU(to)
				if err == nil && got != mtu {
					err = fmt.Errorf("it is %d", got)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}
