// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package offload

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf/asm"
)

// Profile is what a kind of card asks for.
type Profile struct {
	Name string
	// Description says in one line which cards are meant, and where the limits come from.
	Description string
	// Rules are those that are checked.
	Rules []Rule
	// ElementBytes is the most that an element may have, key and value rounded up to eight bytes each
	// and added. Elements and Maps are the most over all maps. 0: no limit is known.
	ElementBytes, Elements, Maps int
	// Instructions is the most that the translated program may have, StackBytes that its deepest calls
	// may take, PacketBytes how far into a packet it may look. 0: no limit is known.
	Instructions, StackBytes, PacketBytes int
	// Helpers are those that the card offers.
	Helpers []asm.BuiltinFunc
	// QueueSelect: rx_queue_index of the context may be written.
	QueueSelect bool
}

// Profiles are all of them; the first is the default.
func Profiles() []Profile {
	return []Profile{nfp(), arrayHash()}
}

// ParseProfile finds a profile by its name.
func ParseProfile(name string) (Profile, error) {
	var names []string
	for _, p := range Profiles() {
		if p.Name == name {
			return p, nil
		}
		names = append(names, p.Name)
	}
	return Profile{}, fmt.Errorf("no profile is called %q: there are %s", name, strings.Join(names, " and "))
}

func nfp() Profile {
	return Profile{
		Name: "nfp",
		Description: "Netronome Agilio cards, whose driver (nfp) is the only one in Linux that runs XDP on a card; " +
			"limits as published for them",
		Rules:        Rules(),
		ElementBytes: 64,
		Elements:     3_072_000,
		Maps:         64,
		Instructions: 2800,
		StackBytes:   512,
		PacketBytes:  1500,
		Helpers: []asm.BuiltinFunc{
			asm.FnMapLookupElem, asm.FnMapUpdateElem, asm.FnMapDeleteElem, asm.FnXdpAdjustHead,
			asm.FnXdpAdjustTail, asm.FnGetPrandomU32, // where the firmware has them
		},
		QueueSelect: true,
	}
}

func arrayHash() Profile {
	return Profile{
		Name: "array-hash",
		Description: "what Linux asks of any card: ARRAY and HASH maps without flags, plain programs, helpers that need no host; " +
			"no limits are known",
		Rules: []Rule{
			RuleMapType, RuleMapFlags, RuleData, RuleHelper, RuleReference, RuleVerdict, RuleProgram,
		},
		Helpers: []asm.BuiltinFunc{
			asm.FnMapLookupElem, asm.FnMapUpdateElem, asm.FnMapDeleteElem, asm.FnXdpAdjustHead,
			asm.FnXdpAdjustTail, asm.FnGetPrandomU32, asm.FnCsumDiff, asm.FnXdpLoadBytes, asm.FnXdpStoreBytes,
		},
		QueueSelect: true,
	}
}

func (p Profile) asks(r Rule) bool { return slices.Contains(p.Rules, r) }
