// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package offload

// Rule names what a card asks of an object. docs/offload.md gives the reason for each.
type Rule string

// The rules about maps (M), instructions (I) and whole programs (W).
const (
	RuleMapType      Rule = "M1"
	RuleMapFlags     Rule = "M2"
	RuleElementBytes Rule = "M3"
	RuleElements     Rule = "M4"
	RuleData         Rule = "M5"
	RuleWordUse      Rule = "M6"

	RuleOpcode     Rule = "I1"
	RuleHelper     Rule = "I2"
	RuleReference  Rule = "I3"
	RuleContext    Rule = "I4"
	RuleMemory     Rule = "I5"
	RuleMapCall    Rule = "I6"
	RuleArithmetic Rule = "I7"
	RulePointer    Rule = "I8"
	RuleAdjustHead Rule = "I9"
	RuleUpdate     Rule = "I10"
	RuleVerdict    Rule = "I11"

	RuleStack   Rule = "W1"
	RuleLength  Rule = "W2"
	RulePacket  Rule = "W3"
	RuleProgram Rule = "W4"
)

// Rules are all rules in order.
func Rules() []Rule {
	return []Rule{
		RuleMapType, RuleMapFlags, RuleElementBytes, RuleElements, RuleData, RuleWordUse,
		RuleOpcode, RuleHelper, RuleReference, RuleContext, RuleMemory, RuleMapCall, RuleArithmetic, RulePointer,
		RuleAdjustHead, RuleUpdate, RuleVerdict,
		RuleStack, RuleLength, RulePacket, RuleProgram,
	}
}

// Title says in a few words what the rule asks for.
func (r Rule) Title() string {
	return map[Rule]string{
		RuleMapType:      "maps are ARRAY or HASH",
		RuleMapFlags:     "maps have no flags, NUMA node or inner map",
		RuleElementBytes: "elements fit the card",
		RuleElements:     "all elements, and the number of maps, fit the card",
		RuleData:         "no data sections, Kconfig variables or kernel symbols",
		RuleWordUse:      "each word of a value is either read or added to",
		RuleOpcode:       "instructions are translated",
		RuleHelper:       "helpers are offered",
		RuleReference:    "calls go to helpers or to functions of the program, immediates are plain or maps",
		RuleContext:      "of the context only data and data_end are read",
		RuleMemory:       "values are not stored to; offsets on the stack and in values are constant; atomics only add",
		RuleMapCall:      "keys and new values of map calls are on the stack, at constant offsets that 4 divides",
		RuleArithmetic:   "factors and dividends fit 32 bits, divisors are constant",
		RulePointer:      "an instruction finds one kind of memory on all paths",
		RuleAdjustHead:   "one adjust_head by a constant is fast",
		RuleUpdate:       "maps with counters are not updated by the program",
		RuleVerdict:      "verdicts are aborted, drop, pass or transmit",
		RuleStack:        "the stack of the deepest calls fits the card",
		RuleLength:       "the translated program fits the card",
		RulePacket:       "the packet's bytes that are looked at are near its start",
		RuleProgram:      "the program is plain XDP",
	}[r]
}
