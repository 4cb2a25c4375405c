// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/remora-lb/remora/test/require"
)

func TestXDP(t *testing.T) {
	for _, tt := range []struct {
		name         string
		mtu, peerMTU int
		mode, want   Mode
		reason       []string
		refused      []string
	}{
		{name: "native", mtu: 1500, peerMTU: 1500, mode: Native, want: Native, reason: []string{"as configured"}},
		{name: "generic", mtu: 1500, peerMTU: 1500, mode: Generic, want: Generic, reason: []string{"as configured"}},
		{name: "auto", mtu: 1500, peerMTU: 1500, mode: Auto, want: Native, reason: []string{"the driver runs the program"}},
		{name: "auto with long frames", mtu: 9000, peerMTU: 9000, mode: Auto, want: Generic,
			reason: []string{"not native: ", "MTU is 9000", "at most about 3498"}},
		{name: "native with long frames", mtu: 9000, peerMTU: 9000, mode: Native,
			refused: []string{`attach to interface "lb0" in native mode`, "MTU is 9000", "generic mode"}},
		{name: "native with long frames at the other end", mtu: 1500, peerMTU: 9000, mode: Native,
			refused: []string{"MTU is 1500", "that of the other end counts"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			enterNamespace(t, tt.mtu, tt.peerMTU)
			a, err := XDP(program(t, "ours"), "lb0", tt.mode)
			if tt.refused != nil {
				require.ErrorSays(t, err, tt.refused...)
				if errors.Is(err, ErrOccupied) || a != nil || running(t, "lb0") != "" {
					t.Errorf("error %v, attachment %v, the interface runs %q", err, a, running(t, "lb0"))
				}
				return
			}
			require.NoError(t, err)
			require.ErrorSays(t, errors.New(a.Reason), tt.reason...)
			mode, err := CurrentMode("lb0")
			require.NoError(t, err)
			if a.Mode != tt.want || mode != tt.want || running(t, "lb0") != "ours" {
				t.Errorf("mode %v, and really %v; want %v; the interface runs %q", a.Mode, mode, tt.want, running(t, "lb0"))
			}
			require.NoError(t, a.Link.Close())
			if got := running(t, "lb0"); got != "" {
				t.Errorf("the interface runs %q after the link was closed", got)
			}
		})
	}
}

func TestXDPOccupied(t *testing.T) {
	for _, tt := range []struct {
		name  string
		flags link.XDPAttachFlags
	}{{"native", link.XDPDriverMode}, {"generic", link.XDPGenericMode}} {
		for _, mode := range []Mode{Auto, Native, Generic} {
			t.Run(mode.String()+" where there is a "+tt.name+" program", func(t *testing.T) {
				enterNamespace(t, 1500, 1500)
				dev, err := netlink.LinkByName("lb0")
				require.NoError(t, err)
				other, err := link.AttachXDP(link.XDPOptions{Program: program(t, "theirs"), Interface: dev.Attrs().Index, Flags: tt.flags})
				require.NoError(t, err)
				defer other.Close()
				wantOccupied(t, mode)
			})
		}
	}
	t.Run("a program without a link", func(t *testing.T) {
		enterNamespace(t, 1500, 1500)
		dev, err := netlink.LinkByName("lb0")
		require.NoError(t, err)
		require.NoError(t, netlink.LinkSetXdpFd(dev, program(t, "theirs").FD()))
		wantOccupied(t, Auto)
	})
}

func wantOccupied(t *testing.T, mode Mode) {
	t.Helper()
	a, err := XDP(program(t, "ours"), "lb0", mode)
	require.ErrorSays(t, err, `"lb0"`, `already has XDP program "theirs" (id `, "take it off first")
	if !errors.Is(err, ErrOccupied) || a != nil {
		t.Errorf("error %v, attachment %v", err, a)
	}
	if got := running(t, "lb0"); got != "theirs" {
		t.Errorf("the interface runs %q, want theirs", got)
	}
}

func TestInterface(t *testing.T) {
	enterNamespace(t, 1500, 1500)
	got, err := Interface("peer0")
	require.NoError(t, err)
	if dev, err := netlink.LinkByName("peer0"); err != nil || got.Index != dev.Attrs().Index {
		t.Errorf("interface %+v, want index %v; %v", got, dev, err)
	}
	for _, name := range []string{"eth9", "", "much-too-long-for-a-name"} {
		_, err = Interface(name)
		require.ErrorSays(t, err, fmt.Sprintf("interface %q", name), "there are: ", "lo", "lb0", "peer0")
		_, err = XDP(program(t, "ours"), name, Auto)
		require.ErrorSays(t, err, fmt.Sprintf("interface %q", name))
	}
	_, err = CurrentMode("eth9")
	require.ErrorSays(t, err, "look at interface eth9")
}
