// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package probetunnel

// BPF_CFLAGS names the folder of the architecture's kernel headers; `make generate` sets it.
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -cflags "-O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-sign-compare $BPF_CFLAGS" probe ../../bpf/probe.bpf.c
