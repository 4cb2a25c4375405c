// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"net/netip"

	"github.com/remora-lb/remora/lb"
)

// flow is what VIP, real and entropy are chosen by. That of a packet is seen from the client's
// side: of TCP and UDP it is the packet's own, of an ICMP error that of the packet that it quotes.
type flow struct {
	src, dst     netip.Addr
	sport, dport uint16
	protocol     lb.Protocol
}

// reversed is the flow as the other side sees it.
func (f flow) reversed() flow {
	f.src, f.dst = f.dst, f.src
	f.sport, f.dport = f.dport, f.sport
	return f
}

func (f flow) String() string {
	return fmt.Sprintf("%s to %s, %s", netip.AddrPortFrom(f.src, f.sport), netip.AddrPortFrom(f.dst, f.dport), f.protocol)
}
