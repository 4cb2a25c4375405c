// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Protocol is an IP protocol number that a VIP can have.
type Protocol uint8

// The protocols that are balanced, by their IANA numbers.
const (
	TCP Protocol = 6
	UDP Protocol = 17
)

func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return "protocol " + strconv.Itoa(int(p))
}

// VIP is what clients connect to: one address, protocol and port. Port 0 stands for all ports of
// the address that have no VIP of their own. VIPs are comparable and can be map keys; an address
// is never IPv4-mapped IPv6 and never has a zone.
type VIP struct {
	Addr     netip.Addr
	Port     uint16
	Protocol Protocol
}

// ParseVIP reads the text form ADDRESS:PORT/PROTOCOL, for example 192.0.2.10:80/tcp or
// [2001:db8::10]:0/udp. The error says which part is wrong.
func ParseVIP(s string) (VIP, error) {
	endpoint, proto, ok := strings.Cut(s, "/")
	if !ok {
		return VIP{}, fmt.Errorf("parse VIP %q: no protocol: write ADDRESS:PORT/tcp or ADDRESS:PORT/udp", s)
	}
	var v VIP
	switch proto {
	case "tcp":
		v.Protocol = TCP
	case "udp":
		v.Protocol = UDP
	default:
		return VIP{}, fmt.Errorf("parse VIP %q: protocol %q is not tcp or udp", s, proto)
	}
	ap, err := netip.ParseAddrPort(endpoint)
	if err != nil {
		return VIP{}, fmt.Errorf("parse VIP %q: %q is not ADDRESS:PORT (an IPv6 address goes in brackets)", s, endpoint)
	}
	v.Addr, v.Port = ap.Addr(), ap.Port()
	if err := checkAddr(v.Addr); err != nil {
		return VIP{}, fmt.Errorf("parse VIP %q: %v", s, err)
	}
	return v, nil
}

// String is the text form that ParseVIP reads.
func (v VIP) String() string {
	return netip.AddrPortFrom(v.Addr, v.Port).String() + "/" + v.Protocol.String()
}

// Compare orders VIPs by address, then port, then protocol.
func (v VIP) Compare(w VIP) int {
	return cmp.Or(v.Addr.Compare(w.Addr), cmp.Compare(v.Port, w.Port), cmp.Compare(v.Protocol, w.Protocol))
}

// MarshalText implements encoding.TextMarshaler with the form of String.
func (v VIP) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler by ParseVIP.
func (v *VIP) UnmarshalText(b []byte) (err error) {
	*v, err = ParseVIP(string(b))
	return err
}

// checkAddr refuses addresses that no packet on the wire can be balanced to or from.
func checkAddr(a netip.Addr) error {
	switch {
	case a.Zone() != "":
		return fmt.Errorf("address %s has a zone", a)
	case a.Is4In6():
		return fmt.Errorf("address %s is IPv4-mapped: write the IPv4 address", a)
	case a.IsUnspecified():
		return errors.New("the address is unspecified")
	case a.IsMulticast():
		return fmt.Errorf("address %s is multicast", a)
	case a.IsLoopback():
		return fmt.Errorf("address %s is loopback", a)
	}
	return nil
}
