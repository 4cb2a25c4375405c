// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package probetunnel sends health checks the way that clients' packets take: a program on a
// network interface's way out wraps packets whose mark names a real, as the packet program would
// wrap them for that real. All other packets of the host pass untouched. The program is
// bpf/probe.bpf.c.
package probetunnel
