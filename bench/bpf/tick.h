// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#pragma once
// The clock in band. The system call's own time is useless (with more than one repetition it waits
// for RCU, 16 ms and more) and its average is in whole ns. So the clock is read once every chunk of
// packets, which costs next to nothing, and user space takes the median chunk.

#define CHUNKS_LEN 256	// power of two; a Go constant must agree

__u64 packets;			// seen since user space last wrote 0
__u64 last_ns;			// when the present chunk began
__u32 chunks_ns[CHUNKS_LEN];	// chunks_ns[i]: what the packets of chunk i - 1 took; [0] is void

// Returns the packet's number. chunk_len is a power of two.
static __always_inline __u64 tick(__u32 chunk_len)
{
	__u64 i = packets++;
	__u64 now;

	if (i & (chunk_len - 1))
		return i;
	now = bpf_ktime_get_ns();
	chunks_ns[(i / chunk_len) & (CHUNKS_LEN - 1)] = now - last_ns;
	last_ns = now;
	return i;
}
