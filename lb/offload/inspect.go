// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package offload

import (
	"slices"

	"github.com/cilium/ebpf/asm"
)

// inspector judges one instruction by what is known before it.
type inspector struct {
	*checker
	a     *analysis
	n     *node
	m     *machine
	where place
}

// inspect judges all instructions that are reached.
func inspect(c *checker, a *analysis) {
	heads := 0
	for i := range a.nodes {
		n := &a.nodes[i]
		if n.before == nil {
			continue // the verifier removes it
		}
		v := inspector{checker: c, a: a, n: n, m: n.before, where: place{a.program, n.at, n.line}}
		v.instruction()
		if isHelper(n.ins, asm.FnXdpAdjustHead) {
			if heads++; heads > 1 {
				v.warn(RuleAdjustHead, "there is another adjust_head before; each then takes 14 instructions of a card instead of 5")
			}
		}
	}
}

func isHelper(ins *asm.Instruction, fn asm.BuiltinFunc) bool {
	return ins.IsBuiltinCall() && asm.BuiltinFunc(ins.Constant) == fn
}

func (v inspector) refuse(r Rule, format string, args ...any) {
	v.findAt(v.where, r, Error, format, args...)
}

func (v inspector) warn(r Rule, format string, args ...any) {
	v.findAt(v.where, r, Warning, format, args...)
}

func (v inspector) instruction() {
	ins := v.n.ins
	if ins.Dst >= asm.R6 && ins.Dst <= asm.R9 {
		v.a.functions[v.n.function].saves = true
	}
	switch class := ins.OpCode.Class(); class {
	case asm.LdClass:
		v.immediate()
	case asm.LdXClass:
		if ins.OpCode.Mode() != asm.MemMode {
			v.refuse(RuleOpcode, "a load with sign extension is not translated; compile with -mcpu=v3")
			return
		}
		v.access(v.m.registers[ins.Src], false)
	case asm.StClass:
		v.refuse(RuleOpcode, "storing an immediate is not translated; compile with -mcpu=v3")
		v.access(v.m.registers[ins.Dst], true)
	case asm.StXClass:
		v.storeRegister()
	case asm.ALUClass, asm.ALU64Class:
		v.arithmetic()
	default:
		v.jump()
	}
}

func (v inspector) immediate() {
	switch ins := v.n.ins; {
	case !ins.OpCode.IsDWordLoad():
		v.refuse(RuleOpcode, "a load of packet bytes by absolute or indirect offset is not translated")
	case ins.IsLoadFromMap() && ins.Src == asm.PseudoMapFD:
	case ins.IsLoadFromMap():
		v.refuse(RuleData, "data section %s is used here, and a card has none", ins.Reference())
	case ins.Src != asm.R0 || ins.Reference() != "":
		v.refuse(RuleReference, "an immediate that the kernel fills in (%s) is not translated", ins.Reference())
	}
}

// access judges a load or store by the memory that it goes to.
func (v inspector) access(base abstract, store bool) {
	ins := v.n.ins
	places := base.places(ins.Offset)
	size := int64(ins.OpCode.Size().Sizeof())
	switch base.kind {
	case context:
		v.context(places, size, store)
	case packet:
		v.packet(base, size)
	case stack:
		v.stackAccess(base, places)
	case value:
		if store {
			v.refuse(RuleMemory, "a store to a value of map %s; a card takes bpf_map_update_elem and atomic additions", base.mapName)
			return
		}
		v.value(base, places, size, false)
	default:
		v.refuse(RulePointer, "the address is in %s, where one kind of memory is expected on all paths", base.kind)
	}
}

// value judges reading a value of a map, or adding to it.
func (v inspector) value(base abstract, places []int64, size int64, adds bool) {
	switch {
	case places == nil:
		v.refuse(RuleMemory, "a value of map %s is used at an offset that is not constant", base.mapName)
	case base.mapName == "":
		v.refuse(RulePointer, "the address is in values of several maps, by the path")
		return
	}
	for _, at := range places {
		v.useWords(base.mapName, at, size, adds, v.where)
	}
}

