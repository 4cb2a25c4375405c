// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Server ids: the number of a server in a packet of the client, which it learnt from that server.
 * docs/packet-path.md section 3.2. All functions return 0 if the packet names none.
 */
#pragma once

#define QUIC_LONG 0x80		   /* first byte, RFC 9000 section 17.2 */
#define QUIC_LONG_TYPE 0x30
#define QUIC_0RTT 0x10		   /* the types up to it have ids that the client made up */
#define QUIC_LONG_ID 6		   /* where the destination connection id starts */
#define QUIC_SHORT_ID 1		   /* RFC 9000 section 17.3 */
#define KATRAN_ID_BYTES 8	   /* of a connection id, at least */
#define QUIC_LB_NONCE_BYTES 4	   /* at least, and the first byte: draft-ietf-quic-load-balancers */
#define UDP_ID_BYTES 8		   /* of a payload that may name a server, at least */
#define UDP_ID_MARK 0x52
#define TCP_ID_KIND 0xb7
#define TCP_ID_BYTES 6
#define TCP_OPTIONS_MAX 15

/* Katran's three versions of a connection id. */
static __always_inline __u32 katran_id(void *id)
{
	switch (LD8(id) >> 6) {
	case 1:
		return (__u32)(LD8(id) & 0x3f) << 10 | (__u32)LD8(id + 1) << 2 | LD8(id + 2) >> 6;
	case 2:
		return (__u32)LD8(id + 1) << 16 | (__u32)LD8(id + 2) << 8 | LD8(id + 3);
	case 3:
		return bpf_ntohl(LD32(id + 1));
	default:
		return 0;
	}
}

static __always_inline __u32 quic_lb_id(void *id, void *end)
{
	__u32 number = 0;

	if (id + 1 > end || LD8(id) >> 5 != load_settings.quic_lb_config)
		return 0;
#pragma clang loop unroll(full)
	for (int i = 1; i <= 4; i++) {
		if (i > load_settings.quic_lb_bytes)
			break;
		if (id + i + 1 > end)
			return 0;
		number = number << 8 | LD8(id + i);
	}
	return number;
}

/* payload bytes are in the packet from quic on; the frame may end later, and end is the frame's. */
static __always_inline __u32 quic_server_id(void *quic, void *end, __u32 payload, __u32 options)
{
	__u32 id_bytes = options & OPTION_KATRAN_IDS ? KATRAN_ID_BYTES : 1 + load_settings.quic_lb_bytes;
	void *id = quic + QUIC_SHORT_ID;

	if (quic + QUIC_SHORT_ID > end || payload < QUIC_SHORT_ID + id_bytes)
		return 0;
	if (LD8(quic) & QUIC_LONG) {
		__u32 least = options & OPTION_KATRAN_IDS ? KATRAN_ID_BYTES : id_bytes + QUIC_LB_NONCE_BYTES;

		if (quic + QUIC_LONG_ID > end || payload < QUIC_LONG_ID + id_bytes)
			return 0;
		if ((LD8(quic) & QUIC_LONG_TYPE) <= QUIC_0RTT)
			return 0;
		if (LD8(quic + QUIC_LONG_ID - 1) < least)
			return 0;
		id = quic + QUIC_LONG_ID;
	}
	if (!(options & OPTION_KATRAN_IDS))
		return quic_lb_id(id, end);
	return id + KATRAN_ID_BYTES > end ? 0 : katran_id(id);
}

static __always_inline __u32 udp_server_id(void *payload, void *end, __u32 bytes)
{
	if (bytes < UDP_ID_BYTES || payload + UDP_ID_BYTES > end || LD8(payload) != UDP_ID_MARK)
		return 0;
	return bpf_ntohl(LD32(payload)) & 0xffffff;
}

/*
 * One option: where the next one starts, or 0 if there is none. id is set if it is the one that is
 * looked for. options ends where the header or the packet ends.
 */
static __always_inline __u32 tcp_option(void *tcp, void *end, __u32 at, __u32 options_end, __u32 *id)
{
	void *option = tcp + (at & 63);
	__u32 bytes;

	if (at >= options_end || option + 1 > end || LD8(option) == 0)
		return 0;
	if (LD8(option) == 1)
		return at + 1;
	if (at + 2 > options_end || option + 2 > end)
		return 0;
	bytes = LD8(option + 1);
	if (bytes < 2 || at + bytes > options_end)
		return 0;
	if (LD8(option) != TCP_ID_KIND)
		return at + bytes;
	if (bytes == TCP_ID_BYTES && option + TCP_ID_BYTES <= end)
		*id = LD32(option + 2); /* in the sender's order, which is taken to be little-endian */
	return 0;
}

/* segment bytes are in the packet from tcp on. A function of its own, so that the verifier walks the loop once. */
__attribute__((noinline)) __u32 tcp_server_id(struct xdp_md *ctx, __u32 tcp_at, __u32 segment)
{
	__u32 at = TCP_BYTES, id = 0, header;
	void *tcp, *end;

	if (!ctx)
		return 0; /* never: the verifier wants arguments to be checked */
	tcp = (void *)(long)ctx->data + (tcp_at & 0x7fff);
	end = (void *)(long)ctx->data_end;
	if (tcp + TCP_BYTES > end || LD8(tcp + TCP_FLAGS) & TCP_SYN)
		return 0;
	header = (LD8(tcp + TCP_FLAGS - 1) >> 4) * 4;
	if (header > segment)
		header = segment;
	for (int i = 0; i < TCP_OPTIONS_MAX && at; i++)
		at = tcp_option(tcp, end, at, header, &id);
	return id;
}
