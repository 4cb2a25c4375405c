// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"encoding/binary"
	"net/netip"
)

// add is the one's-complement sum of 16-bit words (RFC 1071): carries come back in at the right.
func add(words ...uint16) uint16 {
	var sum uint32
	for _, w := range words {
		sum += uint32(w)
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

// words are the big-endian 16-bit words of b, which has an even length.
func words(b []byte) []uint16 {
	w := make([]uint16, 0, len(b)/2)
	for ; len(b) >= 2; b = b[2:] {
		w = append(w, binary.BigEndian.Uint16(b))
	}
	return w
}

// complement inverts each word.
func complement(w []uint16) []uint16 {
	for i := range w {
		w[i] = ^w[i]
	}
	return w
}

// orOnes is a checksum with 0 written in the other way that one's-complement arithmetic has.
func orOnes(checksum uint16) uint16 {
	if checksum == 0 {
		return 0xffff
	}
	return checksum
}

// setIPv4Checksum computes the checksum of an IPv4 header with its options anew.
func setIPv4Checksum(header []byte) {
	binary.BigEndian.PutUint16(header[10:], 0)
	binary.BigEndian.PutUint16(header[10:], ^add(words(header)...))
}

// pseudoHeader is what a transport checksum covers besides the segment, with length and protocol
// as 32-bit words for both families. The sum is the same as with IPv4's narrower fields.
func pseudoHeader(src, dst netip.Addr, segmentLen int, protocol uint8) []byte {
	b := append(src.AsSlice(), dst.AsSlice()...)
	b = binary.BigEndian.AppendUint32(b, uint32(segmentLen))
	return binary.BigEndian.AppendUint32(b, uint32(protocol))
}
