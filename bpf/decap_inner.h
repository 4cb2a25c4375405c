// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The inner header: as far as the tunnel is concerned with it, and the mark of congestion that the
 * outer header hands down. From here on the frame is ours: it is decapsulated or dropped.
 */
#pragma once

/* The inner version from its first four bits, which in GUE also tell variant 1 from others. */
static __always_inline enum decap_reason inner_version_check(struct frame *f)
{
	__u8 *first = f->inner;
	__u8 version;

	if (f->payload_bytes < 1 || (void *)(first + 1) > f->end)
		return DECAP_INNER_TRUNCATED;
	version = *first >> 4;
	if (f->gue) {
		f->inner_version = version;
		return version == 4 || version == 6 ? DECAP_DECAPSULATED : DECAP_INNER_VERSION;
	}
	return version == f->inner_version ? DECAP_DECAPSULATED : DECAP_INNER_VERSION;
}

static __always_inline enum decap_reason inner4_parse(struct frame *f)
{
	struct iphdr *ip = f->inner;
	__u32 hdr_bytes;

	if (f->payload_bytes < sizeof(*ip) || (void *)(ip + 1) > f->end)
		return DECAP_INNER_TRUNCATED;
	hdr_bytes = ip->ihl * 4;
	f->inner_bytes = bpf_ntohs(ip->tot_len);
	f->inner_ecn = ip->tos & ECN_MASK;
	if (hdr_bytes < sizeof(*ip) || f->inner_bytes < hdr_bytes)
		return DECAP_INNER_MALFORMED;
	return f->payload_bytes < hdr_bytes ? DECAP_INNER_TRUNCATED : DECAP_DECAPSULATED;
}

static __always_inline enum decap_reason inner6_parse(struct frame *f)
{
	struct ipv6hdr *ip = f->inner;

	if (f->payload_bytes < sizeof(*ip) || (void *)(ip + 1) > f->end)
		return DECAP_INNER_TRUNCATED;
	f->inner_bytes = sizeof(*ip) + bpf_ntohs(ip->payload_len);
	f->inner_ecn = ipv6_ecn(ip);
	return DECAP_DECAPSULATED;
}

/* Checks the inner header as far as the tunnel is concerned; the rest is for the stack. */
static __always_inline enum decap_reason inner_parse(struct frame *f)
{
	enum decap_reason reason;

	reason = inner_version_check(f);
	if (reason)
		return reason;
	reason = f->inner_version == 4 ? inner4_parse(f) : inner6_parse(f);
	if (reason)
		return reason;
	return f->inner_bytes > f->payload_bytes ? DECAP_INNER_LENGTH : DECAP_DECAPSULATED;
}

static __always_inline enum decap_reason vip_check(const struct frame *f)
{
	struct decap_addr dst;

	if (!setting_vips_checked)
		return DECAP_DECAPSULATED;
	dst_get(&dst, f->inner, f->inner_version == 6);
	return bpf_map_lookup_elem(&vip_addrs, &dst) ? DECAP_DECAPSULATED : DECAP_NOT_VIP;
}

/* Writes the codepoint into the inner header. Its bounds were checked by inner_parse(). */
static __always_inline void inner_ecn_set(struct frame *f, __u8 ecn)
{
	struct iphdr *ip = f->inner;
	__u16 *first = f->inner;
	__u8 *bytes = f->inner;
	__u16 before = *first;

	if (f->inner_version == 4) {
		bytes[1] = (bytes[1] & ~ECN_MASK) | ecn;
		ip->check = checksum_adjust(ip->check, before, *first);
		return;
	}
	bytes[1] = (bytes[1] & ~(ECN_MASK << ECN_IPV6_SHIFT)) | ecn << ECN_IPV6_SHIFT;
}

/* RFC 6040, section 4.2: a mark that the outer header got on the way is kept. */
static __always_inline enum decap_reason ecn_merge(struct frame *f)
{
	if (f->outer_ecn == ECN_CE) {
		if (f->inner_ecn == ECN_NOT_ECT)
			return DECAP_ECN;
		if (f->inner_ecn != ECN_CE)
			inner_ecn_set(f, ECN_CE);
	} else if (f->outer_ecn == ECN_ECT_1 && f->inner_ecn == ECN_ECT_0) {
		inner_ecn_set(f, ECN_ECT_1);
	}
	return DECAP_DECAPSULATED;
}
