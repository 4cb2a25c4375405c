// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"bytes"
	"slices"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/frames"
	"github.com/remora-lb/remora/test/require"
)

// tooBigBed has reals that take 400 bytes, less the outer headers' 20.
func tooBigBed(t *testing.T, cfg Config) *flowBed {
	t.Helper()
	require.Root(t)
	cfg.Flows = testFlows
	d, err := Open(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { d.Close() })
	b := &flowBed{t, d}
	b.fill(lb.FlowTransitions, lb.StableSlot(cur))
	r := testReal(t, cur, bedVIP4+":443/tcp", lb.IPIP, bedAddr(cur).String())
	r.NextHop.MTU = 400
	require.NoError(t, d.SetReals([]lb.Real{r}))
	return b
}

// tooBigFrame is a frame with a packet of n bytes.
func tooBigFrame(v6 bool, n int, tags ...frames.Tag) []byte {
	header := 40
	if v6 {
		header = 60
	}
	segment := tcpOf(frames.ACK)
	segment.Data = bytes.Repeat([]byte{0xa5, 1}, n)[:n-header]
	return frames.Frame{Dst: [6]byte{2, 0, 0, 0, 0, 1}, Src: [6]byte{2, 0, 0, 0, 0, 9}, Tags: tags, Packet: toVIP(v6, segment)}.Bytes()
}

// The answer, against one that is put together by the test's own builders.
func TestTooBigIsTold(t *testing.T) {
	tag := frames.Tag{EtherType: frames.EtherTypeTag, Control: 0x2064}
	outer := frames.Tag{EtherType: frames.EtherTypeSTag, Control: 0x0007}
	for _, tt := range []struct {
		name string
		v6   bool
		tags []frames.Tag
	}{
		{"IPv4", false, nil},
		{"IPv4 with a tag", false, []frames.Tag{tag}},
		{"IPv4 with two", false, []frames.Tag{outer, tag}},
		{"IPv6", true, nil},
		{"IPv6 with a tag", true, []frames.Tag{tag}},
		{"IPv6 with two", true, []frames.Tag{outer, tag}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := tooBigBed(t, Config{})
			frame := tooBigFrame(tt.v6, 381, tt.tags...)
			quote, message := 84, frames.ICMP{Type: 3, Code: 4, Rest: 380}
			if tt.v6 {
				quote, message = 248, frames.ICMP{Type: frames.TooBig6, Rest: 380}
			}
			message.Data = frame[14+4*len(tt.tags):][:quote]
			want := frames.Frame{Dst: [6]byte{2, 0, 0, 0, 0, 9}, Src: [6]byte{2, 0, 0, 0, 0, 1}, Tags: tt.tags,
				Packet: packetFrom(vipOf(tt.v6), clientOf(tt.v6), message)}.Bytes()
			if got := wantEnd(t, b.d, "packet", frame, lb.ReasonTooBigTold); !bytes.Equal(got, want) {
				t.Errorf("answer\n%x, want\n%x", got, want)
			}
			wantEnd(t, b.d, "the longest that fits", tooBigFrame(tt.v6, 380, tt.tags...), lb.ReasonForwarded)
		})
	}
}

func TestTooBigIsNotTold(t *testing.T) {
	b := tooBigBed(t, Config{})
	r := testReal(t, cur, bedVIP4+":443/tcp", lb.IPIP, bedAddr(cur).String())
	r.NextHop.MTU = 70 // 50
	require.NoError(t, b.d.SetReals([]lb.Real{r}))
	wantEnd(t, b.d, "shorter than the quote", tooBigFrame(false, 83), lb.ReasonTooBig)
	wantEnd(t, b.d, "as long as the quote", tooBigFrame(false, 84), lb.ReasonTooBigTold)
	wantEnd(t, b.d, "IPv6, shorter than the quote", tooBigFrame(true, 247), lb.ReasonTooBig)
	wantEnd(t, b.d, "IPv6, as long as the quote", tooBigFrame(true, 248), lb.ReasonTooBigTold)
	wantEnd(t, b.d, "an ICMP error", slices.Clone(errorOf(false)), lb.ReasonTooBig)
	r.NextHop.MTU = 20
	require.NoError(t, b.d.SetReals([]lb.Real{r}))
	wantEnd(t, b.d, "nothing fits", tooBigFrame(false, 84), lb.ReasonTooBig)
}

// A packet that its real does not take has asked the flow table once.
func TestTooBigOnMovingSlot(t *testing.T) {
	b := tooBigBed(t, Config{})
	b.setSlots(lb.MovingSlot(prev, cur))
	wantEnd(t, b.d, "packet", tooBigFrame(false, 381), lb.ReasonTooBigTold)
	wantEqual(t, "events", b.events(), map[lb.FlowEvent]uint64{lb.FlowTakenOld: 1})
}

// Echo requests and packets that are too big share one budget.
func TestAnswerLimit(t *testing.T) {
	onOneCPU(t)
	b := tooBigBed(t, Config{AnswerLimit: 2})
	echo := frameOf(toVIP(false, frames.ICMP{Type: frames.EchoRequest}))
	// A new tick may begin between two packets, so it is tried until none does.
	for range 10 {
		clock := flowClockOf(t, b.d)
		var got []lb.Verdict
		for _, frame := range [][]byte{echo, tooBigFrame(false, 381), echo, tooBigFrame(false, 381)} {
			verdict, _ := send(t, b.d.Program(), frame)
			got = append(got, verdict)
		}
		if flowClockOf(t, b.d).now != clock.now {
			continue
		}
		if got[2] != lb.Drop || got[3] != lb.Drop {
			t.Errorf("verdicts %v, want the last two to be dropped", got)
		}
		s, err := b.d.Snapshot()
		require.NoError(t, err)
		if s.Reasons[lb.ReasonEchoLimited] == 0 || s.Reasons[lb.ReasonTooBig] == 0 || s.Reasons[lb.ReasonEchoAnswered] == 0 {
			t.Errorf("reasons %v", countsOf(s).Reasons)
		}
		return
	}
	t.Error("no ten packets within one tick")
}
