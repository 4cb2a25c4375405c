// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"slices"
	"testing"
)

func TestOptionNames(t *testing.T) {
	for _, tc := range []struct {
		name    string
		options Options
		want    []string
	}{
		{"none", Options{}, nil},
		{"hash", Options{Hash: HashInput{NoSourcePort: true, KeepDestinationPort: true, DestinationPortOnly: true}},
			[]string{"hash=no-source-port", "hash=keep-destination-port", "hash=destination-port-only"}},
		{"fragments", Options{Fragments: FragmentsByClient}, []string{"fragments=hash-3-tuple"}},
		{"fragments that pass", Options{Fragments: FragmentsPass}, []string{"fragments=pass"}},
		{"ids", Options{ConnectionIDs: ConnectionIDsQUICLB, TCPIDs: true, UDPIDs: true},
			[]string{"connection_ids=quic-lb", "tcp_ids", "udp_ids"}},
		{"source routes", Options{ConnectionIDs: ConnectionIDsKatran, SourceRoutes: true},
			[]string{"connection_ids=katran", "source_routes"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.options.Names(); !slices.Equal(got, tc.want) {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}

func TestOptionsOnPath(t *testing.T) {
	for _, tc := range []struct {
		name    string
		options Options
		want    bool
	}{
		{"none", Options{}, false},
		{"hash", Options{Hash: HashInput{NoSourcePort: true}}, true},
		{"fragments by client", Options{Fragments: FragmentsByClient}, true},
		{"fragments that pass", Options{Fragments: FragmentsPass}, false},
		{"fragments that pass, and ids", Options{Fragments: FragmentsPass, UDPIDs: true}, true},
		{"source routes", Options{SourceRoutes: true}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.options.OnPath(); got != tc.want {
				t.Errorf("%v, want %v", got, tc.want)
			}
		})
	}
}
