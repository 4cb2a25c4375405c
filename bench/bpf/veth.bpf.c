// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The programs of the veth lab: generate makes live frames and sends them into one end of the pair,
// alternate is attached at the other end and hands them to the program under test, sink takes what
// comes back. All run on one CPU, within the generator's system call.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "access.h"
#include "frame.h"
#include "sides.h"
#include "tick.h"

#define CHUNK_PKTS 1024	// power of two; a Go constant must agree

volatile const __u32 out_ifindex;	// the generator's end of the pair

__u64 received;	// frames that alternate has seen
__u64 returned;	// frames that came back to the sink

// Live frames are recycled with their bounds reset, but not their contents.
SEC("xdp")
int generate(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;

	tick(CHUNK_PKTS);
	if (frame_restore(data, data_end) || flow_stamp(data, data_end))
		return XDP_ABORTED;
	return bpf_redirect(out_ifindex, 0);
}

// In step with the generator's chunks, as nothing is lost.
SEC("xdp")
int alternate(struct xdp_md *ctx)
{
	if (received++ & CHUNK_PKTS)
		bpf_tail_call_static(ctx, &sides, SIDE_TARGET);
	else
		bpf_tail_call_static(ctx, &sides, SIDE_BASELINE);
	return XDP_ABORTED;
}

// What the target's path is compared with.
SEC("xdp")
int baseline(struct xdp_md *ctx)
{
	return XDP_DROP;
}

SEC("xdp")
int sink(struct xdp_md *ctx)
{
	returned++;
	return XDP_DROP;
}

char _license[] SEC("license") = "Dual BSD/GPL";
