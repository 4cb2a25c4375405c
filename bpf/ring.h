// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Ring: a flow's hash to its slot, and the slot to a real. A stable slot names it; for any other,
 * and for VIPs that remember all flows, the flow step is asked.
 */
#pragma once

static __always_inline __u32 ring_select(struct xdp_md *ctx, const struct packet *p, __u64 vip,
					 __u32 hashed_ports)
{
	__u32 size = vip >> VIP_SIZE_SHIFT & VIP_SIZE_MASK;
	__u32 index = slot_index(flow_hash(p->fold, hashed_ports), size);
	__u64 slot = slot_get((__u32)vip + index);

	if (unlikely(slot >> 32 | (vip >> VIP_FLAGS_SHIFT & VIP_FLOWS_ALWAYS))) {
		/* A copy, so that the packet's fields can stay in registers elsewhere. */
		struct packet flow = *p;

		return flow_select(ctx, &flow, slot, index, vip >> VIP_FLAGS_SHIFT);
	}
	return slot;
}
