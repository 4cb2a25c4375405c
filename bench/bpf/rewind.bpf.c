// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The rewind stub makes BPF_PROG_TEST_RUN repeatable for programs that change the packet. The
// kernel runs the same buffer again and again without resetting it, so an encapsulating program
// would see its own output from the second run on. The stub, which is the program that the kernel
// is given, first undoes what the last run did, then tail-calls the program under test, unmodified.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "access.h"
#include "frame.h"
#include "sides.h"
#include "tick.h"

#define CHUNK_PKTS 512	// power of two; a Go constant must agree

volatile const __u32 frame_len = 64;	// length of the case's frame in bytes

static __always_inline int packet_rewind(struct xdp_md *ctx)
{
	long len = (void *)(long)ctx->data_end - (void *)(long)ctx->data;
	void *data, *data_end;

	// The verifier takes the difference of two packet pointers as 64 bits only.
	asm volatile("" : "+r"(len));
	if (bpf_xdp_adjust_head(ctx, (int)len - (int)frame_len))
		return -1;
	data = (void *)(long)ctx->data;
	data_end = (void *)(long)ctx->data_end;
	if (frame_restore(data, data_end))
		return -1;
	return flow_stamp(data, data_end);
}

// Every second chunk goes to the baseline, so that the two meet the same state of the machine,
// within 0.1 ms.
SEC("xdp")
int rewind_packet(struct xdp_md *ctx)
{
	__u64 i = tick(CHUNK_PKTS);

	if (packet_rewind(ctx))
		return XDP_ABORTED;
	if (i & CHUNK_PKTS)
		bpf_tail_call_static(ctx, &sides, SIDE_TARGET);
	else
		bpf_tail_call_static(ctx, &sides, SIDE_BASELINE);
	return XDP_ABORTED;
}

// What the target's cost is measured above.
SEC("xdp")
int baseline(struct xdp_md *ctx)
{
	return XDP_TX;
}

char _license[] SEC("license") = "Dual BSD/GPL";
