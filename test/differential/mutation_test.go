// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/maglev"
	"github.com/remora-lb/remora/lb/model"
	"github.com/remora-lb/remora/test/frames"
	"github.com/remora-lb/remora/test/require"
)

// mutant is a table set with one VIP, a frame for it, and what the frame meets.
type mutant struct {
	tables *model.Tables
	vip    lb.VIP
	slot   uint32
	real   lb.RealID
	frame  []byte
}

// newMutant is a frame by GUE with checksum, IPv4 in IPv4, on a VIP of three reals.
func newMutant(t *testing.T) mutant {
	t.Helper()
	const sourcePort = 40000
	client := netip.AddrFrom4([4]byte{198, 51, 100, 7})
	all := frames.Tables(1)
	for _, id := range slices.Sorted(maps.Keys(all.Reals)) {
		real := all.Reals[id]
		vip, ring := real.VIP, all.VIPs[real.VIP].Ring
		index := maglev.SlotIndex(maglev.FlowHash(client, sourcePort, vip.Port), uint32(len(ring)))
		if !vip.Addr.Is4() || vip.Protocol != lb.TCP || vip.Port == 0 || !real.Tunnel.Destination.Is4() ||
			!real.Tunnel.Checksum || ring[index].Cur() != id {
			continue
		}
		tables := oneVIP(all, vip)
		tables.VIPs[vip].Ring[index] = lb.StableSlot(id)
		return mutant{tables, vip, index, id, frames.Frame{
			Dst: [6]byte{2, 0, 0, 0, 0, 1}, Src: [6]byte{2, 0, 0, 0, 0, 2},
			Packet: frames.IPv4{
				TTL: 60, Src: client, Dst: vip.Addr,
				Payload: frames.TCP{SrcPort: sourcePort, DstPort: vip.Port, Flags: frames.SYN},
			},
		}.Bytes()}
	}
	t.Fatal("no VIP is of the kind that is looked for")
	return mutant{}
}

// oneVIP copies what belongs to one VIP, with the flow mode of transitions and active reals.
func oneVIP(all *model.Tables, vip lb.VIP) *model.Tables {
	entry := model.VIP{Ring: slices.Clone(all.VIPs[vip].Ring), Flows: lb.FlowTransitions}
	tables := &model.Tables{VIPs: map[lb.VIP]model.VIP{vip: entry}, Reals: map[lb.RealID]lb.Real{}}
	for id, real := range all.Reals {
		if real.VIP == vip {
			real.Use = lb.RealActive
			tables.Reals[id] = real
		}
	}
	return tables
}

// changeReal changes the record of the frame's real.
func (m mutant) changeReal(change func(*lb.Real)) {
	real := m.tables.Reals[m.real]
	change(&real)
	m.tables.Reals[m.real] = real
}

// other is a real of the VIP that the frame does not go to.
func (m mutant) other() lb.RealID {
	for _, id := range slices.Sorted(maps.Keys(m.tables.Reals)) {
		if id != m.real {
			return id
		}
	}
	return 0
}

// innerLen is the length of the frame's IP packet.
func (m mutant) innerLen() int { return len(m.frame) - frames.HeaderLen }

// otherTables is a program with other tables than it is told.
type otherTables struct {
	*program
	instead func(*model.Tables) *model.Tables
}

func (o otherTables) rewind(tables *model.Tables) error { return o.program.rewind(o.instead(tables)) }

