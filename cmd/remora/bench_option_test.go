// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/remora-lb/remora/bench"
	"github.com/remora-lb/remora/test/require"
)

// optionBench is the program with the VIPs of options.
type optionBench struct {
	*testing.T
	program *ebpf.Program
}

func newOptionBench(t *testing.T) optionBench {
	t.Helper()
	require.Root(t)
	topology, err := bench.NewTopology(bench.TopologyOptions{OptionVIPs: true})
	require.NoError(t, err)
	program, closer, err := loadBench(topology)
	require.NoError(t, err)
	t.Cleanup(func() { closer.Close() })
	return optionBench{t, program}
}

// server is where a case's packet goes that comes from this client.
func (b optionBench) server(name, client string) netip.Addr {
	b.Helper()
	cases, err := bench.SelectCases([]string{name})
	require.NoError(b.T, err)
	from := netip.MustParseAddrPort(client)
	frame := append([]byte(nil), cases[0].Frame...)
	copy(frame[cases[0].Source:], from.Addr().AsSlice())
	binary.BigEndian.PutUint16(frame[cases[0].Port:], from.Port())
	_, out, err := b.program.Test(frame)
	require.NoError(b.T, err)
	if len(out) != len(frame)+cases[0].Expect.Growth {
		b.Fatalf("%s from %s: the frame of %d bytes became one of %d", name, client, len(frame), len(out))
	}
	return netip.AddrFrom4([4]byte(out[30:34])) // outer destination
}

// What an option chooses by is what the cost of its case is about.
func TestBenchOptionsLead(t *testing.T) {
	b := newOptionBench(t)
	for name, want := range map[string]string{
		"quic4-katran-id": "10.200.0.7", "quic4-quic-lb-id": "10.200.0.7", "tcp4-id": "10.200.0.7", "udp4-id": "10.200.0.7",
	} {
		for _, client := range []string{"10.0.0.1:1024", "10.9.8.7:4321"} {
			if got := b.server(name, client).String(); got != want {
				t.Errorf("%s from %s goes to %s, want %s", name, client, got, want)
			}
		}
	}
	for client, want := range map[string]string{"10.0.0.1:1024": "10.200.0.1", "10.0.8.1:1024": "10.200.0.2", "10.1.255.1:1": "10.200.0.64"} {
		if got := b.server("tcp4-source-route", client).String(); got != want {
			t.Errorf("%s is routed to %s, want %s", client, got, want)
		}
	}
}

// Eight clients, or one at eight ports, go to one server where that does not count, and to several where it does.
func TestBenchOptionsHash(t *testing.T) {
	b := newOptionBench(t)
	addrs := []string{"10.0.0.1:1024", "10.1.0.2:1024", "10.2.0.3:1024", "10.3.0.4:1024", "10.4.0.5:1024", "10.5.0.6:1024", "10.6.0.7:1024", "10.7.0.8:1024"}
	ports := []string{"10.0.0.1:1", "10.0.0.1:22", "10.0.0.1:333", "10.0.0.1:444", "10.0.0.1:5555", "10.0.0.1:6666", "10.0.0.1:7777", "10.0.0.1:8888"}
	for _, tc := range []struct {
		name                  string
		oneByAddr, oneByPorts bool
	}{
		{"tcp4-ack", false, false},
		{"tcp4-no-source-port", false, true},
		{"tcp4-destination-port-only", true, true},
		{"tcp4-prefix", false, false},
		{"tcp4-port-0", false, false},
		{"tcp4-fragment", false, true},
		{"ipip4-decapsulated", false, false},
	} {
		if got := b.servers(tc.name, addrs) == 1; got != tc.oneByAddr {
			t.Errorf("%s: all clients go to one server: %t", tc.name, got)
		}
		if got := b.servers(tc.name, ports) == 1; got != tc.oneByPorts {
			t.Errorf("%s: all ports of a client go to one server: %t", tc.name, got)
		}
	}
}

func (b optionBench) servers(name string, clients []string) int {
	b.Helper()
	seen := map[netip.Addr]bool{}
	for _, client := range clients {
		seen[b.server(name, client)] = true
	}
	return len(seen)
}

// All cases can be measured, over and over with many flows: the stub undoes what the program did.
func TestBenchOptionsAreMeasured(t *testing.T) {
	require.Root(t)
	out, err := runBench(t, loadBench, "prog", "--cases", bench.AllOptions+",not-a-vip", "--features", "all", "--flows", "1,64",
		"--reloads", "1", "--rounds", "1", "--fifo=false", "--format", "json")
	require.NoError(t, err)
	r, err := bench.ReadReport(strings.NewReader(out))
	require.NoError(t, err)
	rows := map[string]int{}
	for _, row := range r.(bench.ProgramReport).Rows {
		rows[row.Target]++
	}
	for target, want := range map[string]int{
		bench.Remora: 2, bench.RemoraFeatures: 2, bench.RemoraOptions: 2 * (1 + len(bench.OptionCases())),
	} {
		if rows[target] != want {
			t.Errorf("%d rows of %s, want %d", rows[target], target, want)
		}
	}
}
