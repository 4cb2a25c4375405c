// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"bytes"
	"net/netip"

	"github.com/remora-lb/remora/lb"
)

// Descriptions are what people, bpftool and the next start read; bpf/types.h has their layout.

func vipInfo(v lb.VIPEntry, ring span) nativeVipInfo {
	info := nativeVipInfo{
		Addr:          v.VIP.Addr.As16(),
		Port:          v.VIP.Port,
		Protocol:      uint8(v.VIP.Protocol),
		RingHash:      uint8(v.Ring.Hash),
		RingId:        uint32(v.RingID),
		RingFirstSlot: ring.first,
		RingSize:      ring.size,
		FlowMode:      uint8(v.Flows),
		HostBits:      v.VIP.HostBits,
		Options:       optionBits(v.Options),
	}
	putText(info.Service[:], v.Service)
	return info
}

func entryOf(info nativeVipInfo) (lb.VIPEntry, span) {
	return lb.VIPEntry{
		VIP: lb.VIP{
			Addr:     netip.AddrFrom16(info.Addr).Unmap(),
			Port:     info.Port,
			Protocol: lb.Protocol(info.Protocol),
			HostBits: info.HostBits,
		},
		Service: text(info.Service[:]),
		RingID:  lb.RingID(info.RingId),
		Ring:    lb.Ring{Size: info.RingSize, Hash: lb.RingHash(info.RingHash)},
		Flows:   lb.FlowMode(info.FlowMode),
		Options: optionsOf(info.Options),
	}, span{info.RingFirstSlot, info.RingSize}
}

func realInfo(r lb.Real) nativeRealInfo {
	return nativeRealInfo{
		Addr:        r.Backend.Addr.As16(),
		VipAddr:     r.VIP.Addr.As16(),
		VipPort:     r.VIP.Port,
		VipProtocol: uint8(r.VIP.Protocol),
		VipHostBits: r.VIP.HostBits,
		Encap:       uint8(r.Tunnel.Encap),
		Weight:      r.Backend.Weight,
		Source:      r.Tunnel.Source.Addr().As16(),
		SourceBits:  uint8(r.Tunnel.Source.Bits()),
		Checksum:    boolByte(r.Tunnel.Checksum),
		GuePort:     r.Tunnel.Port,
		InUse:       1,
		MacStale:    boolByte(r.NextHop.Stale),
	}
}

// realOf puts a real together from its description and its record.
func realOf(id lb.RealID, info nativeRealInfo, rec nativeReal) lb.Real {
	addr := netip.AddrFrom16(info.Addr).Unmap()
	r := lb.Real{
		ID:  id,
		Use: lb.RealUse(rec.Use),

		Generation: rec.Generation,
		VIP: lb.VIP{
			Addr:     netip.AddrFrom16(info.VipAddr).Unmap(),
			Port:     info.VipPort,
			Protocol: lb.Protocol(info.VipProtocol),
			HostBits: info.VipHostBits,
		},
		Backend: lb.Backend{Addr: addr, Weight: info.Weight},
		Tunnel: lb.Tunnel{
			Encap:       lb.Encap(info.Encap),
			Destination: addr,
			Source:      netip.PrefixFrom(netip.AddrFrom16(info.Source).Unmap(), int(info.SourceBits)),
			Port:        info.GuePort,
			Checksum:    info.Checksum != 0,
		},
	}
	if r.Tunnel.Encap == lb.Local {
		r.Backend.Local = true
		r.Tunnel.Source = netip.Prefix{}
		return r
	}
	r.NextHop.MAC = wordMAC(rec.Mac)
	if r.NextHop.Resolved() {
		r.NextHop.Stale = info.MacStale != 0
		r.NextHop.MTU = int(rec.MaxBytes) + r.Tunnel.OuterLen()
	} else {
		r.NextHop.Problem = "no link address known"
	}
	return r
}

func boolByte(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

// putText writes s as a C string, cut to fit.
func putText(dst []int8, s string) {
	n := min(len(s), len(dst)-1)
	for i := range n {
		dst[i] = int8(s[i])
	}
	clear(dst[n:])
}

func text(src []int8) string {
	b := make([]byte, len(src))
	for i, c := range src {
		b[i] = byte(c)
	}
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}
