// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"encoding/binary"

	"github.com/remora-lb/remora/lb"
)

// The IPv6 extension headers that are read (RFC 8200, RFC 4302), and how many at most.
const (
	extensionHopByHop       = 0
	extensionRouting        = 43
	extensionFragment       = 44
	extensionAuthentication = 51
	extensionDestination    = 60

	maxExtensions   = 6
	minExtensionLen = 8
)

// skipExtensions moves the payload and the protocol behind the extension headers.
func (t *Tables) skipExtensions(p *packet) lb.Reason {
	for n := 0; isExtension(p.protocol) && !p.fragment; n++ {
		p.extended = true
		if n == maxExtensions {
			t.note("parse", "more than %d extension headers", maxExtensions)
			return lb.ReasonIPv6Extension
		}
		if reason := t.skipExtension(p); reason != undecided {
			return reason
		}
	}
	return undecided
}

// skipExtension skips the one extension header that the payload begins with.
func (t *Tables) skipExtension(p *packet) lb.Reason {
	header := p.payload
	if len(header) < minExtensionLen {
		return lb.ReasonTruncated
	}
	headerLen := extensionLen(p.protocol, header[1])
	if len(header) < headerLen {
		return lb.ReasonTruncated
	}
	if segmentsLeft := header[3]; p.protocol == extensionRouting && segmentsLeft != 0 {
		t.note("parse", "a routing header with %d segments left", segmentsLeft)
		return lb.ReasonIPv6Extension
	}
	isFragment := p.protocol == extensionFragment && binary.BigEndian.Uint16(header[2:])&fragmentMask6 != 0
	p.protocol, p.payload = header[0], header[headerLen:]
	if isFragment {
		return t.parseFragment(p)
	}
	return undecided
}

func isExtension(protocol uint8) bool {
	switch protocol {
	case extensionHopByHop, extensionRouting, extensionFragment, extensionAuthentication, extensionDestination:
		return true
	}
	return false
}

// extensionLen is an extension header's length in bytes, from the length field n.
func extensionLen(protocol, n uint8) int {
	switch protocol {
	case extensionFragment:
		return 8 // the field is reserved there
	case extensionAuthentication:
		return (int(n) + 2) * 4
	}
	return (int(n) + 1) * 8
}
