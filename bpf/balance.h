// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The path of a packet: parse, VIP, ring, real, encapsulate, count. Steps return a reason; 0,
 * REASON_FORWARDED, means go on. There is one exit, which counts. The stable path handles what
 * nearly every packet looks like; everything else goes to a function of its own, which costs the
 * stable path neither registers nor code.
 */
#pragma once

#include "bytes.h"
#include "packet.h"
#include "hash.h"
#include "vip.h"
#include "flow_table.h"
#include "flow.h"
#include "ring.h"
#include "server_id.h"
#include "options.h"
#include "real.h"
#include "link.h"
#include "answer.h"
#include "icmp.h"
#include "echo.h"
#include "parse.h"
#include "checksum.h"
#include "too_big.h"
#include "outer.h"
#include "encap.h"
#include "inline_decap.h"

/* What becomes of packets that end for a reason. */
static __always_inline int verdict(enum reason why)
{
	if (why == REASON_FORWARDED)
		return XDP_TX;
	if (why >= REASON_LOCAL)
		return XDP_PASS;
	if (why < REASON_NOT_IP || why >= REASON_TTL_EXPIRED)
		return XDP_DROP;
	return why < REASON_ECHO_ANSWERED ? XDP_PASS : XDP_TX;
}

/* A packet that cannot be sent to its real. A function of its own: nearly none come here. */
__attribute__((noinline)) int refuse(struct xdp_md *ctx, const struct packet *p, __u32 id)
{
	const struct real *real = real_get(id);
	enum reason why = real_refusal(id, real);

	if (!ctx || !p || !real)
		return why; /* never without the first two: the verifier wants arguments to be checked */
	if (why == REASON_LOCAL)
		count_forwarded(id, p->bytes);
	return why == REASON_TOO_BIG ? too_big(ctx, p, real->max_bytes) : why;
}

/* The rest of the path, from the real on, of a packet that can be sent to it. */
static __always_inline enum reason send(struct xdp_md *ctx, const struct packet *p, __u32 id,
					const struct real *real)
{
	enum reason why = encapsulate(ctx, p, real);

	if (likely(why == REASON_FORWARDED))
		count_forwarded(id, p->bytes);
	return why;
}

/*
 * The real's id, whatever the VIP and the slot; index is the slot's for a VIP without options. May change
 * the packet's addresses and ports to what the outer header is made of.
 */
__attribute__((noinline)) __u32 select_any(struct xdp_md *ctx, struct packet *p, __u64 vip,
					   __u32 hashed_ports, __u32 index)
{
	__u32 flags = vip >> VIP_FLAGS_SHIFT;

	if (!ctx || !p)
		return 0; /* never: the verifier wants arguments to be checked */
	if (feature(FEATURE_OPTIONS) && flags & VIP_OPTIONS)
		return options_select(ctx, p, vip, hashed_ports);
	return ring_select(ctx, p, slot_get((__u32)vip + index), index, flags);
}

/* Real to count, whatever the real. A function of its own, with a packet of its own. */
__attribute__((noinline)) int send_any(struct xdp_md *ctx, const struct packet *p, __u32 id)
{
	const struct real *real = real_get(id);

	if (!ctx || !p)
		return REASON_REAL_UNKNOWN; /* never: as above */
	if (!real || p->bytes > real->max_bytes)
		return refuse(ctx, p, id);
	return send(ctx, p, id, real);
}

