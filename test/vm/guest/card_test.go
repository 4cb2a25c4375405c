// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/dataplane"
	"github.com/remora-lb/remora/lb/offload"
	"github.com/remora-lb/remora/test/corpus"
	"github.com/remora-lb/remora/test/require"
)

// The simulated card, and the other end of its cable.
const (
	cardName = "nfp0"
	wireName = "wire0"
)

// cardUse is what the simulated card says about its program.
func cardUse(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/sys/kernel/debug/nfpsim/stats")
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		if use, ok := strings.CutPrefix(line, "program: "); ok {
			return strings.TrimSpace(use)
		}
	}
	return "no program"
}

func cardIndex(t *testing.T) int {
	t.Helper()
	var card *net.Interface
	waitFor(t, "network card "+cardName, func() (err error) {
		card, err = net.InterfaceByName(cardName)
		return err
	})
	return card.Index
}

// TestCardCorpus: the card's driver gives the answer of each program of the corpus, which are also
// those of the static check.
func TestCardCorpus(t *testing.T) {
	inMachine(t)
	questions, err := corpus.Questions()
	require.NoError(t, err)
	card := cardIndex(t)
	for _, q := range questions {
		v := judge(t, q.Spec, card)
		t.Logf("%-40s %s", q.Name, v)
		if takes, known := q.Answer.Driver(); known && takes != v.accepted {
			t.Errorf("%s: the driver's answer is not as expected", q.Name)
		}
	}
}

// objectsDir is where the machine has the objects that were given to it.
const objectsDir = "/objects"

// TestCardObjects says of each object that the machine was given whether the card takes it.
func TestCardObjects(t *testing.T) {
	inMachine(t)
	files, err := filepath.Glob(filepath.Join(objectsDir, "*.o"))
	require.NoError(t, err)
	if len(files) == 0 {
		t.Skip("no objects were given (--objects)")
	}
	card := cardIndex(t)
	for _, file := range files {
		spec, err := ebpf.LoadCollectionSpec(file)
		require.NoError(t, err)
		t.Logf("%s %s", strings.TrimSuffix(filepath.Base(file), ".o"), judge(t, spec, card))
	}
}

// TestCardForward: TCP goes through remora's program on the card, in HW mode, to a server that runs
// remora decap; the card's counters say so.
func TestCardForward(t *testing.T) {
	b := newBed(t, vip4(), vip6())
	_, err := b.remora.StartDecap(within(t), b.server, []netip.Addr{b.server.IPv4, b.server.IPv6}, nil)
	require.NoError(t, err)
	b.join(t, wireName, cardName, vip4(), vip6())
	for _, tt := range []struct {
		encap   lb.Encap
		backend netip.Addr
	}{
		{lb.IPIP, b.server.IPv4},
		{lb.IPIP, b.server.IPv6},
		{lb.GUE, b.server.IPv4},
		{lb.GUE, b.server.IPv6},
	} {
		t.Run(fmt.Sprintf("%s to %s", tt.encap, family(tt.backend)), func(t *testing.T) {
			c := b.loadCard(t, tt.encap, tt.backend)
			t.Logf("%s", cardUse(t))
			for i, vip := range []netip.Addr{vip4(), vip6()} {
				b.transfer(t, vip)
				c.wantForwarded(t, lb.RealID(i+1))
			}
		})
	}
}

// card is remora's program on the card.
type card struct{ *ebpf.Collection }

// loadCard puts the program onto the card, with a ring and a real for each VIP: 1 and 2.
func (b *bed) loadCard(t *testing.T, encap lb.Encap, backend netip.Addr) card {
	t.Helper()
	tables, sizes := b.cardTables(t, encap, backend)
	elements, err := offload.Encode(tables, sizes)
	require.NoError(t, err)
	spec, err := offload.Spec(sizes)
	require.NoError(t, err)
	var c card
	require.NoError(t, b.balancer.Do(func() error {
		nic, err := net.InterfaceByName(cardName)
		if err != nil {
			return err
		}
		if c.Collection, err = loadOnto(spec, nic.Index); err != nil {
			return fmt.Errorf("load: %+v", err) // with all that the verifier and the driver say
		}
		t.Cleanup(c.Close)
		l, err := attachOnto(c.Programs[offload.ProgramName], nic.Index)
		if err != nil {
			return fmt.Errorf("attach: %v", err)
		}
		t.Cleanup(func() { require.NoError(t, l.Close()) })
		return nil
	}))
	for _, e := range elements {
		require.NoError(t, c.Maps[e.Map].Put(e.Key, e.Value))
	}
	return c
}

// ringSize is Katran's.
const ringSize = 65537

// cardTables are a real for each VIP, which has all slots of the VIP's ring.
func (b *bed) cardTables(t *testing.T, encap lb.Encap, backend netip.Addr) (offload.Tables, offload.Sizes) {
	t.Helper()
	tables := offload.Tables{Rings: map[lb.RingID]offload.Ring{}}
	for i, addr := range []netip.Addr{vip4(), vip6()} {
		vip := lb.VIP{Addr: addr, Protocol: lb.TCP, Port: echoPort}
		id, ring := lb.RealID(i+1), lb.RingID(i+1)
		tables.Reals = append(tables.Reals, lb.Real{
			ID: id, VIP: vip, Backend: lb.Backend{Addr: backend, Weight: 1},
			Tunnel: b.tunnel(encap, backend), NextHop: b.nextHop(t),
		})
		tables.VIPs = append(tables.VIPs, lb.VIPEntry{VIP: vip, Service: "web", RingID: ring, Ring: lb.Ring{Size: ringSize}})
		slots := make([]lb.Slot, ringSize)
		for s := range slots {
			slots[s] = lb.StableSlot(id)
		}
		tables.Rings[ring] = offload.Ring{First: uint32(i * offload.RingSpace(ringSize)), Slots: slots}
	}
	return tables, offload.Sizes{VIPs4: 1, VIPs6: 1, Reals: 2, RingSlots: 2 * offload.RingSpace(ringSize)}
}

func (b *bed) tunnel(encap lb.Encap, backend netip.Addr) lb.Tunnel {
	if encap == lb.GUE {
		source := b.balancer.IPv4
		if backend.Is6() {
			source = b.balancer.IPv6
		}
		return lb.Tunnel{Encap: encap, Destination: backend, Source: netip.PrefixFrom(source, source.BitLen()), Port: guePort}
	}
	source := netip.MustParsePrefix("172.16.0.0/16")
	if backend.Is6() {
		source = netip.MustParsePrefix("100::/96")
	}
	return lb.Tunnel{Encap: encap, Destination: backend, Source: source}
}

// nextHop is the router's end of the card's cable.
func (b *bed) nextHop(t *testing.T) lb.NextHop {
	t.Helper()
	var wire *net.Interface
	require.NoError(t, b.Router.Do(func() (err error) {
		wire, err = net.InterfaceByName(wireName)
		return err
	}))
	return lb.NextHop{MAC: [6]byte(wire.HardwareAddr), MTU: labMTU}
}

// wantForwarded demands that a real got the packets of a transfer from the card.
func (c card) wantForwarded(t *testing.T, id lb.RealID) {
	t.Helper()
	var n dataplane.Counter
	require.NoError(t, c.Maps["real_counters"].Lookup(uint32(id), &n))
	if n.Packets < transferBytes/labMTU || n.Bytes < transferBytes {
		t.Errorf("the card counted %+v for real %d, want at least %d packets and %d bytes", n, id, transferBytes/labMTU, transferBytes)
	}
	t.Logf("real %d: %d packets, %d bytes", id, n.Packets, n.Bytes)
}
