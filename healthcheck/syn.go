// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// SYN is a probe that sends one SYN from a raw socket and resets the half-open connection when the
// SYN-ACK comes, so that the server's program never sees it. It needs CAP_NET_RAW.
//
// Every open raw socket is offered every TCP segment that the host receives, so it is for a few
// hundred checks, not for thousands. A lost SYN is not sent again: the probe has failed then.
type SYN struct{}

// Validate implements Kind.
func (SYN) Validate() error { return nil }

// Probe implements Kind.
func (c SYN) Probe() (Probe, error) { return &probe{kind: c, ask: askSYN}, nil }

func askSYN(ctx context.Context, t Target) (answer, error) {
	h, err := openHalf(t)
	if err != nil {
		return answer{}, err
	}
	defer h.close()
	stop := obey(ctx, h.conn)
	defer stop()
	sequence := rand.Uint32()
	if _, err := h.conn.Write(h.segment(flagSYN, sequence)); err != nil {
		return answer{}, during("send SYN", err)
	}
	if err := h.await(sequence + 1); err != nil {
		return answer{}, err
	}
	// The kernel resets the connection too, as it knows of none, but its reset has no mark and may
	// take another way than the SYN. If this one is lost the server forgets by itself.
	_, _ = h.conn.Write(h.segment(flagRST, sequence+1))
	return answer{}, nil
}

// half is a connection that never gets further than the SYN-ACK.
type half struct {
	conn *os.File
	// reserved is a TCP socket that is bound to local, so that nobody else uses the port. It does
	// not listen, so the kernel does not take the SYN-ACK for its own.
	reserved      int
	local, remote netip.AddrPort
}

func openHalf(t Target) (*half, error) {
	portlessTarget := t
	portlessTarget.Addr = portless(t.Addr)
	fd, err := portlessTarget.open(unix.SOCK_RAW, unix.IPPROTO_TCP)
	if errors.Is(err, unix.EPERM) {
		return nil, fail(Local, "open socket: it needs CAP_NET_RAW")
	}
	if err != nil {
		return nil, err
	}
	h := &half{conn: pollable(fd, "half-open"), reserved: -1, remote: t.Addr}
	if err := h.prepare(portlessTarget, fd); err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

// portless: raw sockets have no ports, and some kernels refuse any but 0.
func portless(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr(), 0) }

func (h *half) prepare(t Target, fd int) error {
	if err := t.reportErrors(fd); err != nil {
		return err
	}
	if err := unix.Connect(fd, sockaddr(t.Addr)); err != nil {
		return during("find a way to "+t.Addr.Addr().String(), err)
	}
	source, err := localAddr(fd)
	if err != nil {
		return fail(Local, "ask for the source address: %v", err)
	}
	t.Source, t.Mark = source.Addr(), 0
	if err := h.reserve(t); err != nil {
		return err
	}
	// Nothing that comes before the filter can be meant for us: the SYN was not sent yet.
	return h.filter(t, fd)
}

// reserve takes a free port of the target's source address.
func (h *half) reserve(t Target) (err error) {
	if h.reserved, err = unix.Socket(t.family(), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return fail(Local, "open socket: %v", err)
	}
	if err := t.bind(h.reserved); err != nil {
		return err
	}
	if h.local, err = localAddr(h.reserved); err != nil {
		return fail(Local, "ask for the source port: %v", err)
	}
	return nil
}

func localAddr(fd int) (netip.AddrPort, error) {
	name, err := unix.Getsockname(fd)
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)), nil
	}
	return netip.AddrPort{}, err
}

// filter lets only segments between the two ports into the socket; connecting has fixed the
// addresses. Raw IPv4 sockets see the IP header, raw IPv6 sockets do not.
func (h *half) filter(t Target, fd int) error {
	load := bpf.Instruction(bpf.LoadMemShift{Off: 0})
	if t.family() == unix.AF_INET6 {
		load = bpf.LoadConstant{Dst: bpf.RegX, Val: 0}
	}
	program, err := bpf.Assemble([]bpf.Instruction{
		load,
		bpf.LoadIndirect{Off: 0, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(h.remote.Port())<<16 | uint32(h.local.Port()), SkipFalse: 1},
		bpf.RetConstant{Val: 0xffff},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return fail(Local, "make filter: %v", err)
	}
	instructions := make([]unix.SockFilter, len(program))
	for i, r := range program {
		instructions[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	prog := unix.SockFprog{Len: uint16(len(instructions)), Filter: &instructions[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
		return fail(Local, "attach filter: %v", err)
	}
	return nil
}

// await reads until the server accepts or refuses the SYN that is acknowledged by ack.
func (h *half) await(ack uint32) error {
	buf := make([]byte, 2048)
	for {
		n, err := h.conn.Read(buf)
		if err != nil {
			return during("read the answer to SYN", err)
		}
		b := buf[:n]
		if h.remote.Addr().Is4() {
			b = skipIPv4Header(b)
		}
		if len(b) < tcpHeaderLen || binary.BigEndian.Uint32(b[8:]) != ack {
			continue
		}
		switch flags := b[13]; {
		case flags&flagRST != 0:
			return fail(Refused, "the SYN was answered with a reset")
		case flags&(flagSYN|flagACK) == flagSYN|flagACK:
			return nil
		}
	}
}

func (h *half) close() {
	h.conn.Close()
	if h.reserved >= 0 {
		unix.Close(h.reserved)
	}
}

// Flags of the TCP header (RFC 9293, section 3.1).
const (
	flagSYN = 0x02
	flagRST = 0x04
	flagACK = 0x10
)

// segment makes a TCP segment without options and data.
func (h *half) segment(flags byte, sequence uint32) []byte {
	b := make([]byte, tcpHeaderLen)
	binary.BigEndian.PutUint16(b, h.local.Port())
	binary.BigEndian.PutUint16(b[2:], h.remote.Port())
	binary.BigEndian.PutUint32(b[4:], sequence)
	b[12] = tcpHeaderLen / 4 << 4
	b[13] = flags
	binary.BigEndian.PutUint16(b[14:], 0xffff) // the window
	binary.BigEndian.PutUint16(b[16:], h.checksum(b))
	return b
}

// checksum is the TCP checksum with the pseudo header (RFC 9293, section 3.1; RFC 8200, section
// 8.1). The sum of the two pseudo headers is the same.
func (h *half) checksum(segment []byte) uint16 {
	b := h.local.Addr().AsSlice()
	b = append(b, h.remote.Addr().AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, unix.IPPROTO_TCP)
	b = binary.BigEndian.AppendUint16(b, uint16(len(segment)))
	b = append(b, segment...)
	var sum uint32
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
