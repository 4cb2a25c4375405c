// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package tcpid is the servers' and clients' side of server ids in TCP options: a program on the
// sockets of a cgroup (bpf/tcpid.bpf.c), by which a server says its id on connections that it accepts,
// and a client names it on its later packets, so that balancers lead them there.
//
// BPF_CFLAGS names the folder of the architecture's kernel headers; `make generate` sets it.
package tcpid

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -cflags "-O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-sign-compare $BPF_CFLAGS" tcpid ../../bpf/tcpid.bpf.c
