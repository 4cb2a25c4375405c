// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Options: what decides on a VIP's packets beside its ring, docs/packet-path.md section 3.2. Packets
 * of VIPs without options do not come here, and where no VIP has any this is not even loaded.
 */
#pragma once

/* The word in front of the ring's first slot: types.h. */
static __always_inline __u64 options_word(__u64 vip)
{
	return slot_get((__u32)vip - 1);
}

/* The packet's slot. ports are as vip_lookup left them. */
static __always_inline __u32 options_index(const struct packet *p, __u32 options, __u64 vip, __u32 ports)
{
	__u32 fold = p->fold;

	if (options & (OPTION_KEEP_DESTINATION_PORT | OPTION_DESTINATION_PORT_ONLY))
		ports = p->ports;
	if (options & OPTION_NO_SOURCE_PORT)
		ports &= 0xffff0000;
	if (options & OPTION_DESTINATION_PORT_ONLY) {
		fold = p->is_v6 ? ADDR6_ZEROS_HASH : 0;
		ports = (ports & 0xffff0000) | ports >> 16;
	}
	if (options & OPTION_BY_CLIENT)
		ports = 0;
	return slot_index(flow_hash(fold, ports), vip >> VIP_SIZE_SHIFT & VIP_SIZE_MASK);
}

/* What the outer header's entropy is made of takes the place of what the flow is named by. */
static __always_inline void options_entropy(struct packet *p, __u32 options)
{
	if (options & OPTION_NO_SOURCE_PORT)
		p->ports &= 0xffff0000;
	if (options & OPTION_DESTINATION_PORT_ONLY)
		p->src = 0;
}

/* The real of a server's number, if it may get packets of known flows; else 0. */
__attribute__((noinline)) __u32 options_server(__u32 ring, __u32 server_id)
{
	struct target key = { .ring = ring, .server_id = server_id };
	__u32 id = server_id ? target_get(&key) : 0;

	return flow_receives(real_get(id)) ? id : 0;
}

/* Beside a real's id, which fits 24 bits: it was a UDP id that led to it. */
#define LED_BY_UDP_ID 0x80000000u

/* The real that a datagram names. */
static __always_inline __u32 options_by_udp(struct xdp_md *ctx, __u32 at, __u32 payload, __u32 ring,
					    __u32 options)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 quic_id = 0, udp_id = 0, real;

	if (options & (OPTION_KATRAN_IDS | OPTION_QUIC_LB_IDS))
		quic_id = quic_server_id(data + at, end, payload, options);
	if (options & OPTION_UDP_IDS)
		udp_id = udp_server_id(data + at, end, payload);
	real = options_server(ring, udp_id);
	return real ? real | LED_BY_UDP_ID : options_server(ring, quic_id);
}

/* The real that the packet names; 0 if it names none that may have it. A function for its stack. */
__attribute__((noinline)) __u32 options_by_id(struct xdp_md *ctx, const struct packet *p, __u64 word)
{
	__u32 options = word >> OPTIONS_SHIFT, l4, payload;

	if (!ctx || !p || p->icmp_error || p->fragment)
		return 0; /* the first two never: the verifier wants arguments to be checked */
	l4 = (p->l3 & 31) + (p->l4 & 0x3fff);
	payload = p->bytes - p->l4;
	if (p->protocol != IPPROTO_TCP)
		return options_by_udp(ctx, l4 + UDP_BYTES, payload - UDP_BYTES, word, options);
	return options & OPTION_TCP_IDS ? options_server(word, tcp_server_id(ctx, l4, payload)) : 0;
}

/* Where the client's address stands in the frame. */
static __always_inline void *options_client(void *data, const struct packet *p)
{
	__u32 at = p->is_v6 ? 8 : 12;

	if (p->icmp_error)
		at = p->client & 0x3fff;
	return data + (p->l3 & 31) + at;
}

/* The real that the client's prefix chooses; 0 if none does. A function for the stack that it takes. */
__attribute__((noinline)) __u32 options_by_source(struct xdp_md *ctx, const struct packet *p, __u32 ring)
{
	struct source_prefix prefix = {};
	struct target key = { .ring = ring };
	const struct vip_addr *backend;
	void *client, *end;
	__u32 id;

	if (!ctx || !p)
		return 0; /* never: the verifier wants arguments to be checked */
	client = options_client((void *)(long)ctx->data, p);
	end = (void *)(long)ctx->data_end;
	prefix.bits = 32 + (p->is_v6 ? 128 : 32);
	prefix.family = p->is_v6 ? 6 : 4;
	if (client + (p->is_v6 ? 16 : 4) > end)
		return 0; /* never: it was parsed */
	prefix.addr[0] = p->is_v6 ? LD64(client) : LD32(client);
	if (p->is_v6)
		prefix.addr[1] = LD64(client + 8);
	backend = source_route_get(&prefix);
	if (!backend)
		return 0;
	key.addr[0] = backend->addr[0];
	key.addr[1] = backend->addr[1];
	id = target_get(&key);
	return flow_takes_new(real_get(id)) ? id : 0;
}

/*
 * The real of a packet of a VIP with options. Leaves in the packet what the outer header's entropy is
 * made of. ports are as vip_lookup left them.
 */
static __always_inline __u32 options_select(struct xdp_md *ctx, struct packet *p, __u64 vip, __u32 ports)
{
	__u64 word = options_word(vip), slot;
	__u32 options = word >> OPTIONS_SHIFT, index = options_index(p, options, vip, ports), id, chosen;
	__u32 flags = vip >> VIP_FLAGS_SHIFT, led;

	slot = slot_get((__u32)vip + index);
	led = id = options_by_id(ctx, p, word);
	if (!id && options & OPTION_SOURCE_ROUTES) {
		chosen = options_by_source(ctx, p, word);
		if (chosen)
			slot = chosen;
	}
	if (options & OPTION_BY_CLIENT) {
		p->ports = 0;
		p->by_client = 1;
		flags &= ~VIP_BY_PORT_0; /* fragments are found otherwise than whole packets */
	}
	if (!id)
		id = ring_select(ctx, p, slot, index, flags);
	else if (!(id & LED_BY_UDP_ID) && !ring_decides(slot, flags))
		flow_follow_id(ctx, p, slot, index | flags << FLOW_FLAGS_SHIFT, id);
	options_entropy(p, led ? options & ~OPTION_DESTINATION_PORT_ONLY : options);
	return id & ~LED_BY_UDP_ID;
}
