// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/*
 * The servers' side of the tunnel: takes the outer header of IPIP (RFC 2003, 2473, 4213) and of GUE
 * variant 1 (IP directly in UDP, draft-ietf-intarea-gue) off frames to a tunnel address, and hands
 * the inner packet to the stack in the same Ethernet frame. Everything else passes untouched.
 *
 * A frame goes through the steps of tunnel_open() in order. A step returns DECAP_DECAPSULATED to
 * go on, or the reason to end; frame_count() is the only exit. The cheap tests come first, since
 * most frames of a server that is not under load are not tunnelled.
 *
 * Not verified, because the stack verifies the inner packet's own: the outer IPv4 header checksum
 * and the outer UDP checksum. What lies behind the inner packet's length stays in the frame; the
 * stack cuts it.
 *
 * Loading needs CAP_PERFMON: without it the verifier refuses offsets into a packet that are not
 * constant (sanitize_ptr_alu() in kernel/bpf/verifier.c), and IPv4 options make them so.
 */

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "bytes.h"
#include "decap_types.h"
#include "decap_frame.h"
#include "decap_outer.h"
#include "decap_inner.h"

/*
 * Moves the Ethernet header and its tags to the place in front of the inner packet, and gives them
 * the inner EtherType. The two places overlap (22 bytes with tags, 20 removed), so all is read
 * before it is written.
 */
static __always_inline enum decap_reason ethernet_move(struct frame *f)
{
	struct ethernet_words *from = f->data;
	struct ethernet_words *to = f->data + f->removed_bytes;
	__u16 ethertype = f->inner_version == 4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
	__u32 a0, a1, a2, tag0, tag1;

	/* Cannot be: the inner header behind it is at least 20 bytes. For the verifier. */
	if ((void *)(from + 1) > f->end || (void *)(to + 1) > f->end)
		return DECAP_NOT_MOVED;
	a0 = from->addresses[0];
	a1 = from->addresses[1];
	a2 = from->addresses[2];
	tag0 = from->tags[0];
	tag1 = from->tags[1];
	to->addresses[0] = a0;
	to->addresses[1] = a1;
	to->addresses[2] = a2;
	if (f->tags_len == 0) {
		*(__be16 *)&to->tags[0] = ethertype;
		return DECAP_DECAPSULATED;
	}
	to->tags[0] = tag0;
	if (f->tags_len == 1) {
		*(__be16 *)&to->tags[1] = ethertype;
		return DECAP_DECAPSULATED;
	}
	to->tags[1] = tag1;
	to->protocol = ethertype;
	return DECAP_DECAPSULATED;
}

/* The checks, up to the last that leaves the frame as it is. */
static __always_inline enum decap_reason tunnel_parse(struct frame *f)
{
	enum decap_reason reason;

	reason = ethernet_parse(f);
	if (reason)
		return reason;
	reason = outer_parse(f);
	if (reason)
		return reason;
	reason = protocol_check(f);
	if (reason)
		return reason;
	reason = gue_check(f);
	if (reason)
		return reason;
	reason = outer_addr_check(f);
	if (reason)
		return reason;
	reason = outer_lengths_check(f);
	if (reason)
		return reason;
	reason = inner_parse(f);
	if (reason)
		return reason;
	return vip_check(f);
}

/* The whole way of a frame. Once ecn_merge() has begun, it is decapsulated or dropped. */
static __always_inline enum decap_reason tunnel_open(struct xdp_md *ctx, struct frame *f)
{
	enum decap_reason reason;

	reason = tunnel_parse(f);
	if (reason)
		return reason;
	reason = ecn_merge(f);
	if (reason)
		return reason;
	reason = ethernet_move(f);
	if (reason)
		return reason;
	if (bpf_xdp_adjust_head(ctx, f->removed_bytes))
		return DECAP_NOT_MOVED;
	return DECAP_DECAPSULATED;
}

static __always_inline void kind_count(const struct frame *f)
{
	__u32 kind = DECAP_IPIP_4IN4;
	struct decap_count *count;

	if (f->inner_version == 6)
		kind += DECAP_IPIP_6IN4;
	if (f->ethertype == bpf_htons(ETH_P_IPV6))
		kind += DECAP_IPIP_4IN6;
	if (f->gue)
		kind += DECAP_GUE_4IN4;
	count = bpf_map_lookup_elem(&kind_counts, &kind);
	/* Cannot be NULL: kind is below the map's size. For the verifier. */
	if (!count)
		return;
	count->packets++;
	count->bytes += f->inner_bytes;
}

/* The only exit: counts the frame for its reason, which gives the verdict. */
static __always_inline int frame_count(const struct frame *f, enum decap_reason reason)
{
	__u32 key = reason;
	__u64 *packets = bpf_map_lookup_elem(&reason_packets, &key);

	/* Cannot be NULL: reasons are below the map's size. For the verifier. */
	if (packets)
		(*packets)++;
	if (reason == DECAP_DECAPSULATED)
		kind_count(f);
	return reason >= DECAP_OUTER_LENGTH ? XDP_DROP : XDP_PASS;
}

SEC("xdp")
int remora_decap(struct xdp_md *ctx)
{
	struct frame f = {
		.data = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
	};

	return frame_count(&f, tunnel_open(ctx, &f));
}

char _license[] SEC("license") = "Dual BSD/GPL";
