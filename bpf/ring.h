// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Ring: a flow's hash to its slot, and the slot's current real. The control plane writes stable
 * slots only; the current real is also what a slot in another state gives new flows.
 */
#pragma once

static __always_inline __u32 ring_select(const struct packet *p, __u64 vip, __u32 hashed_ports)
{
	__u32 size = vip >> VIP_SIZE_SHIFT & VIP_SIZE_MASK;

	return (__u32)slot_get((__u32)vip + slot_index(flow_hash(p->fold, hashed_ports), size));
}
