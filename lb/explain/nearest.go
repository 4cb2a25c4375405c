// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"

	"github.com/remora-lb/remora/lb"
)

// mostNear bounds how many VIPs are named that a packet missed.
const mostNear = 3

// nearest are the VIPs with the address of the one that is missed, those first that differ least; or the
// one whose address is most alike.
func (w *World) nearest(missed lb.VIP) []Near {
	var with []lb.VIP
	for _, v := range w.VIPs {
		if v.VIP.Prefix().Contains(missed.Addr) {
			with = append(with, v.VIP)
		}
	}
	if len(with) == 0 {
		return w.mostAlike(missed.Addr)
	}
	slices.SortFunc(with, func(a, b lb.VIP) int {
		return cmp.Or(cmp.Compare(distance(a, missed), distance(b, missed)), a.Compare(b))
	})
	var near []Near
	for _, v := range with[:min(len(with), mostNear)] {
		near = append(near, Near{VIP: v.String(), Missed: difference(v, missed)})
	}
	return near
}

// distance is how far a VIP with the address is from the one that is missed.
func distance(v, missed lb.VIP) int {
	far := 0
	if v.Protocol != missed.Protocol {
		far += 2
	}
	if v.Port != missed.Port && v.Port != 0 {
		far += 3
	}
	return far
}

// difference says why a VIP with the address is not the packet's.
func difference(v, missed lb.VIP) string {
	port := fmt.Sprintf("its port is %d, not %d", v.Port, missed.Port)
	protocol := fmt.Sprintf("its protocol is %s, not %s", v.Protocol, missed.Protocol)
	switch samePort := v.Port == missed.Port || v.Port == 0; {
	case samePort:
		return protocol
	case v.Protocol == missed.Protocol:
		return port
	}
	return port + ", and " + protocol
}

// mostAlike is the VIP whose address has the most leading bits in common with the missed one.
func (w *World) mostAlike(missed netip.Addr) []Near {
	best, most := lb.VIP{}, 0
	for _, v := range w.VIPs {
		if n := commonBits(v.VIP.Addr, missed); n > most || n == most && n > 0 && v.VIP.Compare(best) < 0 {
			best, most = v.VIP, n
		}
	}
	if most == 0 {
		return nil
	}
	return []Near{{VIP: best.String(), Missed: fmt.Sprintf("its address is %s, not %s", best.Prefix(), missed)}}
}

// commonBits is how many leading bits two addresses of one family have in common.
func commonBits(a, b netip.Addr) int {
	if a.BitLen() != b.BitLen() {
		return 0
	}
	x, y := a.AsSlice(), b.AsSlice()
	for i := range x {
		if x[i] != y[i] {
			return 8*i + bits.LeadingZeros8(x[i]^y[i])
		}
	}
	return 8 * len(x)
}
