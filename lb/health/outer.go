// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/healthcheck"
	"github.com/remora-lb/remora/lb"
)

// askDecapsulator sends a server an outer packet with nothing of use in it. If nobody there unwraps
// such packets the server's kernel says so; silence is what one who does answers.
func askDecapsulator(ctx context.Context, r lb.Real) healthcheck.Result {
	if r.Tunnel.Encap == lb.GUE {
		probe, err := healthcheck.UDP{}.Probe()
		if err != nil {
			return healthcheck.Result{Reason: healthcheck.Local, Detail: err.Error()}
		}
		return probe.Check(ctx, healthcheck.Target{Addr: netip.AddrPortFrom(r.Tunnel.Destination, r.Tunnel.Port)})
	}
	err := sendBareOuter(ctx, r)
	switch {
	case err == nil, errors.Is(err, os.ErrDeadlineExceeded):
		return healthcheck.Result{Reason: healthcheck.Timeout, Detail: "the server says nothing"}
	case errors.Is(err, unix.ECONNREFUSED):
		return healthcheck.Result{Reason: healthcheck.Refused, Detail: err.Error()}
	case errors.Is(err, unix.ENOPROTOOPT), errors.Is(err, unix.EPROTO), errors.Is(err, unix.EHOSTUNREACH):
		return healthcheck.Result{Reason: healthcheck.Unreachable, Detail: err.Error()}
	}
	return healthcheck.Result{Reason: healthcheck.Local, Detail: err.Error()}
}

// bareLen is the length of an IPv6 header: shorter payloads are dropped by Linux before it is looked
// who takes them.
const bareLen = 40

// sendBareOuter returns the error that the server's kernel reports by ICMP. It needs CAP_NET_RAW.
func sendBareOuter(ctx context.Context, r lb.Real) error {
	protocol := unix.IPPROTO_IPIP
	if r.VIP.Addr.Is6() {
		protocol = unix.IPPROTO_IPV6
	}
	family, level, option := unix.AF_INET, unix.SOL_IP, unix.IP_RECVERR
	var to unix.Sockaddr = &unix.SockaddrInet4{}
	if a := r.Tunnel.Destination; a.Is6() {
		family, level, option = unix.AF_INET6, unix.SOL_IPV6, unix.IPV6_RECVERR
		to = &unix.SockaddrInet6{Addr: a.As16()}
	} else {
		to = &unix.SockaddrInet4{Addr: a.As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return fmt.Errorf("open raw socket: %v (it needs CAP_NET_RAW)", err)
	}
	conn := os.NewFile(uintptr(fd), "outer")
	defer conn.Close()
	if err := errors.Join(unix.SetsockoptInt(fd, level, option, 1), unix.Connect(fd, to)); err != nil {
		return fmt.Errorf("prepare raw socket: %v", err)
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetReadDeadline(deadline) // it fails on closed files only
	}
	defer context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })()
	if _, err := conn.Write(make([]byte, bareLen)); err != nil {
		return fmt.Errorf("send outer packet: %w", err)
	}
	// What others send to this protocol is not for us: only an error ends the wait.
	for buf := make([]byte, 64); ; {
		if _, err := conn.Read(buf); err != nil {
			return err
		}
	}
}
