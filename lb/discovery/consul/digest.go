// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"slices"

	"github.com/remora-lb/remora/lb"
)

// Digest is a short text that is the same on every balancer whose VIP has the same backends with
// the same weights, in whatever order they are given: 16 hexadecimal digits.
func Digest(vip lb.VIP, backends []lb.Backend) string {
	sorted := slices.SortedFunc(slices.Values(backends), func(a, b lb.Backend) int {
		return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Weight, b.Weight))
	})
	text := append([]byte(vip.String()), '\n')
	for _, b := range sorted {
		text = b.Addr.AppendTo(text)
		// Addresses have no byte 0, and the weight has a fixed length: no two sets have one text.
		text = append(text, 0, byte(b.Weight>>24), byte(b.Weight>>16), byte(b.Weight>>8), byte(b.Weight))
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}
