// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package offload

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/require"
)

func vipOf(t *testing.T, text string) lb.VIP {
	t.Helper()
	v, err := lb.ParseVIP(text)
	require.NoError(t, err)
	return v
}

func entry(t *testing.T, text string, ring lb.RingID, size uint32) lb.VIPEntry {
	t.Helper()
	return lb.VIPEntry{VIP: vipOf(t, text), Service: "web", RingID: ring, Ring: lb.Ring{Size: size}}
}

func realTo(t *testing.T, id lb.RealID, encap lb.Encap, addr string, checksum bool) lb.Real {
	t.Helper()
	sources := lb.DefaultTunnelSources()
	sources.GUE4, sources.GUE6 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8:ffff::1")
	sources.GUEChecksum = checksum
	tunnel, err := sources.Tunnel(encap, netip.MustParseAddr(addr))
	require.NoError(t, err)
	return lb.Real{
		ID: id, VIP: vipOf(t, "192.0.2.10:80/tcp"), Backend: lb.Backend{Addr: tunnel.Destination}, Tunnel: tunnel,
		NextHop: lb.NextHop{MAC: [6]byte{2, 0, 0, 0, 0, 9}, MTU: 1500}, Use: lb.RealDraining, Generation: 7,
	}
}

// text is elements as lines.
func text(elements []Element) string {
	var b strings.Builder
	for _, e := range elements {
		fmt.Fprintf(&b, "%s %s %s\n", e.Map, hex.EncodeToString(e.Key), hex.EncodeToString(e.Value))
	}
	return b.String()
}

