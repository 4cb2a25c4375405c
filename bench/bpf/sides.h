// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The two programs that chunks of packets go to in turn: the one under test, and the baseline. */
#pragma once

// Slots of the jump table; Go constants must agree.
enum side {
	SIDE_TARGET,
	SIDE_BASELINE,
	SIDE_LEN,
};

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, SIDE_LEN);
	__type(key, __u32);
	__type(value, __u32);
} sides SEC(".maps");
