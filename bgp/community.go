// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"fmt"
	"strconv"
	"strings"
)

// Community is a standard community (RFC 1997): AS number and value, 16 bits each.
type Community uint32

// Well-known communities, from IANA's registry.
const (
	// GracefulShutdown asks the routers to prefer other routes before this one goes (RFC 8326).
	GracefulShutdown Community = 0xffff0000
	// NoExport keeps the route within the neighbour's AS, NoAdvertise within the neighbour, and
	// NoExportSubconfed within its part of a confederation (RFC 1997).
	NoExport          Community = 0xffffff01
	NoAdvertise       Community = 0xffffff02
	NoExportSubconfed Community = 0xffffff03
	// NoLLGR asks the routers not to keep the route longer than for a graceful restart (RFC 9494).
	NoLLGR Community = 0xffff0007
	// NoPeer asks not to send the route to bilateral peers (RFC 3765).
	NoPeer Community = 0xffffff04
)

// wellKnown are the names that ParseCommunity takes and String gives.
func wellKnown() map[string]Community {
	return map[string]Community{
		"graceful-shutdown":   GracefulShutdown,
		"no-export":           NoExport,
		"no-advertise":        NoAdvertise,
		"no-export-subconfed": NoExportSubconfed,
		"no-llgr":             NoLLGR,
		"no-peer":             NoPeer,
	}
}

// ParseCommunity reads ASN:VALUE or a name such as graceful-shutdown or no-export.
func ParseCommunity(s string) (Community, error) {
	if c, ok := wellKnown()[s]; ok {
		return c, nil
	}
	parts, err := parseNumbers(s, 2, 16)
	if err != nil {
		return 0, fmt.Errorf("parse community %q: %v, nor a well-known name", s, err)
	}
	return Community(parts[0]<<16 | parts[1]), nil
}

func (c Community) String() string {
	for name, known := range wellKnown() {
		if c == known {
			return name
		}
	}
	return fmt.Sprintf("%d:%d", c>>16, c&0xffff)
}

// MarshalText implements encoding.TextMarshaler with the form of String.
func (c Community) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler by ParseCommunity.
func (c *Community) UnmarshalText(b []byte) (err error) {
	*c, err = ParseCommunity(string(b))
	return err
}

// LargeCommunity is a large community (RFC 8092).
type LargeCommunity struct{ ASN, Data1, Data2 uint32 }

// ParseLargeCommunity reads ASN:NUMBER:NUMBER.
func ParseLargeCommunity(s string) (LargeCommunity, error) {
	parts, err := parseNumbers(s, 3, 32)
	if err != nil {
		return LargeCommunity{}, fmt.Errorf("parse large community %q: %v", s, err)
	}
	return LargeCommunity{parts[0], parts[1], parts[2]}, nil
}

func (c LargeCommunity) String() string { return fmt.Sprintf("%d:%d:%d", c.ASN, c.Data1, c.Data2) }

// MarshalText implements encoding.TextMarshaler with the form of String.
func (c LargeCommunity) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler by ParseLargeCommunity.
func (c *LargeCommunity) UnmarshalText(b []byte) (err error) {
	*c, err = ParseLargeCommunity(string(b))
	return err
}

// parseNumbers reads count numbers of so many bits with colons between them.
func parseNumbers(s string, count, bits int) ([]uint32, error) {
	fields := strings.Split(s, ":")
	numbers := make([]uint32, 0, count)
	for _, f := range fields {
		n, err := strconv.ParseUint(f, 10, bits)
		if err != nil || len(fields) != count {
			return nil, fmt.Errorf("it is not %d numbers of %d bits with colons between them", count, bits)
		}
		numbers = append(numbers, uint32(n))
	}
	return numbers, nil
}