/* VIP to count, on the stable path. REASON_UNDECIDED: the real of a stable slot does not take the packet. */
static __always_inline enum reason forward_plain(struct xdp_md *ctx, const struct packet *p)
{
	__u32 hashed_ports, index, id;
	const struct real *real;
	struct packet copy; /* so that the packet's fields can stay in registers */
	__u64 vip, slot;
	int asked = 0;

	vip = vip_lookup(p, &hashed_ports);
	if (!vip)
		return REASON_NOT_VIP;
	index = ring_index(p, vip, hashed_ports);
	slot = slot_get((__u32)vip + index);
	id = slot;
	if (unlikely(slot >> 32 | (vip >> VIP_FLAGS_SHIFT & (VIP_FLOWS_ALWAYS | VIP_OPTIONS)))) {
		copy = *p;
		if (feature(FEATURE_OPTIONS) && vip >> VIP_FLAGS_SHIFT & VIP_OPTIONS)
			return send_any(ctx, &copy, select_any(ctx, &copy, vip, hashed_ports, index));
		id = flow_select(ctx, &copy, slot, index, vip >> VIP_FLAGS_SHIFT);
		asked = 1;
	}
	real = real_get(id);
	/* The flow table is asked but once for a packet. */
	if (unlikely(!real || p->bytes > real->max_bytes))
		return asked ? refuse(ctx, &copy, id) : REASON_UNDECIDED;
	return send(ctx, p, id, real);
}

/* VIP to count, for any packet but a fragment. */
static __always_inline enum reason forward_any(struct xdp_md *ctx, struct packet *p)
{
	__u32 hashed_ports;
	__u64 vip = vip_lookup(p, &hashed_ports);

	if (!vip)
		return REASON_NOT_VIP;
	return send_any(ctx, p, select_any(ctx, p, vip, hashed_ports, ring_index(p, vip, hashed_ports)));
}

static __always_inline enum reason forward_fragment(struct xdp_md *ctx, struct packet *p)
{
	__u64 vip;

	if (!vip_has_address(p))
		return REASON_NOT_VIP;
	vip = vip_of_fragment(p);
	if (vip >> VIP_FLAGS_SHIFT & VIP_FRAGMENTS_PASS)
		return REASON_FRAGMENT_PASSED;
	/* What goes by client has options. */
	return vip ? send_any(ctx, p, select_any(ctx, p, vip, 0, 0)) : REASON_FRAGMENT;
}

static __always_inline enum reason answer_echo(struct xdp_md *ctx, const struct packet *p)
{
	if (!vip_has_address(p) || !answer_to_host(ctx, p))
		return REASON_ICMP;
	return answer_admits() ? echo_answer(ctx, p) : REASON_ECHO_LIMITED;
}

/* Parse to count, for any frame. */
static __always_inline enum reason pass_through(struct xdp_md *ctx, struct packet *p)
{
	enum reason why = parse_any(ctx, p);

	switch (why) {
	case REASON_FORWARDED:
		return forward_any(ctx, p);
	case REASON_FRAGMENT:
		return forward_fragment(ctx, p);
	case REASON_ECHO_ANSWERED:
		return answer_echo(ctx, p);
	default:
		return why;
	}
}

/* The whole path of a packet that the stable path left. */
__attribute__((noinline)) int slow_path(struct xdp_md *ctx)
{
	enum reason why;

	if (!ctx)
		return XDP_ABORTED; /* never: the verifier wants arguments to be checked */
	/* Without, and then once more if so, its outer headers. */
	for (int decapsulated = 0; decapsulated < 2; decapsulated++) {
		struct packet p = {};

		why = pass_through(ctx, &p);
		if (!feature(FEATURE_DECAP) || decapsulated)
			break;
		why = decapsulate(ctx, &p, why);
		if (why != REASON_UNDECIDED)
			break;
	}
	if (why != REASON_FORWARDED)
		count_reason(why);
	return verdict(why);
}

static __always_inline int balance(struct xdp_md *ctx)
{
	struct packet p = {};
	enum reason why = parse_plain(ctx, &p);

	if (likely(why == REASON_FORWARDED))
		why = forward_plain(ctx, &p);
	if (likely(why == REASON_FORWARDED))
		return XDP_TX;
	if (why == REASON_UNDECIDED)
		return slow_path(ctx);
	/* It may be tunnelled. */
	if (why == REASON_NOT_VIP && feature(FEATURE_DECAP))
		return slow_path(ctx);
	count_reason(why);
	return verdict(why);
}
