// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// sniffBufferBytes has room for all packets of a test between sniff and assertOnly.
const sniffBufferBytes = 64 << 20

// sniffer keeps the packets that the router receives from a balancer, in its socket.
type sniffer struct{ fd int }

// sniff begins to keep what the router receives from the first balancer.
func (b *bed) sniff(t *testing.T) sniffer {
	t.Helper()
	var s sniffer
	err := b.Router.Do(func() (err error) {
		s, err = openSniffer("to-" + b.balancer.Name)
		return err
	})
	if err != nil {
		t.Fatalf("open packet socket: %v", err)
	}
	t.Cleanup(func() { unix.Close(s.fd) })
	return s
}

func openSniffer(link string) (sniffer, error) {
	req, err := unix.NewIfreq(link)
	if err != nil {
		return sniffer{}, err
	}
	// Protocol 0: nothing is received before the bind names the interface.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return sniffer{}, err
	}
	err = errors.Join(
		unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, sniffBufferBytes),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
	)
	if err != nil {
		return sniffer{}, errors.Join(err, unix.Close(fd))
	}
	protocol := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL}) // in network order
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: int(req.Uint32())}); err != nil {
		return sniffer{}, errors.Join(err, unix.Close(fd))
	}
	return sniffer{fd}, nil
}

// assertOnly demands that what was received is of one kind (see describe), and that the longest
// packet has this many bytes. ICMP and ARP, with which neighbours are found, do not count.
func (s sniffer) assertOnly(t *testing.T, kind string, longest int) {
	t.Helper()
	kinds, most := make(map[string]int), 0
	buf := make([]byte, 2048)
	for {
		n, err := unix.Read(s.fd, buf)
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil {
			t.Fatalf("read packet: %v", err)
		}
		k := describe(buf[:n])
		if k == "" {
			continue
		}
		kinds[k]++
		most = max(most, n)
	}
	if kinds[kind] == 0 || len(kinds) != 1 {
		t.Errorf("the balancer sent %v, want only %q", kinds, kind)
	}
	if most != longest {
		t.Errorf("the longest packet that the balancer sent has %d bytes, want %d", most, longest)
	}
}

// describe says what kind of packet p is, from the IP header on: family, protocol number, and
// destination port if it is UDP; empty for ICMP and for what is not IP.
func describe(p []byte) string {
	if len(p) < 20 {
		return ""
	}
	family, protocol, payload := "IPv4", p[9], p[20:]
	switch {
	case p[0]>>4 == 6 && len(p) >= 40:
		family, protocol, payload = "IPv6", p[6], p[40:]
	case p[0]>>4 != 4:
		return ""
	}
	switch protocol {
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6, unix.IPPROTO_HOPOPTS:
		return "" // multicast listener reports are ICMPv6 behind a hop-by-hop header
	case unix.IPPROTO_UDP:
		if len(payload) >= 4 {
			return fmt.Sprintf("%s protocol %d port %d", family, protocol, binary.BigEndian.Uint16(payload[2:]))
		}
	}
	return fmt.Sprintf("%s protocol %d", family, protocol)
}
