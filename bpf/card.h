// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The path of a packet on a card: what the stable path of balance.h does, with the same steps, as long
 * as nothing but the tables decides. Everything else passes up to the host untouched: a step says
 * why, and 0, CARD_SENT, means go on. All of this fits 32-bit arithmetic and one adjust_head.
 */
#pragma once

#include "bytes.h"
#include "packet.h"
#include "hash.h"
#include "parse_plain.h"
#include "outer.h"

/* The shortest frame that was sent: 28 bytes of packet and 20 of outer header. All headers end within. */
#define CARD_FRAME_MIN (ETH_BYTES + 48)

/*
 * A multiplication takes what is known to fit 32 bits. Kernels before 6.10 forget that over "or" and
 * "xor"; a move of the lower half tells them again.
 */
static __always_inline __u32 known_u32(__u32 x)
{
	asm volatile("%0 = %0" : "+w"(x));
	return x;
}

static __always_inline __u64 card_vip_get(const struct packet *p, __u32 port)
{
	__u32 port_proto = port | (__u32)p->protocol << 16;

	return p->is_v6 ? vip6_get(p->dst, port_proto) : vip4_get(p->dst[0], port_proto);
}

/* Exact port first, then port 0: vip.h says more. 0 if there is none. */
static __always_inline __u64 card_vip_lookup(const struct packet *p, __u32 *hashed_ports)
{
	__u64 vip = card_vip_get(p, p->ports >> 16);

	*hashed_ports = p->ports;
	if (likely(vip))
		return vip;
	*hashed_ports &= 0xffff;
	return card_vip_get(p, 0);
}

/* By how much the frame grows; 0 if the card cannot. */
static __always_inline __u32 card_outer_bytes(__u16 kind)
{
	if (likely(kind == ENCAP_IPIP4))
		return 20;
	if (kind == ENCAP_IPIP6)
		return 40;
	if (kind == ENCAP_GUE4)
		return 28;
	return kind == ENCAP_GUE6 ? 48 : 0;
}

/* All checks come before adjust_head, of which there is one: a card translates each anew. */
static __always_inline enum card_pass card_encapsulate(struct xdp_md *ctx, const struct packet *p,
						       const struct real *real)
{
	void *data = (void *)(long)ctx->data;
	__u16 kind = real->kind;
	__u32 bytes = card_outer_bytes(kind);
	__u64 own_mac;

	/* The second condition follows from what was parsed; the verifier does not see that. */
	if (unlikely(!bytes || data + ETH_BYTES > (void *)(long)ctx->data_end))
		return CARD_REAL;
	own_mac = LD64(data);
	if (unlikely(bpf_xdp_adjust_head(ctx, -(int)bytes)))
		return CARD_NO_ROOM;
	data = (void *)(long)ctx->data;
	if (unlikely(data + CARD_FRAME_MIN > (void *)(long)ctx->data_end))
		return CARD_LOST;
	if (likely(kind == ENCAP_IPIP4))
		put_ipip4(data, p, real, own_mac);
	else if (kind == ENCAP_IPIP6)
		put_ipip6(data, p, real, own_mac);
	else if (kind == ENCAP_GUE4)
		put_gue4(data, p, real, own_mac);
	else
		put_gue6(data, p, real, own_mac);
	return CARD_SENT;
}

static __always_inline enum card_pass card_forward(struct xdp_md *ctx)
{
	struct packet p = {};
	__u32 hashed_ports, slot, id;
	const struct real *real;
	enum card_pass why;
	__u64 vip;

	if (unlikely(parse_plain(ctx, &p)))
		return CARD_NOT_PLAIN;
	vip = card_vip_lookup(&p, &hashed_ports);
	if (!vip)
		return CARD_NOT_VIP;
	if (unlikely(vip >> VIP_FLAGS_SHIFT))
		return CARD_VIP_FLAGS;
	slot = slot_index(known_u32(flow_hash(p.fold, hashed_ports)), known_u32(vip >> VIP_SIZE_SHIFT));
	id = slot_get((__u32)vip + slot);
	if (unlikely(!id))
		return CARD_SLOT;
	real = real_get(id);
	if (unlikely(!real || p.bytes > real->max_bytes))
		return CARD_REAL;
	why = card_encapsulate(ctx, &p, real);
	if (likely(why == CARD_SENT))
		count_forwarded(id, p.bytes);
	return why;
}

static __always_inline int card_balance(struct xdp_md *ctx)
{
	enum card_pass why = card_forward(ctx);

	if (likely(why == CARD_SENT))
		return XDP_TX;
	if (unlikely(why == CARD_LOST))
		return XDP_DROP;
	count_pass(why);
	return XDP_PASS;
}
