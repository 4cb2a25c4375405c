// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/lb"
)

// As in bpf/tick.h, bpf/frame.h, bpf/rewind.bpf.c and bpf/veth.bpf.c.
const (
	chunksLen     = 256
	rewindPackets = 512
	vethPackets   = 1024
	sideTarget    = uint32(0)
	sideBaseline  = uint32(1)

	maxFrame = 256
)

const (
	// rewindWarm and vethWarm are the chunks of a run that do not count.
	rewindWarm = 64
	vethWarm   = 32

	// interruptTries bounds how often a run is begun again after a signal.
	interruptTries = 5
)

// stub is the rewind stub in front of one program, with one case and number of flows. It is used
// by one goroutine.
type stub struct {
	coll   *ebpf.Collection
	frame  []byte
	flows  int
	expect Expectation
}

// newStub loads a stub for target, which must stay open as long as it.
func newStub(c Case, flows int, expect Expectation, target *ebpf.Program) (*stub, error) {
	spec, err := loadRewind()
	if err != nil {
		return nil, fmt.Errorf("load rewind stub: %w", err)
	}
	if err := setFrame(spec, c, flows); err != nil {
		return nil, fmt.Errorf("load rewind stub: %w", err)
	}
	if err := spec.Variables["frame_len"].Set(uint32(len(c.Frame))); err != nil {
		return nil, fmt.Errorf("load rewind stub: %w", err)
	}
	coll, err := loadJumping(spec, "rewind_packet", target)
	if err != nil {
		return nil, fmt.Errorf("load rewind stub: %w", err)
	}
	return &stub{coll: coll, frame: c.Frame, flows: flows, expect: expect}, nil
}

func (s *stub) close() { s.coll.Close() }

func (s *stub) program() *ebpf.Program { return s.coll.Programs["rewind_packet"] }

// check runs the target once and returns what it did; the error tells that it is not what is
// expected.
func (s *stub) check() (Expectation, error) {
	// This packet is the first one of a chunk of the target's.
	if err := s.coll.Variables["packets"].Set(uint64(rewindPackets)); err != nil {
		return Expectation{}, fmt.Errorf("set packet number: %w", err)
	}
	return checkProgram(s.program(), s.frame, s.expect)
}

func checkProgram(p *ebpf.Program, frame []byte, expect Expectation) (Expectation, error) {
	verdict, out, err := p.Test(frame)
	if err != nil {
		return Expectation{}, err
	}
	got := Expectation{Verdict: lb.Verdict(verdict), Growth: len(out) - len(frame)}
	if got != expect {
		return got, fmt.Errorf("verdict and growth are %s, expected %s", got, expect)
	}
	return got, nil
}

// warm lets the target meet nearly every flow: they come at random, and half of the packets are
// the baseline's.
func (s *stub) warm() error {
	const most = 1 << 20
	if s.flows == 1 {
		return nil
	}
	for left := 8 * s.flows; left > 0; left -= most {
		if _, err := s.program().Run(&ebpf.RunOptions{Data: s.frame, Repeat: uint32(min(left, most))}); err != nil {
			return err
		}
	}
	return nil
}

// run times chunksLen chunks. The verdict of its last packet, which is the target's, is checked.
func (s *stub) run() (sample, error) {
	const packets = chunksLen * rewindPackets
	verdict, err := runCounted(s.coll, s.program(), packets, ebpf.RunOptions{Data: s.frame})
	if err != nil {
		return sample{}, err
	}
	if v := lb.Verdict(verdict); v != s.expect.Verdict {
		return sample{}, fmt.Errorf("verdict of the last packet is %s, expected %s", v, s.expect.Verdict)
	}
	return readSample(s.coll, rewindWarm, rewindPackets)
}

// runCounted runs p for so many packets, and again if a signal interrupted it, which shows in the
// number that the program itself has counted.
func runCounted(coll *ebpf.Collection, p *ebpf.Program, packets uint32, o ebpf.RunOptions) (verdict uint32, err error) {
	o.Repeat = packets
	for range interruptTries {
		if err := coll.Variables["packets"].Set(uint64(0)); err != nil {
			return 0, fmt.Errorf("set packet number: %w", err)
		}
		if verdict, err = p.Run(&o); err != nil {
			return 0, err
		}
		var counted uint64
		if err := coll.Variables["packets"].Get(&counted); err != nil {
			return 0, fmt.Errorf("read packet number: %w", err)
		}
		if counted == uint64(packets) {
			return verdict, nil
		}
	}
	return 0, errors.New("run program: interrupted by signals again and again")
}

func readSample(coll *ebpf.Collection, warm, packets int) (sample, error) {
	var times [chunksLen]uint32
	if err := coll.Variables["chunks_ns"].Get(&times); err != nil {
		return sample{}, fmt.Errorf("read chunk times: %w", err)
	}
	return newSample(pairChunks(times[:], warm, packets)), nil
}

// setFrame sets the variables of bpf/frame.h.
func setFrame(spec *ebpf.CollectionSpec, c Case, flows int) error {
	var words [maxFrame / 8]uint64
	raw := make([]byte, maxFrame)
	copy(raw, c.Frame)
	for i := range words {
		words[i] = binary.NativeEndian.Uint64(raw[8*i:])
	}
	values := map[string]any{"frame_words": words, "restore_len": uint32(c.Restore)}
	if flows > 1 {
		values["flow_mask"] = uint32(flows - 1)
		values["src_off"] = uint32(c.Source)
		values["port_off"] = uint32(c.Port)
		if c.IPv6 {
			values["src_v6"] = uint32(1)
		}
	}
	for name, v := range values {
		if err := spec.Variables[name].Set(v); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return nil
}

// loadJumping loads a collection whose program named jumper tail-calls what is in the map sides, and
// puts target and the collection's own baseline there. The kernel only lets programs with the same
// attach type and the same support for fragmented frames call one another, and does not tell what
// target has.
func loadJumping(spec *ebpf.CollectionSpec, jumper string, target *ebpf.Program) (*ebpf.Collection, error) {
	var refused error
	for _, flags := range []uint32{0, unix.BPF_F_XDP_HAS_FRAGS} {
		for _, attach := range []ebpf.AttachType{ebpf.AttachXDP, ebpf.AttachNone} {
			variant := spec.Copy()
			for _, n := range []string{jumper, "baseline"} {
				variant.Programs[n].Flags |= flags
				variant.Programs[n].AttachType = attach
			}
			coll, err := ebpf.NewCollection(variant)
			if err != nil {
				return nil, err
			}
			if refused = putSides(coll, target); refused == nil {
				return coll, nil
			}
			coll.Close()
		}
	}
	return nil, fmt.Errorf("put program into the jump table: %w", refused)
}

func putSides(coll *ebpf.Collection, target *ebpf.Program) error {
	sides := coll.Maps["sides"]
	if err := sides.Put(sideTarget, uint32(target.FD())); err != nil {
		return err
	}
	return sides.Put(sideBaseline, uint32(coll.Programs["baseline"].FD()))
}
