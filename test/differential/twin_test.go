// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/model"
	"github.com/remora-lb/remora/lb/offload"
	"github.com/remora-lb/remora/test/frames"
	"github.com/remora-lb/remora/test/require"
)

const (
	twinFrames = 200_000 // of all seeds together
	// leastPerTwin is how many frames of each way the card must have sent, of 200 000.
	leastPerTwin = 50
)

// TestCardIsTwin: the card sends nothing but what the host sends, in the same bytes and with the same
// counters; all else passes unchanged. And every plain packet of a stable slot is sent.
func TestCardIsTwin(t *testing.T) {
	require.Root(t)
	sent := map[combination]int{}
	all := seeds(t)
	for _, seed := range all {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			tables := tablesOf(seed)
			w := newTwins(t, tables, tables)
			if err := w.compare(next(newGenerator(tables, seed), twinFrames/len(all))); err != nil {
				t.Fatal(err)
			}
			t.Log(w)
			for way, n := range w.sent {
				sent[way] += n
			}
		})
	}
	if t.Failed() {
		return // fewer frames than planned
	}
	for _, way := range combinations() {
		if n := sent[way]; way.tags == 0 && !way.checksum && n < leastPerTwin {
			t.Errorf("the card sent %d frames with %+v, too few to tell", n, way)
		}
	}
}

// twins are the card and the host, with the tables of both.
type twins struct {
	card   *card
	host   *program
	tables *model.Tables
	// onCard has the VIPs whose packets the card can send.
	onCard map[lb.VIP]bool
	// frames and plain are how many were compared, and how many of these the card has to send.
	frames, plain int
	sent          map[combination]int
}

// newTwins loads both; the host has tables, the card those that it is given.
func newTwins(tb testing.TB, tables, onCard *model.Tables) *twins {
	tb.Helper()
	w := &twins{
		card: loadCard(tb, onCard), host: load(tb, tables), tables: tables,
		onCard: map[lb.VIP]bool{}, sent: map[combination]int{},
	}
	encoded, _ := cardTables(tables)
	for _, v := range encoded.VIPs {
		w.onCard[v.VIP] = offload.OnCard(v, encoded.VIPs)
	}
	return w
}

func (w *twins) String() string {
	n := 0
	for _, of := range w.sent {
		n += of
	}
	return fmt.Sprintf("the card sent %d of %d frames: all %d plain ones of stable slots", n, w.frames, w.plain)
}

// compare returns an error about the first frame for which the two differ, or about the counters.
func (w *twins) compare(group [][]byte) error {
	before, err := w.host.counts()
	if err != nil {
		return err
	}
	passed := uint64(0)
	for _, frame := range group {
		sent, err := w.one(frame)
		if err != nil {
			return fmt.Errorf("%v; frame %x", err, frame)
		}
		if !sent {
			passed++
		}
	}
	w.frames += len(group)
	counted, err := w.card.passed()
	if err != nil {
		return err
	}
	if sum(counted) != passed {
		return fmt.Errorf("the card passed %d frames and counted %v", passed, counted)
	}
	return sameCounters(w.card, w.host, before)
}

// one compares a frame, and tells whether the card sent it.
func (w *twins) one(frame []byte) (sent bool, err error) {
	res := w.tables.Process(frame, nil)
	must := w.plainStable(frame, &res)
	verdict, out, err := w.card.run(frame)
	switch {
	case err != nil:
		return false, err
	case verdict == lb.Pass && must:
		return false, fmt.Errorf("a plain frame of a stable slot passes")
	case verdict == lb.Pass && !bytes.Equal(out, frame):
		return false, fmt.Errorf("a frame passes changed")
	case verdict == lb.Pass:
		return false, nil
	case verdict != lb.TX:
		return false, fmt.Errorf("the card's verdict is %d", verdict)
	}
	out = bytes.Clone(out)
	wantVerdict, want, err := w.host.run(frame)
	if err != nil {
		return true, err
	}
	if wantVerdict != verdict || !bytes.Equal(out, want) {
		return true, fmt.Errorf("the host's verdict is %s, and %s", wantVerdict, frameDifference(want, out))
	}
	w.note(&res, must)
	return true, nil
}

