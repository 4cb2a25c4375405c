// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package offload

import (
	"maps"
	"math"
	"math/bits"
	"slices"

	"github.com/cilium/ebpf/asm"
)

// The places of struct xdp_md (linux/bpf.h) that a card knows.
const (
	contextData       = 0
	contextDataEnd    = 4
	contextQueueIndex = 16
)

// step is what an instruction that neither jumps nor ends does.
func (m *machine) step(n *node) {
	ins := n.ins
	switch ins.OpCode.Class() {
	case asm.LdClass:
		m.registers[ins.Dst] = loadImmediate(ins)
	case asm.LdXClass:
		m.registers[ins.Dst] = m.load(n)
	case asm.StClass, asm.StXClass:
		m.store(n)
	case asm.ALUClass, asm.ALU64Class:
		m.compute(ins)
	case asm.JumpClass:
		if ins.OpCode.JumpOp() == asm.Call {
			m.callHelper(ins)
		}
	}
}

func loadImmediate(ins *asm.Instruction) abstract {
	switch {
	case ins.IsLoadFromMap() && ins.Src == asm.PseudoMapFD:
		return abstract{kind: mapPointer, mapName: ins.Reference()}
	case ins.IsLoadFromMap():
		return abstract{kind: value, mapName: ins.Reference(), offset: anyOffset}
	case ins.OpCode.IsDWordLoad() && ins.Src == asm.R0:
		return constant(uint64(ins.Constant))
	}
	return number(anyNumber)
}

// numberOf is what a load of so many bytes may give.
func numberOf(size asm.Size) abstract {
	if bytes := size.Sizeof(); bytes > 0 && bytes < 8 {
		return number(interval[uint64]{0, 1<<(8*bytes) - 1})
	}
	return number(anyNumber)
}

func (m *machine) load(n *node) abstract {
	ins := n.ins
	if ins.OpCode.Mode() != asm.MemMode {
		return number(anyNumber)
	}
	base, size := m.registers[ins.Src], ins.OpCode.Size()
	places := base.places(ins.Offset)
	if len(places) != 1 {
		return numberOf(size)
	}
	switch at := places[0]; {
	case base.kind == context && size == asm.Word && at == contextData:
		return pointer(packet, 0)
	case base.kind == context && size == asm.Word && at == contextDataEnd:
		return pointer(packetEnd, 0)
	case base.kind == stack && base.frame == n.function && size == asm.DWord:
		if slot, ok := m.slots[at]; ok {
			return slot
		}
	}
	return numberOf(size)
}

// store keeps track of what is spilled to the function's own stack.
func (m *machine) store(n *node) {
	ins := n.ins
	base := m.registers[ins.Dst]
	if base.kind != stack || base.frame != n.function {
		return
	}
	places := base.places(ins.Offset)
	if places == nil {
		m.slots = map[int64]abstract{}
		return
	}
	size := int64(ins.OpCode.Size().Sizeof())
	for slot := range m.slots {
		if slot < places[len(places)-1]+size && places[0] < slot+8 {
			delete(m.slots, slot)
		}
	}
	if ins.OpCode.Class() == asm.StXClass && ins.OpCode.Mode() == asm.MemMode && size == 8 && len(places) == 1 {
		m.slots[places[0]] = m.registers[ins.Src]
	}
}

// callHelper is a call of one of the kernel's functions.
func (m *machine) callHelper(ins *asm.Instruction) {
	result := number(anyNumber)
	if ins.IsBuiltinCall() && asm.BuiltinFunc(ins.Constant) == asm.FnMapLookupElem {
		result = pointer(value, 0)
		result.mapName = m.registers[asm.R1].mapName
	}
	m.forget()
	m.registers[asm.R0] = result
}

// forget is what any call does to registers.
func (m *machine) forget() {
	for r := asm.R0; r <= asm.R5; r++ {
		m.registers[r] = abstract{}
	}
	m.registers[asm.R0] = number(anyNumber)
}