func TestEncode(t *testing.T) {
	always := entry(t, "192.0.2.10:443/tcp", 2, 4)
	always.Flows = lb.FlowAlways
	quic := entry(t, "[2001:db8::10]:443/udp", 1, 3)
	quic.Flows = lb.FlowQUIC
	unresolved := realTo(t, 3, lb.IPIP, "10.0.0.3", false)
	unresolved.NextHop = lb.NextHop{Problem: "no route"}
	tables := Tables{
		VIPs: []lb.VIPEntry{quic, always, entry(t, "192.0.2.10:80/tcp", 0, 9)},
		Rings: map[lb.RingID]Ring{
			0: {0, []lb.Slot{lb.StableSlot(1), lb.MovingSlot(1, 2), lb.SettlingSlot(1), lb.LingeringSlot(1), 0, lb.StableSlot(2), 1, 1, lb.StableSlot(0x123456)}},
			1: {16, []lb.Slot{lb.StableSlot(2), lb.StableSlot(2), lb.StableSlot(2)}},
		},
		Reals: []lb.Real{
			unresolved, realTo(t, 1, lb.IPIP, "10.0.0.1", false), realTo(t, 2, lb.GUE, "10.0.0.2", true), realTo(t, 4, lb.GUE, "fd00::4", false),
		},
	}
	elements, err := Encode(tables, Sizes{VIPs4: 2, VIPs6: 1, Reals: 4, RingSlots: 24})
	require.NoError(t, err)
	nothing := strings.Repeat("00", 56)
	want := "reals 01000000 020000000009" + "0000" + "0000000000004004" + "0a000001" + strings.Repeat("00", 12) +
		"ac100000" + strings.Repeat("00", 12) + "3b16" + "c805" + "0100" + "0000\n" +
		"reals 02000000 " + nothing + "\n" +
		"reals 03000000 " + nothing + "\n" +
		"reals 04000000 020000000009" + "0000" + "0000000011400000" + "fd000000000000000000000000000004" +
		"20010db8ffff00000000000000000001" + "0000" + "ac05" + "0400" + "17c0\n" +
		"rings 00000000 " + "01000000" + "00000000" + "00000000" + "00000000" + "00000000" + "02000000" + "01000000" + "01000000\n" +
		"rings 01000000 " + "56341200" + strings.Repeat("00", 28) + "\n" +
		"rings 02000000 " + strings.Repeat("02000000", 3) + strings.Repeat("00", 20) + "\n" +
		"vips4 c000020a00500600 " + "00000000" + "09000000\n" +
		"vips4 c000020a01bb0600 " + "00000000" + "00001000\n" +
		"vips6 20010db800000000000000000000001001bb110000000000 " + "10000000" + "03000000\n"
	if diff := cmp.Diff(want, text(elements)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestOnCard(t *testing.T) {
	plain := func(text string) lb.VIPEntry { return entry(t, text, 0, 65537) }
	with := func(v lb.VIPEntry, change func(*lb.VIPEntry)) lb.VIPEntry { change(&v); return v }
	anyPort := plain("192.0.2.10:0/tcp")
	cases := map[string]struct {
		vip    lb.VIPEntry
		others []lb.VIPEntry
		want   bool
	}{
		"plain":            {vip: plain("192.0.2.10:80/tcp"), want: true},
		"flow mode never":  {vip: with(plain("192.0.2.10:80/tcp"), func(v *lb.VIPEntry) { v.Flows = lb.FlowNever }), want: true},
		"flow mode quic":   {vip: with(plain("192.0.2.10:443/udp"), func(v *lb.VIPEntry) { v.Flows = lb.FlowQUIC }), want: true},
		"flow mode always": {vip: with(plain("192.0.2.10:80/tcp"), func(v *lb.VIPEntry) { v.Flows = lb.FlowAlways })},
		"with an option":   {vip: with(plain("192.0.2.10:80/tcp"), func(v *lb.VIPEntry) { v.Options.TCPIDs = true })},
		"a prefix":         {vip: plain("192.0.2.0/24:80/tcp")},
		"all ports":        {vip: anyPort, want: true},
		"all ports, a port of a prefix around it":       {vip: anyPort, others: []lb.VIPEntry{plain("192.0.2.0/24:80/tcp")}},
		"all ports, all ports of a prefix around it":    {vip: anyPort, others: []lb.VIPEntry{plain("192.0.2.0/24:0/tcp")}, want: true},
		"all ports, a port of a prefix elsewhere":       {vip: anyPort, others: []lb.VIPEntry{plain("192.0.3.0/24:80/tcp")}, want: true},
		"all ports, a prefix of the other protocol":     {vip: anyPort, others: []lb.VIPEntry{plain("192.0.2.0/24:80/udp")}, want: true},
		"one port, the same port of a prefix around it": {vip: plain("192.0.2.10:80/tcp"), others: []lb.VIPEntry{plain("192.0.2.0/24:80/tcp")}, want: true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := OnCard(c.vip, append(c.others, c.vip)); got != c.want {
				t.Errorf("%t, want %t", got, c.want)
			}
		})
	}
}

func TestEncodeReportsAllMistakes(t *testing.T) {
	tables := Tables{
		VIPs: []lb.VIPEntry{
			entry(t, "192.0.2.10:80/tcp", 0, 9), entry(t, "192.0.2.10:80/tcp", 0, 9), entry(t, "192.0.2.11:80/tcp", 1, 9),
			entry(t, "192.0.2.12:80/tcp", 7, 9), entry(t, "192.0.2.13:80/tcp", 2, 9),
		},
		Rings: map[lb.RingID]Ring{
			0: {0, make([]lb.Slot, 9)}, 1: {8, make([]lb.Slot, 9)}, 2: {27, make([]lb.Slot, 9)},
		},
		Reals: []lb.Real{realTo(t, 9, lb.IPIP, "10.0.0.9", false), realTo(t, 1, lb.IPIP, "10.0.0.1", false), realTo(t, 1, lb.IPIP, "10.0.0.1", false), {}},
	}
	_, err := Encode(tables, Sizes{VIPs4: 1, Reals: 4, RingSlots: 16})
	require.ErrorSays(t, err,
		"real 9: there is room for ids up to 4", "real 1: it is there twice", "real 0: ids are from 1",
		"it begins before the end of another, 16", "9 slots at 27: expected a multiple of 8", "rings end at slot 43: there is room for 16",
		"192.0.2.10:80/tcp: it is there twice", "192.0.2.12:80/tcp: its ring 7 has 0 slots, expected 9",
		"5 VIPs of IPv4 and 0 of IPv6: there is room for 1 and 0")
}

func TestSizes(t *testing.T) {
	_, err := Spec(Sizes{VIPs4: -1, VIPs6: MaxVIPs + 1, Reals: int(lb.MaxRealID) + 1, RingSlots: -8})
	require.ErrorSays(t, err, "VIPs of IPv4: -1", "VIPs of IPv6: ", "reals: ", "ring slots: -8")
	spec, err := Spec(Sizes{})
	require.NoError(t, err)
	for name, m := range spec.Maps {
		if m.MaxEntries == 0 {
			t.Errorf("map %s has no element", name)
		}
	}
}

// TestMostVIPs: so many fit a card, and not one more.
func TestMostVIPs(t *testing.T) {
	p := profileNamed(t, "nfp")
	for _, ringSize := range []int{251, 4093, 65537, 1048573} {
		most := MostVIPs(p, 10_000, ringSize)
		t.Logf("rings of %d slots: %d VIPs", ringSize, most)
		for vips, want := range map[int]bool{most: true, most + 1: false} {
			r := checkOwn(t, SizesFor(vips, 10_000, ringSize), p)
			if fits := !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Rule == RuleElements }); fits != want {
				t.Errorf("rings of %d slots: room for %d VIPs is %t, want %t", ringSize, vips, fits, want)
			}
		}
	}
	if n := MostVIPs(p, 3_000_000, 251); n != 0 {
		t.Errorf("with too many reals there is room for %d VIPs", n)
	}
	if n := MostVIPs(profileNamed(t, "array-hash"), 10, 251); n != -1 {
		t.Errorf("a card without limits has room for %d VIPs", n)
	}
}

// TestCapacityTable: docs/offload.md says what MostVIPs says.
func TestCapacityTable(t *testing.T) {
	document, err := os.ReadFile("../../docs/offload.md")
	require.NoError(t, err)
	rows := regexp.MustCompile(`(?m)^\| (\d+) \| (\d+) \|$`).FindAllStringSubmatch(string(document), -1)
	for _, row := range rows {
		size, err := strconv.Atoi(row[1])
		require.NoError(t, err)
		const reals = 20_000
		if n := MostVIPs(profileNamed(t, "nfp"), reals, size); strconv.Itoa(n) != row[2] {
			t.Errorf("rings of %d slots: %d VIPs, the document says %s", size, n, row[2])
		}
	}
	if len(rows) < 5 {
		t.Errorf("the table has %d rows", len(rows))
	}
}

// TestConstants compares with the C side.
func TestConstants(t *testing.T) {
	spec, err := Spec(Sizes{})
	require.NoError(t, err)
	if got := spec.Maps[mapRings].ValueSize; got != 4*SlotsPerElement {
		t.Errorf("an element of rings has %d bytes", got)
	}
	if got := spec.Maps[mapReals].ValueSize; got != realBytes {
		t.Errorf("an element of reals has %d bytes", got)
	}
	if got := spec.Maps["pass_counters"].MaxEntries; got != passCounters {
		t.Errorf("there are %d counters of packets that pass", got)
	}
	if spec.Programs[ProgramName] == nil {
		t.Errorf("there is no program %s", ProgramName)
	}
}
