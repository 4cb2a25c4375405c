// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bfd

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/remora-lb/remora/test/require"
	"golang.org/x/sys/unix"
)

// TestHops sends packets over loopback with the TTL of the package and with another one.
func TestHops(t *testing.T) {
	for _, addr := range []string{"127.0.0.1", "::1"} {
		t.Run(addr, func(t *testing.T) {
			v6 := netip.MustParseAddr(addr).Is6()
			lc := net.ListenConfig{Control: control(v6)}
			pc, err := lc.ListenPacket(context.Background(), network(v6), net.JoinHostPort(addr, "0"))
			require.NoError(t, err)
			defer pc.Close()
			conn := pc.(*net.UDPConn)
			require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
			for _, want := range []int{ttl, 254} {
				d := net.Dialer{Control: control(v6)}
				out, err := d.Dial(network(v6), pc.LocalAddr().String())
				require.NoError(t, err)
				require.NoError(t, setTTL(out.(*net.UDPConn), v6, want))
				_, err = out.Write([]byte("x"))
				require.NoError(t, err)
				require.NoError(t, out.Close())
				oob := make([]byte, 256)
				_, n, _, _, err := conn.ReadMsgUDPAddrPort(make([]byte, 8), oob)
				require.NoError(t, err)
				if got := hops(oob[:n]); got != want {
					t.Errorf("received with TTL %d, sent with %d", got, want)
				}
			}
		})
	}
	if got := hops([]byte{1, 2, 3}); got != 0 {
		t.Errorf("nonsense has TTL %d", got)
	}
}

func setTTL(conn *net.UDPConn, v6 bool, ttl int) error {
	level, name := unix.IPPROTO_IP, unix.IP_TTL
	if v6 {
		level, name = unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var optErr error
	err = raw.Control(func(fd uintptr) { optErr = unix.SetsockoptInt(int(fd), level, name, ttl) })
	if err != nil {
		return err
	}
	return optErr
}
