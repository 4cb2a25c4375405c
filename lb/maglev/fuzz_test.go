// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package maglev

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/remora-lb/remora/lb"
)

// FuzzBuild reads members of eight bytes each, address and weight. Build ends, refuses what it
// must, fills every slot with a member, and agrees with the reference.
func FuzzBuild(f *testing.F) {
	f.Add(uint32(7), false, []byte("\x0a\x00\x00\x01\x00\x00\x00\x01\x0a\x00\x00\x02\x00\x00\x00\x01"))
	f.Add(uint32(65537), true, []byte("\x0a\x01\x20\x4c\x00\x01\x00\x01\x0a\x00\x00\x01\x00\x00\x00\x01"))
	f.Add(uint32(8), false, []byte{})
	// Two addresses of one hash.
	f.Add(uint32(79), false, []byte("\xce\xce\xce\xce000000000000"))
	f.Fuzz(func(t *testing.T, size uint32, v1 bool, data []byte) {
		size %= 1 << 17 // larger rings only take longer
		ring := lb.Ring{Size: size}
		if v1 {
			ring.Hash = lb.MaglevV1
		}
		var members []Member
		weights, twice := map[netip.Addr]uint32{}, false
		for ; len(data) >= 8 && len(members) < 64; data = data[8:] {
			m := Member{
				ID:     lb.RealID(len(members) + 1),
				Addr:   netip.AddrFrom4([4]byte(data)),
				Weight: binary.BigEndian.Uint32(data[4:]),
			}
			_, there := weights[m.Addr]
			twice = twice || there
			weights[m.Addr] = m.Weight
			members = append(members, m)
		}
		slots, err := Build(ring, members)
		if refused := CheckSize(size) != nil || twice; refused != (err != nil) {
			t.Fatalf("refused %t, error %v", refused, err)
		}
		if err != nil {
			return
		}
		populated := false
		for _, w := range weights {
			populated = populated || w > 0
		}
		for i, s := range slots {
			if !s.Stable() || populated != (s.Cur() != 0) || s.Cur() != 0 && members[s.Cur()-1].Weight == 0 {
				t.Fatalf("slot %d is %#x", i, s)
			}
		}
		if size < 5000 {
			wantReference(t, ring, members)
		}
	})
}
