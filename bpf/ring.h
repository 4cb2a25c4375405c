// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Ring: a flow's hash to its slot within the VIP's ring. A stable slot names the real; for any other,
 * and for VIPs that remember all flows, the flow step is asked.
 */
#pragma once

static __always_inline __u32 ring_index(const struct packet *p, __u64 vip, __u32 hashed_ports)
{
	return slot_index(flow_hash(p->fold, hashed_ports), vip >> VIP_SIZE_SHIFT & VIP_SIZE_MASK);
}

/* Whether the slot names it, and the flow step has no say. */
static __always_inline int ring_decides(__u64 slot, __u32 vip_flags)
{
	return !(slot >> 32 | (vip_flags & VIP_FLOWS_ALWAYS));
}

/* The real, where it is for the slot to say. */
static __always_inline __u32 ring_select(struct xdp_md *ctx, const struct packet *p, __u64 slot,
					 __u32 index, __u32 vip_flags)
{
	return ring_decides(slot, vip_flags) ? slot : flow_select(ctx, p, slot, index, vip_flags);
}
