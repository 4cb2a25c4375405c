// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package offload

import "github.com/cilium/ebpf/asm"

// What an instruction of eBPF becomes on an NFP card, in tenths of an instruction: fitted to what the
// driver's translator (jit.c of nfp) makes of test/corpus and of balancers with 240 to 650 instructions.
// It looks at neighbours too, so that these are averages. Balancers come out within 4 %, small programs
// within 15 %; copies from packet to packet, which it merges, as too long.
const (
	lengthProgram = 238 // how a program begins and ends

	lengthMove      = 15
	lengthCompute32 = 24
	lengthCompute64 = 20
	lengthNegative  = 46 // a 64-bit computation with a negative immediate
	lengthShift     = 14
	lengthShiftBy   = 112 // a 64-bit shift by a register
	lengthMultiply  = 71
	lengthDivide    = 120
	lengthSwap      = 26
	lengthImmediate = 11

	lengthContextLoad  = 24
	lengthContextStore = 48
	lengthStackLoad    = 20
	lengthStackStore   = 18
	lengthLoad         = 19 // of up to four bytes, of the packet or of a value
	lengthLoad8        = 35
	lengthStore        = 14
	lengthStore8       = 42
	lengthAtomic       = 49

	lengthGo         = 5 // also the end
	lengthIfZero     = 18
	lengthIf32       = 23
	lengthIf64       = 44
	lengthCall       = 22 // of a function
	lengthMapCall    = 57
	lengthAdjustHead = 113
	lengthAdjustTail = 137
	lengthOtherCall  = 24
)

// estimate is about how many instructions of an NFP card the program becomes.
func (a *analysis) estimate() int {
	tenths := lengthProgram
	for i := range a.nodes {
		if a.nodes[i].before != nil {
			tenths += a.nodes[i].length()
		}
	}
	return (tenths + 5) / 10
}

func (n *node) length() int {
	switch ins := n.ins; ins.OpCode.Class() {
	case asm.LdClass:
		return lengthImmediate
	case asm.LdXClass:
		return n.loadLength(n.before.registers[ins.Src].kind)
	case asm.StClass, asm.StXClass:
		return n.storeLength(n.before.registers[ins.Dst].kind)
	case asm.ALUClass, asm.ALU64Class:
		return n.computeLength()
	}
	return n.jumpLength()
}

func (n *node) loadLength(from kind) int {
	switch {
	case from == context:
		return lengthContextLoad
	case from == stack:
		return lengthStackLoad
	case n.ins.OpCode.Size() == asm.DWord:
		return lengthLoad8
	}
	return lengthLoad
}

func (n *node) storeLength(to kind) int {
	switch {
	case n.ins.OpCode.Mode() == asm.AtomicMode:
		return lengthAtomic
	case to == context:
		return lengthContextStore
	case to == stack:
		return lengthStackStore
	case n.ins.OpCode.Size() == asm.DWord:
		return lengthStore8
	}
	return lengthStore
}

func (n *node) computeLength() int {
	wide := n.ins.OpCode.Class() == asm.ALU64Class
	register := n.ins.OpCode.Source() == asm.RegSource
	switch n.ins.OpCode.ALUOp() {
	case asm.Mov:
		return lengthMove
	case asm.Mul:
		return lengthMultiply
	case asm.Div:
		return lengthDivide
	case asm.Swap:
		return lengthSwap
	case asm.LSh, asm.RSh, asm.ArSh:
		if wide && register {
			return lengthShiftBy
		}
		return lengthShift
	}
	switch {
	case !wide:
		return lengthCompute32
	case !register && n.ins.Constant < 0:
		return lengthNegative
	}
	return lengthCompute64
}

func (n *node) jumpLength() int {
	ins := n.ins
	op := ins.OpCode.JumpOp()
	switch {
	case op == asm.Call:
		return callLength(ins)
	case op == asm.Exit, op == asm.Ja:
		return lengthGo
	case ins.OpCode.Source() == asm.ImmSource && ins.Constant == 0:
		return lengthIfZero
	case ins.OpCode.Class() == asm.Jump32Class:
		return lengthIf32
	}
	return lengthIf64
}

func callLength(ins *asm.Instruction) int {
	if ins.IsFunctionCall() {
		return lengthCall
	}
	switch asm.BuiltinFunc(ins.Constant) {
	case asm.FnMapLookupElem, asm.FnMapUpdateElem, asm.FnMapDeleteElem:
		return lengthMapCall
	case asm.FnXdpAdjustHead:
		return lengthAdjustHead
	case asm.FnXdpAdjustTail:
		return lengthAdjustTail
	}
	return lengthOtherCall
}
