// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package maglev

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/remora-lb/remora/lb"
)

// manyMembers are n members with addresses from 10.0.0.0 on and weights from 1 to maxWeight.
func manyMembers(n int, maxWeight uint32) []Member {
	members := make([]Member, n)
	for i := range members {
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		members[i] = Member{ID: lb.RealID(i + 1), Addr: addr, Weight: 1 + uint32(i)*37%maxWeight}
	}
	return members
}

func BenchmarkBuild(b *testing.B) {
	for _, size := range []uint32{16381, 65537, 1048573} {
		for _, reals := range []int{10, 100, 1000, 4000} {
			for _, maxWeight := range []uint32{1, 100} {
				members := manyMembers(reals, maxWeight)
				b.Run(fmt.Sprintf("slots=%d/reals=%d/weights=1-%d", size, reals, maxWeight), func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						if _, err := Build(lb.Ring{Size: size}, members); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		}
	}
}
