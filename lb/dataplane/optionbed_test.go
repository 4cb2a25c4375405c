// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/maglev"
	"github.com/remora-lb/remora/test/frames"
	"github.com/remora-lb/remora/test/require"
)

// chosen is a real that no slot of an option bed names: the one that something else leads to. beside is
// another such.
const (
	chosen lb.RealID = bedRing + 1 + iota
	beside
)

// optionBed is a data plane with VIPs whose slot i goes to real i+1: so where a packet goes tells what of it
// was hashed. Real ID is at 10.0.0.ID.
type optionBed struct {
	*flowBed
	vips []lb.VIPEntry
}

// newOptionBed gives all VIPs the same options and flow mode.
func newOptionBed(t *testing.T, mode lb.FlowMode, o lb.Options, vips ...string) *optionBed {
	t.Helper()
	require.Root(t)
	cfg := allFeatures()
	cfg.Decap = lb.Decap{}
	d, err := Open(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { d.Close() })
	b := &optionBed{flowBed: &flowBed{t, d}}
	var reals []lb.Real
	for id := lb.RealID(1); id <= beside; id++ {
		reals = append(reals, testReal(t, id, vips[0], lb.IPIP, bedAddr(id).String()))
	}
	require.NoError(t, d.SetReals(reals))
	for i, v := range vips {
		b.vips = append(b.vips, lb.VIPEntry{
			VIP: testVIP(t, v), RingID: lb.RingID(i), Ring: lb.Ring{Size: bedRing}, Flows: mode, Options: o,
		})
		b.setRing(lb.RingID(i), lb.StableSlot)
	}
	require.NoError(t, d.SetVIPs(b.vips))
	return b
}

// with is the bed in a test of its own, with other options.
func (b *optionBed) with(t *testing.T, o lb.Options) *optionBed {
	t.Helper()
	vips := slices.Clone(b.vips)
	for i := range vips {
		vips[i].Options = o
	}
	require.NoError(t, b.d.SetVIPs(vips))
	return &optionBed{flowBed: &flowBed{t, b.d}, vips: vips}
}

// setRing gives the ring slots that slot makes of the slot's own real.
func (b *optionBed) setRing(id lb.RingID, slot func(lb.RealID) lb.Slot) {
	b.Helper()
	slots := make([]lb.Slot, bedRing)
	for i := range slots {
		slots[i] = slot(lb.RealID(i + 1))
	}
	_, err := b.d.SetRing(id, slots)
	require.NoError(b.T, err)
}

// setUse changes what packets a real may get.
func (b *optionBed) setUse(id lb.RealID, use lb.RealUse) {
	b.Helper()
	r := testReal(b.T, id, b.vips[0].VIP.String(), lb.IPIP, bedAddr(id).String())
	r.Use = use
	require.NoError(b.T, b.d.SetReals([]lb.Real{r}))
}

// own is the real of the slot that these parts of a packet choose.
func own(src netip.Addr, sport, dport uint16) lb.RealID {
	return lb.RealID(maglev.SlotIndex(maglev.FlowHash(src, sport, dport), bedRing)) + 1
}

// wantEnd fails unless the frame ends for the reason, and as lb.Reason says; it returns what became of it.
func wantEnd(t *testing.T, d *Dataplane, what string, frame []byte, want lb.Reason) []byte {
	t.Helper()
	before, err := d.Snapshot()
	require.NoError(t, err)
	verdict, out := send(t, d.Program(), frame)
	after, err := d.Snapshot()
	require.NoError(t, err)
	for r := range after.Reasons {
		n := uint64(0)
		if lb.Reason(r) == want {
			n = 1
		}
		if got := after.Reasons[r] - before.Reasons[r]; got != n {
			t.Errorf("%s: %d packets ended as %v, want %d", what, got, lb.Reason(r), n)
		}
	}
	if verdict != want.Verdict() {
		t.Errorf("%s: verdict %v, want %v", what, verdict, want.Verdict())
	}
	return out
}

// packetFrom is a client's packet to any address.
func packetFrom(src, dst netip.Addr, payload frames.Payload) frames.Packet {
	if dst.Is6() {
		return frames.IPv6{HopLimit: 64, Src: src, Dst: dst, Payload: payload}
	}
	return frames.IPv4{TTL: 64, Src: src, Dst: dst, Payload: payload}
}
