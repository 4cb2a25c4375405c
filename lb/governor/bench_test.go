// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package governor

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/require"
)

// BenchmarkOffer is one answer about a service with 1000 backends, of which one changed, beside 999
// other services with 20 each.
func BenchmarkOffer(b *testing.B) {
	g, err := New(DefaultConfig())
	require.NoError(b, err)
	for n := range 999 {
		g.Offer(Offer{Source: "consul", Service: string(rune('a' + n)), Backends: many(20), Complete: true, At: start})
	}
	list := many(1000)
	at := start
	for b.Loop() {
		at = at.Add(time.Second)
		list[0].Weight ^= 2
		g.Offer(Offer{Source: "consul", Service: "web", Backends: list, Complete: true, At: at})
	}
}

func many(n int) []Backend {
	list := make([]Backend, n)
	for i := range list {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], 0x0a000001+uint32(i))
		list[i].Backend = lb.Backend{Addr: netip.AddrFrom4(a), Weight: 1}
	}
	return list
}
