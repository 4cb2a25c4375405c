// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/model"
	"github.com/remora-lb/remora/test/frames"
)

// maxMetadata is more than the kernel takes in front of a frame: the headroom of a test run is 256
// bytes, of which it needs some itself (net/bpf/test_run.c).
const maxMetadata = 256

// TestNoRoom is about the one reason that the model cannot give, because it depends on the driver.
// A test run has room enough for all outer headers, but metadata in front of the frame takes it up.
// Around each length of outer headers, the program must give up exactly where they do not fit; so it must
// where the headers of an answer to a packet that is too big do not.
func TestNoRoom(t *testing.T) {
	const framesEach = 2_000
	tables := frames.Tables(1)
	p := load(t, tables)
	room := findRoom(t, p)
	t.Logf("%d bytes of room in front of a frame", room)
	generator := newGenerator(tables, 1)
	for _, outer := range []int{20, 28, 40, 48} {
		for _, metadata := range []int{room - outer, room - outer + 4} {
			t.Run(fmt.Sprintf("%d bytes left", room-metadata), func(t *testing.T) {
				p.metadata = metadata
				compareNoRoom(t, tables, p, room-metadata, next(generator, framesEach))
			})
		}
	}
}

// compareNoRoom compares frames with the model, and with what follows for outer headers that are
// longer than the room.
func compareNoRoom(t *testing.T, tables *model.Tables, p *program, room int, group [][]byte) {
	met := map[lb.Reason]int{}
	o := &oracle{amend: func(tables *model.Tables, frame []byte, res *model.Result) {
		if added(tables, res) > room {
			res.Verdict, res.Reason = lb.ReasonNoRoom.Verdict(), lb.ReasonNoRoom
			res.Frame, res.Bytes = frame, 0
		}
		met[res.Reason]++
	}}
	c, err := newComparison(o, p, tables)
	if err != nil {
		t.Fatal(err)
	}
	found, err := c.sequence(frameSteps(group...))
	if err != nil {
		t.Fatal(err)
	}
	if found != nil {
		report(t, o, found)
	}
	if tooLittle := room < 48; tooLittle != (met[lb.ReasonNoRoom] > 0) {
		t.Errorf("%d of %d frames end as %s", met[lb.ReasonNoRoom], len(group), lb.ReasonNoRoom)
	}
	if enough := room >= 20; enough != (met[lb.ReasonForwarded] > 0) {
		t.Errorf("%d of %d frames are forwarded", met[lb.ReasonForwarded], len(group))
	}
}

// added is how many bytes the frame needs in front of its IP packet.
func added(tables *model.Tables, res *model.Result) int {
	real := tables.Reals[res.Real]
	switch {
	case res.Reason == lb.ReasonForwarded:
		return real.Tunnel.OuterLen()
	case res.Reason == lb.ReasonTooBigTold && real.VIP.Addr.Is6():
		return 40 + 8 // headers of IPv6 and ICMPv6
	case res.Reason == lb.ReasonTooBigTold:
		return 20 + 8
	}
	return 0
}

// findRoom is the greatest length of metadata with which the shortest outer headers still fit, and
// these. It differs between kernels. It skips the test where metadata cannot be that long.
func findRoom(t *testing.T, p *program) int {
	t.Helper()
	frame := shortestOuter(t, p)
	for p.metadata = 0; p.metadata < maxMetadata; p.metadata += 4 {
		verdict, _, err := p.run(frame)
		switch {
		case errors.Is(err, unix.EINVAL):
			t.Skipf("this kernel takes less than %d bytes of metadata in a test run, which leaves room enough", p.metadata)
		case err != nil:
			t.Fatal(err)
		case verdict == lb.Drop:
			return p.metadata - 4 + 20
		}
	}
	t.Fatalf("there is room for outer headers in front of %d bytes of metadata", maxMetadata)
	return 0
}

// shortestOuter is a frame that is forwarded with 20 bytes of outer headers.
func shortestOuter(t *testing.T, p *program) []byte {
	t.Helper()
	tables := frames.Tables(1)
	for _, frame := range next(newGenerator(tables, 1), 1_000) {
		res := tables.Process(frame, nil)
		if res.Reason == lb.ReasonForwarded && tables.Reals[res.Real].Tunnel.OuterLen() == 20 {
			return frame
		}
	}
	t.Fatal("no frame is of the kind that is looked for")
	return nil
}
