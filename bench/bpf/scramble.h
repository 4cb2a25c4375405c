// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#pragma once
// The order in which flows are met.

// The flow of packet i, in a scrambled order (a 32-bit mix, each step of which is a bijection) that
// differs from pass to pass. In sequence, table entries would be met in the order in which they
// were allocated, and the prefetcher would hide half of their cost.
static __always_inline __u32 flow_no(__u64 i, __u32 mask)
{
	__u32 x = (__u32)i;

	x ^= x >> 16;
	x *= 0x7feb352d;
	x ^= x >> 15;
	x *= 0x846ca68b;
	x ^= x >> 16;
	return x & mask;
}