func (v inspector) context(places []int64, size int64, store bool) {
	at := int64(-1)
	if len(places) == 1 {
		at = places[0]
	}
	switch {
	case store && at == contextQueueIndex && v.profile.QueueSelect:
	case store:
		v.refuse(RuleContext, "a store to the context")
	case size != 4 || at != contextData && at != contextDataEnd:
		v.refuse(RuleContext, "the context is read (offset %d, %d bytes); a card has data (0) and data_end (4), 4 bytes each", at, size)
	}
}

// maxPacketBytes is how far into a packet the kernel's verifier lets any program look.
const maxPacketBytes = 65535

func (v inspector) packet(base abstract, size int64) {
	far := maxPacketBytes
	if base.offset.high < maxPacketBytes {
		far = int(base.offset.high + int64(v.n.ins.Offset) + size)
	}
	v.a.packetBytes = max(v.a.packetBytes, far)
}

// stackAccess judges loads and stores. Where they go to different places by the path, the driver wants
// these to be alike within a word.
func (v inspector) stackAccess(base abstract, places []int64) {
	unlike := slices.ContainsFunc(places, func(at int64) bool { return (at-places[0])%4 != 0 })
	if places == nil || unlike {
		v.refuse(RuleMemory, "an access to the stack at an offset that is not constant")
	}
	if base.offset.low != anyOffset.low {
		v.usesStack(base.frame, base.offset.low+int64(v.n.ins.Offset))
	}
}

// usesStack notes how deep a function's stack is.
func (v inspector) usesStack(frame int, at int64) {
	f := &v.a.functions[frame]
	f.depth = max(f.depth, -at)
}

func (v inspector) storeRegister() {
	ins := v.n.ins
	base := v.m.registers[ins.Dst]
	if ins.OpCode.Mode() == asm.MemMode {
		v.access(base, true)
		return
	}
	switch {
	case ins.OpCode.Mode() != asm.AtomicMode:
		v.refuse(RuleOpcode, "this kind of store is not translated")
	case ins.OpCode.AtomicOp() != asm.AddAtomic:
		v.refuse(RuleMemory, "atomic %s; a card has additions whose result is not used", ins.OpCode.AtomicOp())
	case base.kind != value:
		v.refuse(RuleMemory, "an atomic addition to %s; a card adds to values of maps", base.kind)
	case v.m.registers[ins.Src].kind != scalar:
		v.refuse(RuleMemory, "an atomic addition of %s", v.m.registers[ins.Src].kind)
	default:
		v.value(base, base.places(ins.Offset), int64(ins.OpCode.Size().Sizeof()), true)
	}
}

func (v inspector) arithmetic() {
	ins := v.n.ins
	a, b := v.m.registers[ins.Dst], v.m.operand(ins)
	fits := func(n abstract) bool { return n.kind == scalar && n.number.high <= any32.high }
	switch op := ins.OpCode.ALUOp(); op {
	case asm.Mul:
		switch {
		case ins.OpCode.Source() == asm.ImmSource && ins.OpCode.Class() == asm.ALU64Class && ins.Constant < 0:
			v.refuse(RuleArithmetic, "a 64-bit multiplication by the negative number %d", ins.Constant)
		case !fits(a), ins.OpCode.Source() == asm.RegSource && !fits(b):
			v.refuse(RuleArithmetic, "a factor may not fit 32 bits, or kernels before 6.10 cannot tell (after \"or\", \"xor\" or \"mul\" with a register); "+
				"a 32-bit move of the register to itself tells them")
		}
	case asm.Div:
		switch {
		case ins.OpCode.Source() == asm.RegSource && !b.number.constant():
			v.refuse(RuleArithmetic, "the divisor is not constant")
		case !fits(b):
			v.refuse(RuleArithmetic, "the divisor is negative, or does not fit 32 bits")
		case !fits(a):
			v.refuse(RuleArithmetic, "the dividend may not fit 32 bits")
		}
	case asm.Mod, asm.SDiv, asm.SMod, asm.MovSX8, asm.MovSX16, asm.MovSX32:
		v.refuse(RuleOpcode, "%s is not translated", op)
	case asm.Swap:
		if ins.OpCode.Class() != asm.ALUClass || ins.OpCode.Endianness() != asm.BE {
			v.refuse(RuleOpcode, "swapping bytes is translated to big endian only, of -mcpu=v3")
		}
	}
}

