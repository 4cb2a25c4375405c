// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/dataplane"
	"github.com/remora-lb/remora/lb/model"
	"github.com/remora-lb/remora/lb/offload"
	"github.com/remora-lb/remora/test/frames"
	"github.com/remora-lb/remora/test/require"
)

// card is the packet program for a card with a table set in its maps, which are ordinary maps here.
type card struct {
	program *ebpf.Program
	maps    map[string]*ebpf.Map
	// out is where frames come out of every run.
	out []byte
	// metadata is how many bytes of metadata lie in front of every frame, a multiple of 4.
	metadata int
}

// loadCard fills the card's maps with the tables.
func loadCard(tb testing.TB, tables *model.Tables) *card {
	tb.Helper()
	require.Root(tb)
	encoded, sizes := cardTables(tables)
	elements, err := offload.Encode(encoded, sizes)
	require.NoError(tb, err)
	spec, err := offload.Spec(sizes)
	require.NoError(tb, err)
	all, err := ebpf.NewCollection(spec)
	require.NoError(tb, err)
	tb.Cleanup(all.Close)
	for _, e := range elements {
		require.NoError(tb, all.Maps[e.Map].Put(e.Key, e.Value))
	}
	return &card{program: all.Programs[offload.ProgramName], maps: all.Maps, out: make([]byte, frames.MaxLen+maxOuterLen)}
}

// cardTables gives rings places one after the other.
func cardTables(tables *model.Tables) (offload.Tables, offload.Sizes) {
	ids := ringIDs(tables)
	t := offload.Tables{Rings: map[lb.RingID]offload.Ring{}, Reals: slices.Collect(maps.Values(tables.Reals))}
	room := capacity(tables)
	sizes := offload.Sizes{VIPs4: room.VIPs4, VIPs6: room.VIPs6, Reals: room.Reals}
	for name, vip := range tables.VIPs {
		t.VIPs = append(t.VIPs, lb.VIPEntry{
			VIP: name, Service: "differential", RingID: ids[name], Ring: lb.Ring{Size: uint32(len(vip.Ring))},
			Flows: vip.Flows, Options: vip.Options,
		})
		t.Rings[ids[name]] = offload.Ring{First: uint32(sizes.RingSlots), Slots: vip.Ring}
		sizes.RingSlots += offload.RingSpace(len(vip.Ring))
	}
	return t, sizes
}

// run runs a frame; what comes out is valid until the next run.
func (c *card) run(frame []byte) (lb.Verdict, []byte, error) {
	options := ebpf.RunOptions{Data: frame, DataOut: c.out}
	if c.metadata > 0 {
		options.Data = append(make([]byte, c.metadata), frame...)
		options.Context = xdpContext{Data: uint32(c.metadata), DataEnd: uint32(len(options.Data))}
	}
	verdict, err := c.program.Run(&options)
	if err != nil {
		return 0, nil, fmt.Errorf("test-run a frame of %d bytes on the card's program: %w", len(frame), err)
	}
	return lb.Verdict(verdict), options.DataOut[c.metadata:], nil
}

// counters are those of all reals that are not zero.
func (c *card) counters() (map[lb.RealID]dataplane.Counter, error) {
	all := map[lb.RealID]dataplane.Counter{}
	var id uint32
	var n dataplane.Counter
	iterator := c.maps["real_counters"].Iterate()
	for iterator.Next(&id, &n) {
		if n != (dataplane.Counter{}) {
			all[lb.RealID(id)] = n
		}
	}
	return all, iterator.Err()
}

// passed is how many packets passed, by enum card_pass (bpf/card_types.h).
func (c *card) passed() (all []uint64, err error) {
	var why uint32
	var n uint64
	iterator := c.maps["pass_counters"].Iterate()
	for iterator.Next(&why, &n) {
		all = append(all, n)
	}
	return all, iterator.Err()
}

// sum is the sum of the numbers.
func sum(all []uint64) (n uint64) {
	for _, one := range all {
		n += one
	}
	return n
}

// sameCounters compares the card's counters with those of the host, which must have run the card's
// frames and no others.
func sameCounters(c *card, p *program, before counts) error {
	got, err := c.counters()
	if err != nil {
		return err
	}
	after, err := p.counts()
	if err != nil {
		return err
	}
	want := map[lb.RealID]dataplane.Counter{}
	for name, n := range growth(before, after) {
		if name.reason != lb.ReasonForwarded {
			return fmt.Errorf("frames that the card sent ended on the host as %s", name)
		}
		want[name.real] = n
	}
	if !maps.Equal(got, want) {
		return fmt.Errorf("counters of the card: %v, of the host: %v", got, want)
	}
	return nil
}
