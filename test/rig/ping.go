// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// ICMP echo requests, RFC 792 and RFC 4443.
const (
	echoRequest4, echoReply4 = 8, 0
	echoRequest6, echoReply6 = 128, 129
)

// Ping sends one ICMP echo request with size bytes of data from the node and waits for the answer
// until ctx ends. The answer must come from the address and carry the same data.
func (n *Node) Ping(ctx context.Context, to netip.Addr, size int) error {
	if err := n.ping(ctx, to, size); err != nil {
		return fmt.Errorf("ping %s from %s: %v", to, n.Namespace, err)
	}
	return nil
}

func (n *Node) ping(ctx context.Context, to netip.Addr, size int) error {
	network, request, reply := "ip4:icmp", byte(echoRequest4), byte(echoReply4)
	if to.Is6() {
		network, request, reply = "ip6:ipv6-icmp", echoRequest6, echoReply6
	}
	var conn *net.IPConn
	err := n.Do(func() (err error) {
		conn, err = net.DialIP(network, nil, &net.IPAddr{IP: to.AsSlice()})
		return err
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	// A deadline in the past ends a read that waits.
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()

	msg := echoMessage(request, size)
	if _, err := conn.Write(msg); err != nil {
		return err
	}
	buf := make([]byte, len(msg)+512)
	for {
		got, _, err := conn.ReadFrom(buf)
		if err != nil {
			return err
		}
		// Other messages come here too, such as the request itself where a node pings itself.
		if got > 0 && buf[0] == reply && got == len(msg) && bytes.Equal(buf[4:got], msg[4:]) {
			return nil
		}
	}
}

// echoMessage builds an echo request. The kernel fills in the checksum of ICMPv6.
func echoMessage(kind byte, size int) []byte {
	msg := make([]byte, 8+size)
	msg[0] = kind
	binary.BigEndian.PutUint16(msg[4:], uint16(time.Now().UnixNano())) // id
	for i := range msg[8:] {
		msg[8+i] = byte(i)
	}
	if kind == echoRequest4 {
		binary.BigEndian.PutUint16(msg[2:], checksum(msg))
	}
	return msg
}

// checksum is the Internet checksum (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum>>16 != 0 {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
