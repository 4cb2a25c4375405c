// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import "github.com/remora-lb/remora/lb"

// A VIP's options, OPTION_* in bpf/types.h.
const (
	optionNoSourcePort uint16 = 1 << iota
	optionKeepDestinationPort
	optionDestinationPortOnly
	optionByClient
	optionKatranIDs
	optionQUICLBIDs
	optionTCPIDs
	optionUDPIDs
	optionSourceRoutes
	// optionFragmentsPass is in descriptions only.
	optionFragmentsPass
)

// optionBits are a VIP's options as its description has them.
func optionBits(o lb.Options) (b uint16) {
	for _, option := range []struct {
		on  bool
		bit uint16
	}{
		{o.Hash.NoSourcePort, optionNoSourcePort},
		{o.Hash.KeepDestinationPort, optionKeepDestinationPort},
		{o.Hash.DestinationPortOnly, optionDestinationPortOnly},
		{o.Fragments == lb.FragmentsByClient, optionByClient},
		{o.ConnectionIDs == lb.ConnectionIDsKatran, optionKatranIDs},
		{o.ConnectionIDs == lb.ConnectionIDsQUICLB, optionQUICLBIDs},
		{o.TCPIDs, optionTCPIDs},
		{o.UDPIDs, optionUDPIDs},
		{o.SourceRoutes, optionSourceRoutes},
		{o.Fragments == lb.FragmentsPass, optionFragmentsPass},
	} {
		if option.on {
			b |= option.bit
		}
	}
	return b
}

// optionsOf is optionBits the other way round.
func optionsOf(b uint16) lb.Options {
	o := lb.Options{
		Hash: lb.HashInput{
			NoSourcePort:        b&optionNoSourcePort != 0,
			KeepDestinationPort: b&optionKeepDestinationPort != 0,
			DestinationPortOnly: b&optionDestinationPortOnly != 0,
		},
		TCPIDs:       b&optionTCPIDs != 0,
		UDPIDs:       b&optionUDPIDs != 0,
		SourceRoutes: b&optionSourceRoutes != 0,
	}
	switch {
	case b&optionByClient != 0:
		o.Fragments = lb.FragmentsByClient
	case b&optionFragmentsPass != 0:
		o.Fragments = lb.FragmentsPass
	}
	switch {
	case b&optionKatranIDs != 0:
		o.ConnectionIDs = lb.ConnectionIDsKatran
	case b&optionQUICLBIDs != 0:
		o.ConnectionIDs = lb.ConnectionIDsQUICLB
	}
	return o
}

// ringWord is the word in front of a ring's slots.
func ringWord(id lb.RingID, o lb.Options) uint64 {
	return uint64(id) | uint64(optionBits(o)&^optionFragmentsPass)<<32
}

// hasOptions tells whether the program looks at the word.
func hasOptions(o lb.Options) bool { return o.OnPath() }
