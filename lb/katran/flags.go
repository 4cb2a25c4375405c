// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package katran

import (
	"encoding/json"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// Flags are a VIP's or a real's flags, by the numbers that Katran has for them.
type Flags uint32

// The flags of VIPs.
const (
	NoSourcePort Flags = 1 << iota
	NoLRU
	QUICVIP
	DestinationPortHash
	SourceRouting
	LocalVIP
	GlobalLRU
	HashSourceDestinationPort
	UDPStableRouting
	UDPFlowMigration
)

// The flags of reals.
const (
	// RealIPv6 is Katran's own note of the address's family, and without effect here.
	RealIPv6 Flags = 1 << iota
	LocalReal
)

// vipFlags and realFlags name the bits, the lowest first.
func vipFlags() []string {
	return []string{"NO_SPORT", "NO_LRU", "QUIC_VIP", "DPORT_HASH", "SRC_ROUTING", "LOCAL_VIP", "GLOBAL_LRU",
		"HASH_SRC_DST_PORT", "UDP_STABLE_ROUTING", "UDP_FLOW_MIGRATION"}
}

func realFlags() []string { return []string{"IPV6", "LOCAL_REAL"} }

// has tells whether all bits of g are set.
func (f Flags) has(g Flags) bool { return f&g == g }

// unknown are the bits that have no name among names, each as a number.
func (f Flags) unknown(names []string) (numbers []string) {
	for rest := f >> len(names) << len(names); rest != 0; rest &= rest - 1 {
		numbers = append(numbers, strconv.Itoa(1<<bits.TrailingZeros32(uint32(rest))))
	}
	return numbers
}

// parseFlags reads a number, or a list of names; nil is no flag.
func parseFlags(v any, names []string) (Flags, error) {
	switch v := v.(type) {
	case nil:
		return 0, nil
	case json.Number:
		n, err := strconv.ParseUint(v.String(), 10, 32)
		if err != nil {
			return 0, fmt.Errorf("flags %s: expected a whole number from 0 to 4294967295", v)
		}
		return Flags(n), nil
	case []any:
		return parseFlagNames(v, names)
	}
	return 0, fmt.Errorf("flags: expected a number, or a list of names")
}

func parseFlagNames(list []any, names []string) (f Flags, err error) {
	for _, item := range list {
		name, ok := item.(string)
		if !ok {
			return 0, fmt.Errorf("flags: expected a list of names only")
		}
		bit := -1
		for i, known := range names {
			if name == known {
				bit = i
			}
		}
		if bit < 0 {
			return 0, fmt.Errorf("flag %q is not known: expected %s", name, strings.Join(names, ", "))
		}
		f |= 1 << bit
	}
	return f, nil
}
