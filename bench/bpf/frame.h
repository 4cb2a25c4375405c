// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#pragma once
// Makes the next frame of a run out of the last one: puts the first bytes of the case's frame back
// and stamps the next flow's source address and port. Needs access.h. User space sets the constants
// before load, so the verifier removes what a case does not use.
#include "scramble.h"

volatile const __u32 restore_len = 64;	// bytes put back: 16, 64 or 96
volatile const __u32 flow_mask;		// number of flows - 1; 0: the frame's own flow only
volatile const __u32 src_off;		// where the varied word of the source address lies
volatile const __u32 src_v6;		// 1: that word is the last one of an IPv6 address
volatile const __u32 port_off;		// where the source port lies

__u64 frame_words[32];	// the case's frame
__u64 flow_seq;		// flows stamped so far

static __always_inline int words_restore(void *data, void *data_end, __u32 words_len)
{
	if (data + words_len * 8 > data_end)
		return -1;
#pragma unroll
	for (__u32 i = 0; i < words_len; i++)
		ST64(data + i * 8, frame_words[i]);
	return 0;
}

static __always_inline int frame_restore(void *data, void *data_end)
{
	if (restore_len >= 96)
		return words_restore(data, data_end, 12);
	if (restore_len >= 64)
		return words_restore(data, data_end, 8);
	return words_restore(data, data_end, 2);
}

// Source addresses are 10.x.y.z, or the frame's own with another last word.
static __always_inline int flow_stamp(void *data, void *data_end)
{
	__u32 at = src_off, port_at = port_off, flow;

	if (!flow_mask)
		return 0;
	if (data + at + 4 > data_end || data + port_at + 2 > data_end)
		return -1;
	flow = flow_no(flow_seq++, flow_mask);
	ST32(data + at, src_v6 ? flow : 10 | flow << 8);
	ST16(data + port_at, 1024 + (__u16)(flow * 7919 & 0x7fff));
	return 0;
}
