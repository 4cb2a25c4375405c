// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * VIP lookup: the address with the port, then, where some VIP of the family is a prefix or has port 0,
 * the longest prefix with the port, the address with port 0, the longest prefix with port 0. Leaves
 * the VIP's value, and the ports as they are to be hashed.
 */
#pragma once

/* Port and protocol as they stand in a VIP's key, from the ports as they stand in the packet. */
static __always_inline __u32 vip_port_proto(__u32 ports, __u8 protocol)
{
	return ports >> 16 | (__u32)protocol << 16;
}

static __always_inline __u64 vip_get(const struct packet *p, __u32 port_proto)
{
	return p->is_v6 ? vip6_get(p->dst, port_proto) : vip4_get(p->dst[0], port_proto);
}

/* The longest prefix; 0 if there is none. */
static __always_inline __u64 vip_get_prefix(const struct packet *p, __be16 port, __u8 protocol)
{
	struct vip_prefix key = {
		.bits = 32 + (p->is_v6 ? 128 : 32),
		.port = port,
		.protocol = protocol,
		.family = p->is_v6 ? 6 : 4,
		.addr = { p->dst[0], p->dst[1] },
	};

	return vip_prefix_get(&key);
}

static __always_inline __u64 vip_by_port_0(__u64 vip)
{
	return vip ? vip | (__u64)VIP_BY_PORT_0 << VIP_FLAGS_SHIFT : 0;
}

/*
 * What the packet is found by beside its address with its port. A function that few packets meet, of
 * words rather than the packet, which may be in registers.
 */
__attribute__((noinline)) __u64 vip_lookup_prefixes(__u64 dst0, __u64 dst1, __u32 ports, __u32 protocol,
						    __u32 is_v6)
{
	struct packet p = { .dst = { dst0, dst1 }, .is_v6 = !!is_v6 };
	__u64 vip = vip_get_prefix(&p, ports >> 16, protocol);

	if (vip)
		return vip;
	vip = vip_get(&p, vip_port_proto(0, protocol));
	if (!vip)
		vip = vip_get_prefix(&p, 0, protocol);
	return vip_by_port_0(vip);
}

/* 0 if there is none. */
static __always_inline __u64 vip_lookup(const struct packet *p, __u32 *hashed_ports)
{
	__u64 vip = vip_get(p, vip_port_proto(p->ports, p->protocol));

	*hashed_ports = p->ports;
	if (likely(vip))
		return vip;
	if (likely(!vip_again(p->is_v6)))
		return 0;
	*hashed_ports &= 0xffff;
	if (feature(FEATURE_PREFIXES))
		return vip_lookup_prefixes(p->dst[0], p->dst[1], p->ports, p->protocol, p->is_v6);
	return vip_by_port_0(vip_get(p, vip_port_proto(0, p->protocol)));
}

/* Whether a VIP of any port and protocol has the packet's destination address. */
static __always_inline int vip_has_address(const struct packet *p)
{
	if (vip_addr_known(p->dst, p->is_v6))
		return 1;
	return feature(FEATURE_PREFIXES) && vip_get_prefix(p, 0, 0);
}

/* The VIP that decides on a fragment: docs/packet-path.md section 3.1. */
static __always_inline __u64 vip_of_fragment(const struct packet *p)
{
	/* Of other protocols, one could be another's number with the mark. */
	if (!is_tcp_or_udp(p->protocol))
		return 0;
	return vip_get(p, vip_port_proto(0, p->protocol | VIP_FRAGMENT_PROTOCOL));
}
