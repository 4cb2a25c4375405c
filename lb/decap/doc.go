// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package decap is the servers' side of the tunnel: an XDP program on a server's interface that
// takes the outer headers of IPIP and GUE off and hands the inner packet to the network stack.
// Frames that are not for it pass untouched. The program is bpf/decap.bpf.c.
//
// BPF_CFLAGS names the folder of the architecture's kernel headers; `make generate` sets it.
package decap

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -cflags "-O2 -g -mcpu=v3 -Wall -Werror $BPF_CFLAGS" decap ../../bpf/decap.bpf.c
