// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package tcpid

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// Counters are all that happened since the program was loaded. Segments are counted as the kernel
// makes them: what a card cuts to packets counts once.
type Counters struct {
	// Handed are segments in which the server said its id, SYN-ACKs among them.
	Handed uint64 `json:"handed"`
	// Confirmed are connections whose client showed that it knows the server's id.
	Confirmed uint64 `json:"confirmed"`
	// Foreign are packets that name another id, as on connections from before the server's was changed.
	// Those that a balancer leads wrong meet no connection, and are not seen here.
	Foreign uint64 `json:"foreign"`
	// NoneWanted are connections whose client refused ids.
	NoneWanted uint64 `json:"none_wanted"`
	// Learned are connections on which the client was told an id.
	Learned uint64 `json:"learned"`
	// Named are segments in which the client named the server.
	Named uint64 `json:"named"`
	// NoRoom are segments without room for the option.
	NoRoom uint64 `json:"no_room"`
}

// readCounters sums the counters of all CPUs. The order is that of enum counter in bpf/tcpid.bpf.c.
func readCounters(m *ebpf.Map) (c Counters, err error) {
	for i, to := range []*uint64{&c.Handed, &c.Confirmed, &c.Foreign, &c.NoneWanted, &c.Learned, &c.Named, &c.NoRoom} {
		var perCPU []uint64
		if err := m.Lookup(uint32(i), &perCPU); err != nil {
			return Counters{}, fmt.Errorf("read counter %d: %v", i, err)
		}
		for _, n := range perCPU {
			*to += n
		}
	}
	return c, nil
}
