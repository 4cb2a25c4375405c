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

// VIP is what clients connect to: one address or a prefix of them, protocol and port. Port 0 stands
// for all ports of the address that have no VIP of their own. VIPs are comparable and can be map
// keys; an address is never IPv4-mapped IPv6 and never has a zone.
type VIP struct {
	// Addr is the address, or the first one of the prefix.
	Addr     netip.Addr
	Port     uint16
	Protocol Protocol
	// HostBits is how many of the address's last bits are free: 0 for one address.
	HostBits uint8
}

// Prefix is the addresses that the VIP stands for; a single one has all its bits.
func (v VIP) Prefix() netip.Prefix { return netip.PrefixFrom(v.Addr, v.Addr.BitLen()-int(v.HostBits)) }

// IsPrefix tells whether the VIP stands for more than one address.
func (v VIP) IsPrefix() bool { return v.HostBits != 0 }

// ParseVIP reads the text form ADDRESS:PORT/PROTOCOL, for example 192.0.2.10:80/tcp or
// [2001:db8::10]:0/udp; a prefix stands in the place of the address, as in 192.0.2.0/24:80/tcp or
// [2001:db8::/64]:80/tcp. The error says which part is wrong.
func ParseVIP(s string) (VIP, error) {
	cut := strings.LastIndexByte(s, '/')
	if cut < 0 || strings.HasSuffix(s, "]") {
		return VIP{}, fmt.Errorf("parse VIP %q: no protocol: write ADDRESS:PORT/tcp or ADDRESS:PORT/udp", s)
	}
	endpoint, proto := s[:cut], s[cut+1:]
	var v VIP
	switch proto {
	case "tcp":
		v.Protocol = TCP
	case "udp":
		v.Protocol = UDP
	default:
		return VIP{}, fmt.Errorf("parse VIP %q: protocol %q is not tcp or udp", s, proto)
	}
	endpoint, bits, err := cutPrefixLen(endpoint)
	if err != nil {
		return VIP{}, fmt.Errorf("parse VIP %q: %v", s, err)
	}
	ap, err := netip.ParseAddrPort(endpoint)
	if err != nil {
		return VIP{}, fmt.Errorf("parse VIP %q: %q is not ADDRESS:PORT (an IPv6 address goes in brackets)", s, endpoint)
	}
	v.Addr, v.Port = ap.Addr(), ap.Port()
	if err := checkAddr(v.Addr); err != nil {
		return VIP{}, fmt.Errorf("parse VIP %q: %v", s, err)
	}
	if bits < 0 {
		return v, nil
	}
	prefix := netip.PrefixFrom(v.Addr, bits)
	if !prefix.IsValid() || bits == 0 {
		return VIP{}, fmt.Errorf("parse VIP %q: a prefix of %d bits cannot be", s, bits)
	}
	if prefix.Masked() != prefix {
		return VIP{}, fmt.Errorf("parse VIP %q: the prefix has host bits: write %s", s, prefix.Masked())
	}
	v.HostBits = uint8(v.Addr.BitLen() - bits)
	return v, nil
}

// cutPrefixLen takes the prefix length out of 192.0.2.0/24:80 and [2001:db8::/64]:80; -1 if there is
// none.
func cutPrefixLen(endpoint string) (without string, bits int, err error) {
	addr, after, ok := strings.Cut(endpoint, "/")
	if !ok {
		return endpoint, -1, nil
	}
	end := strings.IndexAny(after, "]:")
	if end < 0 {
		return "", 0, fmt.Errorf("%q has no port", endpoint)
	}
	if n, err := strconv.ParseUint(after[:end], 10, 8); err == nil {
		return addr + after[end:], int(n), nil
	}
	return "", 0, fmt.Errorf("%q is not a prefix length", after[:end])
}

// String is the text form that ParseVIP reads.
func (v VIP) String() string {
	if !v.IsPrefix() {
		return netip.AddrPortFrom(v.Addr, v.Port).String() + "/" + v.Protocol.String()
	}
	text := v.Prefix().String()
	if v.Addr.Is6() {
		text = "[" + text + "]"
	}
	return text + ":" + strconv.Itoa(int(v.Port)) + "/" + v.Protocol.String()
}

// Compare orders VIPs by address, then port, then protocol; of prefixes the longer one is first.
func (v VIP) Compare(w VIP) int {
	return cmp.Or(v.Addr.Compare(w.Addr), cmp.Compare(v.Port, w.Port), cmp.Compare(v.Protocol, w.Protocol),
		cmp.Compare(v.HostBits, w.HostBits))
}

// FirstHost is the VIP's address, or the first one of its prefix that a host may have: the one before is
// the network's, or the routers' (RFC 4291 section 2.6.1).
func (v VIP) FirstHost() netip.Addr {
	if v.HostBits < 2 { // RFC 3021, RFC 6164
		return v.Addr
	}
	return v.Addr.Next()
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
