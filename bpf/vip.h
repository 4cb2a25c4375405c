// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * VIP lookup: exact port first, then port 0, which stands for all ports without a VIP of their
 * own. Leaves the VIP's value, and the ports as they are to be hashed.
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

/* 0 if there is none. */
static __always_inline __u64 vip_lookup(const struct packet *p, __u32 *hashed_ports)
{
	__u64 vip = vip_get(p, vip_port_proto(p->ports, p->protocol));

	*hashed_ports = p->ports;
	if (likely(vip))
		return vip;
	if (likely(!vip_any_port(p->is_v6)))
		return 0;
	*hashed_ports &= 0xffff;
	return vip_get(p, vip_port_proto(0, p->protocol));
}

/* Whether a VIP of any port and protocol has the packet's destination address. */
static __always_inline int vip_has_address(const struct packet *p)
{
	return vip_addr_known(p->dst);
}
