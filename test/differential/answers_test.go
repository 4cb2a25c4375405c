// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/dataplane"
	"github.com/remora-lb/remora/lb/model"
	"github.com/remora-lb/remora/test/frames"
	"github.com/remora-lb/remora/test/require"
)

// answers is how many answers are given in a sequence, and how many there are.
type answers struct {
	limit, given int
}

func (a *answers) spent() bool { return a.given >= a.limit }

func (a *answers) count(r lb.Reason) {
	if r == lb.ReasonEchoAnswered || r == lb.ReasonTooBigTold {
		a.given++
	}
}

// freshAnswers is a program whose sequences begin soon after a tick of its answers does: the first answer
// of the tick is a probe's, all others are of the sequence.
type freshAnswers struct {
	*program
	vip netip.Addr // of IPv4
}

// rewind implements subject. It waits for the first echo that is answered after some were not.
func (f *freshAnswers) rewind(tables *model.Tables) error {
	if err := f.program.rewind(tables); err != nil {
		return err
	}
	deadline := time.Now().Add(20 * time.Second)
	for limitedBefore := false; time.Now().Before(deadline); {
		verdict, _, err := f.run(frames.Frame{Packet: frames.IPv4{
			Src: netip.AddrFrom4([4]byte{198, 51, 100, 255}), Dst: f.vip, Payload: frames.ICMP{Type: frames.EchoRequest},
		}}.Bytes())
		if err != nil {
			return err
		}
		if limitedBefore && verdict == lb.TX {
			return nil
		}
		limitedBefore = verdict == lb.Drop
	}
	return errors.New("no tick of the answers ended within 20 s")
}

// TestAnswerLimit compares sequences in which some echo requests and packets that are too big are
// answered, and then no more.
func TestAnswerLimit(t *testing.T) {
	require.Root(t)
	const seed, sequences, framesEach, limit = 41, 5, 400, 12
	const repeats = 100 // if a tick ends within a sequence: often, on a busy machine
	t.Logf("seed %d", seed)
	runOnOneCPU(t)
	collectSeldom(t)
	world := worldOf(seed)
	p := loadWith(t, dataplane.Config{Flows: flowPlaces, AnswerLimit: limit}, world)
	f := &freshAnswers{program: p, vip: frames.Targets(world)[0].Addr}
	met := map[lb.Reason]int{}
	spentTooBig := 0
	budget := &answers{limit: limit - 1}
	o := &oracle{answers: budget, amend: func(tables *model.Tables, frame []byte, res *model.Result) {
		met[res.Reason]++
		unlimited := *tables
		unlimited.AnswersSpent = false
		if res.Reason == lb.ReasonTooBig && tables.AnswersSpent && unlimited.Process(frame, nil).Reason == lb.ReasonTooBigTold {
			spentTooBig++
		}
	}}
	c, err := newComparison(o, f, world)
	if err != nil {
		t.Fatal(err)
	}
	generator := newWorldGenerator(world, seed)
	for range sequences {
		steps := frameSteps(next(generator, framesEach)...)
		found, err := c.sequence(steps)
		for n := 0; n < repeats && errors.Is(err, errNotRepeated); n++ {
			found, err = c.sequence(steps)
		}
		if err != nil {
			t.Fatal(err)
		}
		if found != nil {
			report(t, o, found)
			return
		}
	}
	t.Logf("met %v, too big and not told %d", met, spentTooBig)
	if met[lb.ReasonEchoLimited] < 10 || spentTooBig < 10 || met[lb.ReasonEchoAnswered] < 10 || met[lb.ReasonTooBigTold] < 10 {
		t.Errorf("too few frames to tell: %v", met)
	}
}