// plainStable tells whether a frame is one that a card has to send: the stable slot of a VIP that
// remembers nothing of it, no tag, option or extension header, no outer checksum.
func (w *twins) plainStable(frame []byte, res *model.Result) bool {
	real := w.tables.Reals[res.Real]
	if res.Reason != lb.ReasonForwarded || res.Flow.Flow != (model.Flow{}) || real.Tunnel.Checksum || !w.onCard[real.VIP] {
		return false
	}
	transport := func(protocol byte) bool { return protocol == byte(lb.TCP) || protocol == byte(lb.UDP) }
	switch binary.BigEndian.Uint16(frame[frames.HeaderLen-2:]) {
	case frames.EtherTypeIPv4:
		return frame[frames.HeaderLen] == 0x45 && transport(frame[frames.HeaderLen+9])
	case frames.EtherTypeIPv6:
		return transport(frame[frames.HeaderLen+6])
	}
	return false
}

func (w *twins) note(res *model.Result, plain bool) {
	if plain {
		w.plain++
	}
	real := w.tables.Reals[res.Real]
	w.sent[combination{
		inner6:      real.VIP.Addr.Is6(),
		outer6:      real.Tunnel.Destination.Is6(),
		encap:       real.Tunnel.Encap,
		checksum:    real.Tunnel.Checksum,
		defaultRing: len(w.tables.VIPs[real.VIP].Ring) == lb.DefaultRingSize,
	}]++
}

// TestTwinsThatDiffer: each kind of difference is found.
func TestTwinsThatDiffer(t *testing.T) {
	require.Root(t)
	slot := func(m mutant, s lb.Slot) { m.tables.VIPs[m.vip].Ring[m.slot] = s }
	cases := map[string]struct {
		change func(host, card mutant)
		err    string
	}{
		"another next hop":        {func(_, card mutant) { card.changeReal(func(r *lb.Real) { r.NextHop.MAC[5]++ }) }, "differs from byte 5"},
		"another real":            {func(_, card mutant) { slot(card, lb.StableSlot(card.other())) }, "the host's verdict is tx"},
		"a slot that passes":      {func(_, card mutant) { slot(card, lb.SettlingSlot(card.real)) }, "a plain frame of a stable slot passes"},
		"no next hop on the host": {func(host, _ mutant) { host.changeReal(func(r *lb.Real) { r.NextHop = lb.NextHop{MTU: 1500} }) }, "the host's verdict is drop"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			host, card := newMutant(t), newMutant(t)
			withoutChecksums(host.tables.Reals)
			withoutChecksums(card.tables.Reals)
			c.change(host, card)
			require.ErrorSays(t, newTwins(t, host.tables, card.tables).compare([][]byte{host.frame}), c.err)
		})
	}
}

// withoutChecksums makes tunnels such that a card can send to them.
func withoutChecksums(reals map[lb.RealID]lb.Real) {
	for id, r := range reals {
		r.Tunnel.Checksum = false
		reals[id] = r
	}
}

// shortest is a frame that the card has to send with 20 bytes of outer headers.
func (w *twins) shortest(t *testing.T) []byte {
	t.Helper()
	for _, frame := range next(newGenerator(w.tables, 1), 10_000) {
		res := w.tables.Process(frame, nil)
		if w.plainStable(frame, &res) && w.tables.Reals[res.Real].Tunnel.OuterLen() == 20 {
			return frame
		}
	}
	t.Fatal("no frame is of the kind that is looked for")
	return nil
}

// TestCardWithoutRoom: where outer headers do not fit in front of a frame, it passes unchanged.
func TestCardWithoutRoom(t *testing.T) {
	tables := tablesOf(1)
	w := newTwins(t, tables, tables)
	room := findRoom(t, w.host)
	w.card.metadata = room - 16 // the shortest headers have 20 bytes
	frame := w.shortest(t)
	verdict, out, err := w.card.run(frame)
	if err != nil {
		t.Fatal(err)
	}
	if verdict != lb.Pass || !bytes.Equal(out, frame) {
		t.Errorf("verdict %s, frame %x, want it to pass unchanged", verdict, out)
	}
	counted, err := w.card.passed()
	if err != nil {
		t.Fatal(err)
	}
	const noRoom = 6 // CARD_NO_ROOM
	if sum(counted) != 1 || counted[noRoom] != 1 {
		t.Errorf("passed for %v, want one for lack of room", counted)
	}
}
