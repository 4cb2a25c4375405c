// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package machine reads the machine that this process runs on, for package doctor. It changes
// nothing. Everything is that of the process's namespaces.
package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/lb/doctor"
)

// Open opens what is read. The caller calls the function that it returns when it is done.
func Open() (*doctor.Machine, func(), error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, nil, fmt.Errorf("open netlink socket: %v", err)
	}
	tool, err := ethtool.NewEthtool()
	if err != nil {
		handle.Close()
		return nil, nil, fmt.Errorf("open ethtool socket: %v", err)
	}
	m := &doctor.Machine{
		Files:        os.DirFS("/"),
		Network:      &network{handle: handle},
		Driver:       &driver{tool: tool},
		System:       system{},
		BPF:          programs{},
		PacketFilter: packetFilter,
		Connect:      connect,
	}
	return m, func() { tool.Close(); handle.Close() }, nil
}

// packetFilter is what nft prints.
func packetFilter(ctx context.Context) (string, error) {
	var out, problem bytes.Buffer
	cmd := exec.CommandContext(ctx, "nft", "list", "ruleset")
	cmd.Stdout, cmd.Stderr = &out, &problem
	err := cmd.Run()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return "", errors.New("the program nft is not installed")
	case err != nil && strings.Contains(problem.String(), "not permitted"):
		return "", fmt.Errorf("list rules of nftables: %w", fs.ErrPermission)
	case err != nil:
		return "", fmt.Errorf("list rules of nftables: %v: %s", err, strings.TrimSpace(problem.String()))
	}
	return out.String(), nil
}

// connect opens a TCP connection, and closes it again.
func connect(ctx context.Context, from, to netip.AddrPort) error {
	var d net.Dialer
	if from.Addr().IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(from)
	}
	conn, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return err
	}
	return conn.Close()
}