// forgetPassed forgets what lies on a function's stack from where arguments point to it.
func (m *machine) forgetPassed(function int) {
	for r := asm.R1; r <= asm.R5; r++ {
		if a := m.registers[r]; a.kind == stack && a.frame == function {
			maps.DeleteFunc(m.slots, func(at int64, _ abstract) bool { return at+8 > a.offset.low })
		}
	}
}

// operand is the second operand of an instruction.
func (m *machine) operand(ins *asm.Instruction) abstract {
	if ins.OpCode.Source() == asm.RegSource {
		return m.registers[ins.Src]
	}
	return constant(uint64(ins.Constant))
}

func (m *machine) compute(ins *asm.Instruction) {
	op, wide := ins.OpCode.ALUOp(), ins.OpCode.Class() == asm.ALU64Class
	a, b := m.registers[ins.Dst], m.operand(ins)
	if op == asm.Swap {
		bytes := ins.Constant / 8
		m.registers[ins.Dst] = number(anyNumber)
		if bytes > 0 && bytes < 8 {
			m.registers[ins.Dst] = number(interval[uint64]{0, 1<<(8*bytes) - 1})
		}
		return
	}
	if wide {
		m.registers[ins.Dst] = compute64(op, a, b)
		return
	}
	m.registers[ins.Dst] = compute32(op, lower(a), lower(b))
}

// lower is the lower half of what a register holds.
func lower(a abstract) abstract {
	switch {
	case a.kind == scalar && a.number.constant():
		return constant(uint64(uint32(a.number.low)))
	case a.kind == scalar && a.number.high <= math.MaxUint32:
		return a
	}
	return number(any32)
}

// compute32 has operands that fit 32 bits. Kernels before 6.10 forget that of the result of "or", "xor"
// and "mul" with a register.
func compute32(op asm.ALUOp, a, b abstract) abstract {
	r := compute64(op, a, b)
	switch {
	case forgotten(op, b):
		return r
	case r.kind == scalar && r.number.constant():
		return constant(uint64(uint32(r.number.low)))
	case r.kind == scalar && r.number.high <= math.MaxUint32 && op != asm.ArSh:
		return r
	}
	return number(any32)
}

func forgotten(op asm.ALUOp, b abstract) bool {
	return (op == asm.Or || op == asm.Xor || op == asm.Mul) && !b.number.constant()
}

func compute64(op asm.ALUOp, a, b abstract) abstract {
	if op == asm.Mov {
		return b
	}
	if a.kind != scalar || b.kind != scalar {
		return movePointer(op, a, b)
	}
	if a.number.constant() && b.number.constant() {
		if r, ok := fold(op, a.number.low, b.number.low); ok {
			return constant(r)
		}
	}
	if forgotten(op, b) {
		return number(anyNumber)
	}
	return number(bounds(op, a.number, b.number))
}

// movePointer is arithmetic with pointers.
func movePointer(op asm.ALUOp, a, b abstract) abstract {
	switch {
	case op == asm.Add && b.kind == scalar && isPointer(a):
		return a.shifted(b.number, 1)
	case op == asm.Add && a.kind == scalar && isPointer(b):
		return b.shifted(a.number, 1)
	case op == asm.Sub && b.kind == scalar && isPointer(a):
		return a.shifted(b.number, -1)
	}
	return number(anyNumber)
}

func isPointer(a abstract) bool { return a.kind != scalar && a.kind != unset && a.kind != mixed }

// shifted moves a pointer by a number, of which only constants can be negative.
func (a abstract) shifted(by interval[uint64], sign int64) abstract {
	before := a.constants
	a.constants = nil
	if a.offset == anyOffset || !by.constant() && by.high > math.MaxInt32 {
		a.offset = anyOffset
		return a
	}
	low, high := int64(by.low)*sign, int64(by.high)*sign
	a.offset = interval[int64]{a.offset.low + min(low, high), a.offset.high + max(low, high)}
	if by.constant() {
		for _, n := range before {
			a.constants = append(a.constants, n+uint64(low))
		}
	}
	return a
}

