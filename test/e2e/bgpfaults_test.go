// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/remora-lb/remora/test/require"
	"github.com/remora-lb/remora/test/routers"
)

// TestBGPFaults: a speaker that cannot run takes nothing with it and comes by itself; a VIP that is gone
// from the file at a restart is drained.
func TestBGPFaults(t *testing.T) {
	b := newBGPBed(t, "BIRD", routers.Config{}, "")
	socket := filepath.Join(t.TempDir(), "gobgp")
	other, err := net.Listen("unix", socket)
	require.NoError(t, err)
	defer other.Close()
	b.more[0] = fmt.Sprintf("  api_socket: %s\n", socket)
	const extra = "192.0.2.12:80/tcp"
	b.configure(t, 0, b.servers(), "  - {name: last, vips: [\""+extra+"\"], backends: [10.20.0.11]}\n")
	b.startDaemon(t)
	b.announces(t, "a reason why not", func(a announcement) bool {
		return !a.Announced && strings.Contains(a.Reason, "another process answers on "+socket)
	})
	require.NoError(t, other.Close())
	b.routed(t, 0)
	prefix := netip.MustParsePrefix("192.0.2.12/32")
	b.via(t, prefix, 0)
	b.announces(t, "its announcement", func(a announcement) bool { return a.Announced && a.Code == "served" })

	require.NoError(t, b.daemon.Stop(waitTimeout))
	b.configure(t, 0, b.servers(), "")
	b.startDaemon(t)
	b.announces(t, "its drain", func(a announcement) bool {
		return a.VIP != extra || a.Announced && a.State == "ANNOUNCE_STATE_DRAINING" && a.Code == "removed"
	})
	if !slices.Contains(b.vips(t), extra) {
		t.Error("it is not served any more")
	}
	b.via(t, prefix)
	b.routed(t, 0)
	waitFor(t, "its end", func() error {
		if slices.Contains(b.vips(t), extra) {
			return errors.New("it is still there")
		}
		return nil
	})
}

// announces waits until each VIP of the first balancer, of which there are three, stands as is asked for.
func (b *bgpBed) announces(t *testing.T, what string, is func(announcement) bool) {
	t.Helper()
	eventually(t, what, func(ctx context.Context) error {
		s, err := b.bgpStatus(ctx)
		if err != nil {
			return err
		}
		for _, v := range s.VIPs {
			if !is(v) {
				return fmt.Errorf("VIP %+v", v)
			}
		}
		if len(s.VIPs) != 3 {
			return fmt.Errorf("there are %d", len(s.VIPs))
		}
		return nil
	})
}
