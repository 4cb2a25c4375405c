// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package offload

// BPF_CFLAGS names the folder of the architecture's kernel headers; `make generate` sets it. Objects of
// -mcpu=v4 store immediates, which no card's driver translates.
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -cflags "-O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-sign-compare $BPF_CFLAGS" card ../../bpf/offload.bpf.c
