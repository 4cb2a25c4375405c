// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package nexthop

import (
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// neighbourData is the body of a neighbour message about 10.0.0.1 with mac1 on interface 2.
func neighbourData(family uint8, state uint16) []byte {
	m := netlink.Ndmsg{Family: family, Index: 2, State: state}
	data := slices.Clone(m.Serialize())
	data = append(data, nl.NewRtAttr(netlink.NDA_DST, []byte{10, 0, 0, 1}).Serialize()...)
	return append(data, nl.NewRtAttr(netlink.NDA_LLADDR, mac1[:]).Serialize()...)
}

func TestDecode(t *testing.T) {
	key := neighbourKey{2, netip.MustParseAddr("10.0.0.1")}
	tests := []struct {
		name    string
		kind    uint16
		data    []byte
		want    []event
		wantErr string
	}{
		{"link", unix.RTM_DELLINK, nil, []event{{kind: linkEvent}}, ""},
		{"route", unix.RTM_NEWROUTE, nil, []event{{kind: routeEvent}}, ""},
		{"address", unix.RTM_DELADDR, nil, []event{{kind: routeEvent}}, ""},
		{"rule", unix.RTM_NEWRULE, nil, []event{{kind: routeEvent}}, ""},
		{"nexthop object", unix.RTM_NEWNEXTHOP, nil, []event{{kind: routeEvent}}, ""},
		{"something else", unix.RTM_NEWQDISC, nil, nil, ""},
		{
			"new neighbour", unix.RTM_NEWNEIGH, neighbourData(unix.AF_INET, netlink.NUD_STALE),
			[]event{{neighbourEvent, key, neighbour{mac1, netlink.NUD_STALE}}}, "",
		},
		{
			"neighbour gone", unix.RTM_DELNEIGH, neighbourData(unix.AF_INET, netlink.NUD_STALE),
			[]event{{neighbourEvent, key, neighbour{}}}, "",
		},
		{"bridge", unix.RTM_NEWNEIGH, neighbourData(unix.AF_BRIDGE, netlink.NUD_STALE), nil, ""},
		{
			"too short", unix.RTM_NEWNEIGH, neighbourData(unix.AF_INET, netlink.NUD_STALE)[:unix.SizeofNdMsg-1],
			nil, "read neighbour notification: 11 bytes are too few",
		},
		{
			"cut attribute", unix.RTM_NEWNEIGH, neighbourData(unix.AF_INET, netlink.NUD_STALE)[:unix.SizeofNdMsg+6],
			nil, "read neighbour notification: invalid argument",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: tt.kind}, Data: tt.data}
			got, err := decode([]syscall.NetlinkMessage{m})
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			text := ""
			if err != nil {
				text = err.Error()
			}
			if text != tt.wantErr {
				t.Errorf("error %q, want %q", text, tt.wantErr)
			}
		})
	}
}
