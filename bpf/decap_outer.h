// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The outer headers: from the Ethernet header to what is known to be a tunnel for us. Until the last
 * of these steps the frame may be anybody's, so it passes untouched when one of them ends it.
 */
#pragma once

/* Finds the outer IP header, behind at most two VLAN tags. */
static __always_inline enum decap_reason ethernet_parse(struct frame *f)
{
	struct ethhdr *eth = f->data;
	struct vlan_tag *tag = (void *)(eth + 1);

	if ((void *)(eth + 1) > f->end)
		return DECAP_OUTER_TRUNCATED;
	f->ethertype = eth->h_proto;
	/* From here on a "tag" is the control word and the EtherType behind it. */
	if (is_vlan(f->ethertype)) {
		if ((void *)(tag + 1) > f->end)
			return DECAP_OUTER_TRUNCATED;
		f->ethertype = tag->control;
		f->tags_len++;
		tag++;
	}
	if (f->tags_len && is_vlan(f->ethertype)) {
		if ((void *)(tag + 1) > f->end)
			return DECAP_OUTER_TRUNCATED;
		f->ethertype = tag->control;
		f->tags_len++;
		tag++;
	}
	f->outer = tag;
	return DECAP_DECAPSULATED;
}

static __always_inline enum decap_reason outer4_parse(struct frame *f)
{
	struct iphdr *ip = f->outer;

	if ((void *)(ip + 1) > f->end)
		return DECAP_OUTER_TRUNCATED;
	if (ip->version != 4 || ip->ihl < 5)
		return DECAP_OUTER_MALFORMED;
	f->outer_hdr_bytes = ip->ihl * 4;
	f->outer_bytes = bpf_ntohs(ip->tot_len);
	f->outer_ecn = ip->tos & ECN_MASK;
	f->next = ip->protocol;
	f->fragment = (ip->frag_off & bpf_htons(IPV4_FRAGMENT_MASK)) != 0;
	return DECAP_DECAPSULATED;
}

static __always_inline enum decap_reason outer6_parse(struct frame *f)
{
	struct ipv6hdr *ip = f->outer;

	if ((void *)(ip + 1) > f->end)
		return DECAP_OUTER_TRUNCATED;
	if (ip->version != 6)
		return DECAP_OUTER_MALFORMED;
	f->outer_hdr_bytes = sizeof(*ip);
	f->outer_bytes = sizeof(*ip) + bpf_ntohs(ip->payload_len);
	f->outer_ecn = ipv6_ecn(ip);
	f->next = ip->nexthdr;
	return DECAP_DECAPSULATED;
}

/* Reads what the outer IP header says. Its lengths are judged by outer_lengths_check(). */
static __always_inline enum decap_reason outer_parse(struct frame *f)
{
	if (f->ethertype == bpf_htons(ETH_P_IP))
		return outer4_parse(f);
	if (f->ethertype == bpf_htons(ETH_P_IPV6))
		return outer6_parse(f);
	return DECAP_NOT_IP;
}

/* Tells tunnels by the protocol. A fragment is not opened: reassembly is the stack's. */
static __always_inline enum decap_reason protocol_check(struct frame *f)
{
	int outer6 = f->ethertype == bpf_htons(ETH_P_IPV6);

	if (f->next == IPPROTO_IPIP)
		f->inner_version = 4;
	else if (f->next == IPPROTO_IPV6)
		f->inner_version = 6;
	else if (f->next == IPPROTO_UDP)
		f->gue = 1;
	else if (outer6 && f->next == IPPROTO_FRAGMENT)
		return DECAP_OUTER_FRAGMENT;
	else if (outer6 && (f->next == IPPROTO_HOPOPTS || f->next == IPPROTO_ROUTING ||
			    f->next == IPPROTO_DSTOPTS || f->next == IPPROTO_AH))
		return DECAP_OUTER_EXTENSION;
	else
		return DECAP_OTHER_PROTOCOL;
	return f->fragment ? DECAP_OUTER_FRAGMENT : DECAP_DECAPSULATED;
}

/* Steps over the outer headers: sets removed_bytes and inner. UDP is a tunnel by its port. */
static __always_inline enum decap_reason gue_check(struct frame *f)
{
	struct udphdr *udp = f->outer + f->outer_hdr_bytes;

	f->removed_bytes = f->outer_hdr_bytes;
	f->inner = udp;
	if (!f->gue)
		return DECAP_DECAPSULATED;
	if ((void *)(udp + 1) > f->end)
		return DECAP_OUTER_TRUNCATED;
	if (udp->dest != bpf_htons(setting_gue_port))
		return DECAP_OTHER_PORT;
	f->payload_bytes = bpf_ntohs(udp->len);
	f->removed_bytes += sizeof(*udp);
	f->inner = udp + 1;
	return DECAP_DECAPSULATED;
}

static __always_inline enum decap_reason outer_addr_check(const struct frame *f)
{
	struct decap_addr dst;

	dst_get(&dst, f->outer, f->ethertype == bpf_htons(ETH_P_IPV6));
	return bpf_map_lookup_elem(&tunnel_addrs, &dst) ? DECAP_DECAPSULATED : DECAP_OTHER_ADDRESS;
}

/*
 * The outer lengths must fit the frame and each other: sets payload_bytes. From this step on the
 * frame is a tunnelled one for us, and an error drops it.
 */
static __always_inline enum decap_reason outer_lengths_check(struct frame *f)
{
	__u32 udp_bytes = f->payload_bytes;

	if (f->outer_bytes < f->removed_bytes || f->outer + f->outer_bytes > f->end)
		return DECAP_OUTER_LENGTH;
	f->payload_bytes = f->outer_bytes - f->removed_bytes;
	if (!f->gue)
		return DECAP_DECAPSULATED;
	/* A zero length is for jumbograms only (RFC 2675), which no outer header here can be. */
	if (udp_bytes < sizeof(struct udphdr) ||
	    udp_bytes - sizeof(struct udphdr) > f->payload_bytes)
		return DECAP_OUTER_LENGTH;
	f->payload_bytes = udp_bytes - sizeof(struct udphdr);
	return DECAP_DECAPSULATED;
}
