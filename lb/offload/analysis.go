// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package offload

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// node is an instruction with what is known before it.
type node struct {
	ins      *asm.Instruction
	line     *btf.Line // nil if the object does not tell
	at       int       // as disassemblers count: 64-bit immediates are two
	function int
	before   *machine // nil while no path is known to lead here
	visits   int
}

// function is a part of the program that is called.
type function struct {
	entry int
	// result is what it returns.
	result abstract
	// depth is how many bytes of its stack are used; saves tells that it uses callee-saved registers.
	depth int64
	saves bool
	// callers are the nodes that call it, callees the functions that it calls.
	callers, callees []int
}

// analysis follows a program along all of its paths at once. It knows less than the kernel's verifier,
// which follows one path at a time: where that matters, it takes what is possible for what is.
type analysis struct {
	program   string
	nodes     []node
	byOffset  map[int]int // index of the node by its place
	functions []function
	symbols   map[string]int // functions by name
	rawLen    int
	// packetBytes is how many bytes of a packet are looked at.
	packetBytes int
	work        []int
}

// visitsBeforeWidening is how often a loop is gone through before bounds that still grow are given up.
const visitsBeforeWidening = 64

var (
	errNoEnd      = errors.New("it leads out of the program")
	errNoRegister = errors.New("it names a register that there is not")
)

func newAnalysis(spec *ebpf.ProgramSpec) (*analysis, error) {
	a := &analysis{program: spec.Name, byOffset: map[int]int{}, symbols: map[string]int{}}
	called := map[string]bool{}
	for i := range spec.Instructions {
		if ins := &spec.Instructions[i]; ins.IsFunctionReference() {
			called[ins.Reference()] = true
		}
	}
	var line *btf.Line
	for i := range spec.Instructions {
		ins := &spec.Instructions[i]
		if l, ok := ins.Source().(*btf.Line); ok {
			line = l // of those that follow, too
		}
		if name := ins.Symbol(); i == 0 || called[name] {
			a.symbols[name] = len(a.functions)
			a.functions = append(a.functions, function{entry: i})
		}
		a.byOffset[a.rawLen] = i
		a.nodes = append(a.nodes, node{ins: ins, line: line, at: a.rawLen, function: len(a.functions) - 1})
		a.rawLen += int(ins.Width())
	}
	if len(a.nodes) == 0 {
		return nil, errors.New("it has no instructions")
	}
	return a, a.checkInstructions()
}

// checkInstructions makes sure that all registers are there, and that all ways lead to instructions.
func (a *analysis) checkInstructions() error {
	for i, n := range a.nodes {
		if n.ins.Dst > asm.R10 || n.ins.Src > asm.R10 {
			return fmt.Errorf("instruction %d: %v", n.at, errNoRegister)
		}
		for _, next := range a.successors(i) {
			if next < 0 || next >= len(a.nodes) {
				return fmt.Errorf("instruction %d: %v", n.at, errNoEnd)
			}
		}
	}
	return nil
}

// successors are the nodes that follow: the next one first, unless it is never reached. -1 is outside
// of the program.
func (a *analysis) successors(i int) []int {
	ins := a.nodes[i].ins
	if !ins.OpCode.Class().IsJump() {
		return []int{i + 1}
	}
	switch ins.OpCode.JumpOp() {
	case asm.Exit:
		return nil
	case asm.Call:
		return []int{i + 1}
	case asm.Ja:
		return []int{a.target(i)}
	}
	return []int{i + 1, a.target(i)}
}

func (a *analysis) target(i int) int {
	n := &a.nodes[i]
	offset := int(n.ins.Offset)
	if n.ins.OpCode.Class() == asm.Jump32Class && n.ins.OpCode.JumpOp() == asm.Ja {
		offset = int(n.ins.Constant) // a long jump
	}
	if to, ok := a.byOffset[n.at+int(n.ins.Width())+offset]; ok {
		return to
	}
	return -1
}

// solve finds what is known before each instruction, whatever the path to it.
func (a *analysis) solve() {
	entry := &machine{slots: map[int64]abstract{}}
	entry.registers[asm.R1] = pointer(context, 0)
	entry.registers[asm.R10] = pointer(stack, 0)
	a.reach(0, entry)
	for len(a.work) > 0 {
		i := a.work[len(a.work)-1]
		a.work = a.work[:len(a.work)-1]
		a.follow(i)
	}
}

// reach adds a path to an instruction.
func (a *analysis) reach(i int, m *machine) {
	n := &a.nodes[i]
	n.visits++
	if n.before == nil {
		n.before = m.clone()
	} else if !n.before.join(m, n.visits > visitsBeforeWidening) {
		return
	}
	a.work = append(a.work, i)
}

// follow makes the machine after an instruction known to those that follow.
func (a *analysis) follow(i int) {
	n := &a.nodes[i]
	after := n.before.clone()
	switch {
	case n.ins.IsFunctionCall():
		a.call(i, after)
		return
	case n.ins.OpCode.Class().IsJump() && n.ins.OpCode.JumpOp() == asm.Exit:
		a.leave(n.function, after.registers[asm.R0])
		return
	}
	after.step(n)
	next := a.successors(i)
	if len(next) < 2 {
		a.reach(next[0], after)
		return
	}
	for branch, to := range next {
		m := after.clone()
		if m.assume(n.ins, branch == 1) {
			a.reach(to, m)
		}
	}
}

// call goes into a function, and on behind it with what it is known to return.
func (a *analysis) call(i int, m *machine) {
	to, ok := a.symbols[a.nodes[i].ins.Reference()]
	if !ok {
		m.forget()
		a.reach(i+1, m)
		return
	}
	f := &a.functions[to]
	if !slices.Contains(f.callers, i) {
		f.callers = append(f.callers, i)
		caller := &a.functions[a.nodes[i].function]
		caller.callees = append(caller.callees, to)
	}
	inside := &machine{slots: map[int64]abstract{}}
	copy(inside.registers[asm.R1:asm.R6], m.registers[asm.R1:asm.R6])
	inside.registers[asm.R10] = pointer(stack, 0)
	inside.registers[asm.R10].frame = to
	a.reach(f.entry, inside)
	if f.result.kind != unset {
		m.forgetPassed(a.nodes[i].function)
		m.forget()
		m.registers[asm.R0] = f.result
		a.reach(i+1, m)
	}
}

// leave adds to what a function returns, and lets its callers go on.
func (a *analysis) leave(f int, result abstract) {
	fn := &a.functions[f]
	joined := fn.result.join(result)
	if joined.equal(fn.result) {
		return
	}
	if fn.result.kind != unset {
		joined = joined.widen(fn.result)
	}
	fn.result = joined
	a.work = append(a.work, fn.callers...)
}

// How the driver counts the stack: frames in units of 64 bytes, and of those that are called a return
// address and, if they use them, four registers more.
const (
	frameAlign   = 64
	returnBytes  = 4
	savedBytes   = 32
	maxCallDepth = 8 // the kernel's: include/linux/bpf_verifier.h, MAX_CALL_FRAMES
)

// stackBytes is what the deepest calls take.
func (a *analysis) stackBytes() int { return a.stackFrom(0, 0) }

func (a *analysis) stackFrom(f, calls int) int {
	fn := &a.functions[f]
	own := int(fn.depth)
	if f != 0 {
		own += returnBytes
		if fn.saves {
			own += savedBytes
		}
	}
	deepest := 0
	if calls < maxCallDepth {
		for _, callee := range fn.callees {
			deepest = max(deepest, a.stackFrom(callee, calls+1))
		}
	}
	return roundUp(own, frameAlign) + deepest
}