func (v inspector) jump() {
	ins := v.n.ins
	op := ins.OpCode.JumpOp()
	switch {
	case ins.IsKfuncCall():
		v.refuse(RuleReference, "a call of the kernel function %s", ins.Reference())
	case ins.IsFunctionCall():
		v.stackArguments()
	case ins.IsBuiltinCall() && ins.OpCode.Source() == asm.ImmSource:
		v.helper(asm.BuiltinFunc(ins.Constant))
	case op == asm.Call:
		v.refuse(RuleReference, "a call by pointer")
	case op == asm.Exit && v.n.function == 0:
		v.verdict(v.m.registers[asm.R0])
	case ins.OpCode.Class() == asm.Jump32Class && op == asm.Ja:
		v.refuse(RuleOpcode, "a long jump is not translated; compile with -mcpu=v3")
	}
}

// stackArguments notes how deep the stack is that is passed to a function.
func (v inspector) stackArguments() {
	for r := asm.R1; r <= asm.R5; r++ {
		if a := v.m.registers[r]; a.kind == stack && a.offset.low != anyOffset.low {
			v.usesStack(a.frame, a.offset.low)
		}
	}
}

func (v inspector) helper(fn asm.BuiltinFunc) {
	if !slices.Contains(v.profile.Helpers, fn) {
		v.refuse(RuleHelper, "the helper %s (%d) is not offered", fn, fn)
		return
	}
	v.stackArguments()
	switch fn {
	case asm.FnMapLookupElem, asm.FnMapDeleteElem:
		v.onStack(asm.R2, "key")
	case asm.FnMapUpdateElem:
		v.onStack(asm.R2, "key")
		v.onStack(asm.R3, "new value")
		v.updates = append(v.updates, mapUpdate{v.m.registers[asm.R1].mapName, v.where})
	case asm.FnXdpAdjustHead:
		if !v.m.registers[asm.R2].number.constant() {
			v.warn(RuleAdjustHead, "adjust_head by what is not constant takes 14 instructions of a card instead of 5")
		}
	}
}

func (v inspector) onStack(r asm.Register, what string) {
	a := v.m.registers[r]
	switch {
	case a.kind != stack:
		v.refuse(RuleMapCall, "the %s is in %s; a card takes it from the stack", what, a.kind)
	case a.constants == nil:
		v.refuse(RuleMapCall, "the %s is on the stack at an offset that is not constant", what)
	}
	for _, at := range a.places(0) {
		if a.kind == stack && at%4 != 0 {
			v.refuse(RuleMapCall, "the %s is on the stack at offset %d, which 4 does not divide", what, at)
		}
	}
}

// The verdicts that a card follows are 0 to 3: enum xdp_action (linux/bpf.h).
const greatestVerdict = 3

func (v inspector) verdict(a abstract) {
	switch {
	case a.kind == scalar && a.number.high <= greatestVerdict:
	case a.kind == scalar && slices.ContainsFunc(a.constants, func(n uint64) bool { return n > greatestVerdict }):
		v.refuse(RuleVerdict, "a verdict may be %d: a card drops such packets as aborted", a.number.high)
	default:
		v.warn(RuleVerdict, "a verdict is not known; a card drops packets of others than 0 to 3 as aborted")
	}
}