// fold computes with constants.
func fold(op asm.ALUOp, a, b uint64) (uint64, bool) {
	switch op {
	case asm.Add:
		return a + b, true
	case asm.Sub:
		return a - b, true
	case asm.Mul:
		return a * b, true
	case asm.And:
		return a & b, true
	case asm.Or:
		return a | b, true
	case asm.Xor:
		return a ^ b, true
	case asm.LSh:
		return a << (b & 63), true
	case asm.RSh:
		return a >> (b & 63), true
	case asm.Neg:
		return -a, true
	}
	return 0, false
}

// bounds is what the result of an operation may be at most, for all numbers within a and b.
func bounds(op asm.ALUOp, a, b interval[uint64]) interval[uint64] {
	switch op {
	case asm.And:
		return interval[uint64]{0, min(a.high, b.high)}
	case asm.Add:
		if high, carry := bits.Add64(a.high, b.high, 0); carry == 0 {
			return interval[uint64]{a.low + b.low, high}
		}
	case asm.Sub:
		if a.low >= b.high {
			return interval[uint64]{a.low - b.high, a.high - b.low}
		}
	case asm.Mul:
		if over, high := bits.Mul64(a.high, b.high); over == 0 {
			return interval[uint64]{a.low * b.low, high}
		}
	case asm.Or, asm.Xor:
		return interval[uint64]{0, 1<<max(bits.Len64(a.high), bits.Len64(b.high)) - 1}
	case asm.RSh:
		if b.constant() {
			return interval[uint64]{a.low >> (b.low & 63), a.high >> (b.low & 63)}
		}
		return interval[uint64]{0, a.high}
	case asm.LSh:
		if by := b.low & 63; b.constant() && bits.Len64(a.high)+int(by) <= 64 {
			return interval[uint64]{a.low << by, a.high << by}
		}
	case asm.Div:
		if b.constant() && b.low > 0 {
			return interval[uint64]{a.low / b.low, a.high / b.low}
		}
		return interval[uint64]{0, a.high}
	}
	return anyNumber
}

// assume adds what a branch tells, and tells whether it can be taken.
func (m *machine) assume(ins *asm.Instruction, taken bool) bool {
	a := m.registers[ins.Dst]
	if ins.OpCode.Source() == asm.RegSource || ins.OpCode.Class() != asm.JumpClass && a.number.high > math.MaxUint32 {
		return true
	}
	n := uint64(ins.Constant)
	if ins.OpCode.Class() == asm.Jump32Class {
		n = uint64(uint32(ins.Constant))
	}
	op := ins.OpCode.JumpOp()
	if a.kind == value && n == 0 && (op == asm.JEq) == taken && (op == asm.JEq || op == asm.JNE) {
		m.registers[ins.Dst] = constant(0)
		return true
	}
	if a.kind != scalar {
		return true
	}
	rest, possible := narrowed(a, op, n, taken)
	m.registers[ins.Dst] = rest
	return possible
}

// narrowed is what is left of a number after a comparison with a constant.
func narrowed(a abstract, op asm.JumpOp, n uint64, taken bool) (abstract, bool) {
	low, high := a.number.low, a.number.high
	below, above := func(n uint64) { high = min(high, n) }, func(n uint64) { low = max(low, n) }
	switch {
	case op == asm.JEq && taken, op == asm.JNE && !taken:
		if n < low || n > high || a.constants != nil && !slices.Contains(a.constants, n) {
			return a, false
		}
		return constant(n), true
	case op == asm.JEq, op == asm.JNE:
		if low == high && low == n {
			return a, false
		}
		if n == low {
			low++
		} else if n == high {
			high--
		}
	case op == asm.JGT && taken, op == asm.JLE && !taken:
		if n == math.MaxUint64 {
			return a, false
		}
		above(n + 1)
	case op == asm.JGT, op == asm.JLE:
		below(n)
	case op == asm.JGE && taken, op == asm.JLT && !taken:
		above(n)
	case op == asm.JGE, op == asm.JLT:
		if n == 0 {
			return a, false
		}
		below(n - 1)
	default:
		return a, true
	}
	if low > high {
		return a, false
	}
	if low == a.number.low && high == a.number.high {
		return a, true
	}
	return number(interval[uint64]{low, high}), true
}
