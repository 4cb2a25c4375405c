// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"google.golang.org/protobuf/proto"

	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
	"github.com/remora-lb/remora/test/require"
)

func TestDrainNode(t *testing.T) {
	d := &fakeDaemon{node: &BGP{}}
	c := serve(t, d).client(t)
	for _, on := range []bool{true, true, false, false} {
		if on {
			require.NoError(t, c.DrainNode(t.Context()))
		} else {
			require.NoError(t, c.UndrainNode(t.Context()))
		}
		d.mu.Lock()
		if d.node.Drained != on {
			t.Errorf("drained is %t, want %t", d.node.Drained, on)
		}
		d.mu.Unlock()
	}
}

func TestDrainNodeWithoutBGP(t *testing.T) {
	c := serve(t, &fakeDaemon{}).client(t)
	for name, call := range map[string]func(context.Context) error{"drain": c.DrainNode, "undrain": c.UndrainNode} {
		var e *Error
		if err := call(t.Context()); !errors.As(err, &e) || e.Code != CodeRefused || e.Cure == "" {
			t.Errorf("%s: error %v, want a refusal with a cure", name, err)
		}
	}
}

func TestBGPToAPI(t *testing.T) {
	got := statusToAPI(Status{BGP: &BGP{
		Drained: true, DrainedSince: began,
		Sessions: []BGPSession{{Peer: netip.MustParseAddr("10.0.0.1"), ASN: 65000, State: "established", Since: began, LastError: "refused", LastErrorAt: began, Routes: 2, BFD: "up"}},
		VIPs:     []Announcement{{VIP: vip4, State: AnnounceDraining, Since: began, Code: "drain_node", Reason: "because", Announced: true}},
	}}).Bgp
	want := &remorav1.BGP{
		Drained: true, DrainedSince: timeToAPI(began),
		Sessions: []*remorav1.BGPSession{{Peer: "10.0.0.1", Asn: 65000, State: "established", Since: timeToAPI(began), LastError: "refused", LastErrorAt: timeToAPI(began), Routes: 2, Bfd: "up"}},
		Vips:     []*remorav1.Announcement{{Vip: vip4.String(), State: remorav1.AnnounceState_ANNOUNCE_STATE_DRAINING, Since: timeToAPI(began), Code: "drain_node", Reason: "because", Announced: true}},
	}
	if !proto.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if without := statusToAPI(Status{}); without.Bgp != nil {
		t.Errorf("without BGP: %v", without.Bgp)
	}
}