// TestProgramWithOtherTablesDiffers gives the program a table set that differs from the model's
// in one thing. What the frame depends on must show, all else must not.
func TestProgramWithOtherTablesDiffers(t *testing.T) {
	require.Root(t)
	everything := []aspect{aspectVerdict, aspectFrame, aspectCounters}
	cases := []struct {
		name   string
		mutate func(m mutant)
		want   []aspect
	}{
		{"nothing", func(mutant) {}, nil},
		{"one bit of the MAC address", func(m mutant) {
			m.changeReal(func(r *lb.Real) { r.NextHop.MAC[5] ^= 1 })
		}, []aspect{aspectFrame}},
		{"no MAC address", func(m mutant) {
			m.changeReal(func(r *lb.Real) { r.NextHop = lb.NextHop{MTU: 1500, Problem: "none"} })
		}, everything},
		{"MTU just enough", func(m mutant) {
			m.changeReal(func(r *lb.Real) { r.NextHop.MTU = m.innerLen() + r.Tunnel.OuterLen() })
		}, nil},
		{"MTU one byte short", func(m mutant) {
			m.changeReal(func(r *lb.Real) { r.NextHop.MTU = m.innerLen() + r.Tunnel.OuterLen() - 1 })
		}, everything},
		{"tunnel's source", func(m mutant) {
			m.changeReal(func(r *lb.Real) { r.Tunnel.Source = netip.MustParsePrefix("192.0.2.2/32") })
		}, []aspect{aspectFrame}},
		{"tunnel's port", func(m mutant) { m.changeReal(func(r *lb.Real) { r.Tunnel.Port++ }) }, []aspect{aspectFrame}},
		{"tunnel's checksum", func(m mutant) { m.changeReal(func(r *lb.Real) { r.Tunnel.Checksum = false }) }, []aspect{aspectFrame}},
		{"slot of another real", func(m mutant) {
			m.tables.VIPs[m.vip].Ring[m.slot] = lb.StableSlot(m.other())
		}, []aspect{aspectFrame, aspectCounters}},
		{"slot of the same real by another id", func(m mutant) {
			id := slices.Max(slices.Collect(maps.Keys(m.tables.Reals))) + 1
			m.changeReal(func(r *lb.Real) { r.ID = id })
			m.tables.Reals[id] = m.tables.Reals[m.real]
			delete(m.tables.Reals, m.real)
			m.tables.VIPs[m.vip].Ring[m.slot] = lb.StableSlot(id)
		}, []aspect{aspectCounters}},
		{"slot empty", func(m mutant) { m.tables.VIPs[m.vip].Ring[m.slot] = 0 }, everything},
		{"slots before and behind", func(m mutant) {
			ring := m.tables.VIPs[m.vip].Ring
			ring[m.slot-1], ring[m.slot+1] = 0, 0
		}, nil},
		{"no record", func(m mutant) { delete(m.tables.Reals, m.real) }, everything},
		{"no record of another real", func(m mutant) { delete(m.tables.Reals, m.other()) }, nil},
		{"slot settling", func(m mutant) {
			m.tables.VIPs[m.vip].Ring[m.slot] = lb.SettlingSlot(m.real)
		}, []aspect{aspectCounters, aspectFlows}},
		{"slot lingering", func(m mutant) {
			m.tables.VIPs[m.vip].Ring[m.slot] = lb.LingeringSlot(m.real)
		}, nil},
		{"slot moving to another real, which begins", func(m mutant) {
			m.tables.VIPs[m.vip].Ring[m.slot] = lb.MovingSlot(m.other(), m.real)
		}, []aspect{aspectFrame, aspectCounters, aspectFlows}},
		{"retired", func(m mutant) { m.changeReal(func(r *lb.Real) { r.Use = lb.RealRetired }) }, nil},
		{"generation", func(m mutant) { m.changeReal(func(r *lb.Real) { r.Generation++ }) }, nil},
		{"flow mode always", func(m mutant) {
			vip := m.tables.VIPs[m.vip]
			vip.Flows = lb.FlowAlways
			m.tables.VIPs[m.vip] = vip
		}, []aspect{aspectCounters, aspectFlows}},
		{"flow mode quic", func(m mutant) {
			vip := m.tables.VIPs[m.vip]
			vip.Flows = lb.FlowQUIC
			m.tables.VIPs[m.vip] = vip
		}, nil},
		{"VIP of another port", func(m mutant) {
			vip := m.vip
			vip.Port++
			m.tables.VIPs[vip] = m.tables.VIPs[m.vip]
			delete(m.tables.VIPs, m.vip)
		}, everything},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m := newMutant(t)
			original := oneVIP(m.tables, m.vip)
			if res := original.Process(m.frame, nil); res.Reason != lb.ReasonForwarded || res.Real != m.real {
				t.Fatalf("the model gives %s to real %d, want real %d", res.Reason, res.Real, m.real)
			}
			c.mutate(m)
			other := otherTables{load(t, m.tables), func(*model.Tables) *model.Tables { return m.tables }}
			compared, err := newComparison(&oracle{}, other, original)
			if err != nil {
				t.Fatal(err)
			}
			outcome, err := compared.outcome(step{frame: m.frame})
			if err != nil {
				t.Fatal(err)
			}
			found := differences(compared.oracle.run(step{frame: m.frame}), outcome)
			if got := aspects(found); !slices.Equal(got, c.want) {
				t.Errorf("differences in %q, want %q: %v", got, c.want, found)
			}
		})
	}
}

// TestOtherTablesAreFoundInSequences does the same among random frames: one that goes to the real
// whose record differs is found.
func TestOtherTablesAreFoundInSequences(t *testing.T) {
	original := frames.Tables(1)
	steps := next(newGenerator(original, 6), 1000)
	target := original.Process(distinct(original, steps, lb.ReasonForwarded)[0], nil).Real
	change := func(tables *model.Tables) *model.Tables {
		m := mutant{tables: copyOf(tables), real: target}
		m.changeReal(func(r *lb.Real) { r.NextHop.MAC[0] ^= 4 })
		return m.tables
	}
	c, err := newComparison(&oracle{}, otherTables{load(t, original), change}, original)
	if err != nil {
		t.Fatal(err)
	}
	found, err := c.sequence(frameSteps(steps...))
	if err != nil || found == nil {
		t.Fatalf("found %v, %v", found, err)
	}
	res := original.Process(found.steps[0].frame, nil)
	if got := aspects(found.differences); len(found.steps) != 1 || res.Real != target || !slices.Equal(got, []aspect{aspectFrame}) {
		t.Errorf("of %d steps, a frame to real %d differs in %q", len(found.steps), res.Real, got)
	}
}
