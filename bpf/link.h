// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The link header, MAC addresses and VLAN tags, kept while the frame's start moves. The EtherType behind
 * the last tag is not kept: who moves the frame knows what follows.
 */
#pragma once

#define LINK_BYTES_MAX (ETH_BYTES + VLAN_TAGS_MAX * VLAN_TAG_BYTES)

struct link_header {
	__u64 macs;	 /* bytes 0 to 7: destination, and what begins the source */
	__u32 macs_rest; /* bytes 8 to 11 */
	__u64 tags;	 /* bytes 12 to 19 */
};

/* For all of these, LINK_BYTES_MAX bytes are there from data on. */

static __always_inline void link_read(void *data, struct link_header *link)
{
	link->macs = LD64(data);
	link->macs_rest = LD32(data + 8);
	link->tags = LD64(data + 12);
}

/* What the IP header begins at l3 of the new frame. */
static __always_inline void link_write(void *data, __u32 l3, const struct link_header *link)
{
	ST64(data, link->macs);
	ST32(data + 8, link->macs_rest);
	if (l3 > ETH_BYTES)
		ST32(data + 12, link->tags);
	if (l3 > ETH_BYTES + VLAN_TAG_BYTES)
		ST32(data + 16, link->tags >> 32);
}

static __always_inline void link_write_type(void *data, __u32 l3, int is_v6)
{
	__be16 type = is_v6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);

	/* At constant offsets, of which the verifier knows that they are there. */
	if (l3 == ETH_BYTES)
		ST16(data + 12, type);
	else if (l3 == ETH_BYTES + VLAN_TAG_BYTES)
		ST16(data + 16, type);
	else
		ST16(data + 20, type);
}

static __always_inline void link_swap_macs(struct link_header *link)
{
	__u64 dst = link->macs;

	link->macs = (dst >> 48 | (__u64)link->macs_rest << 16) | dst << 48;
	link->macs_rest = dst >> 16;
}
