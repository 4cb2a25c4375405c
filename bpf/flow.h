// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Flow: the real of a packet whose slot is not stable, or whose VIP has all flows remembered:
 * docs/packet-path.md section 5. Nothing of this is met by a packet of a stable slot. Needs the
 * parsed packet and the frame, and leaves the real's id.
 */
#pragma once

#define TCP_FLAGS 13 /* offset in the header, RFC 9293 section 3.1 */
#define TCP_SYN 2
#define TCP_RST 4
/* First byte of a QUIC packet, RFC 9000 section 17.2: long header, Initial (0) or 0-RTT (1). */
#define QUIC_LONG_MASK 0xa0
#define QUIC_BEGINS 0x80

/* What of the packet decides beside its flow. */
struct flow_packet {
	__u64 tag;
	__u32 slot;   /* within the ring */
	__u32 cur;
	__u32 prev;   /* where unknown flows go: cur, but on a moving slot */
	__u8 begins;  /* it begins a flow */
	__u8 silent;  /* nothing may be remembered of it: an ICMP error, or RST */
	__u8 error;
	__u8 state;   /* enum slot_state; never stable */
	__u8 always;  /* VIP_FLOWS_ALWAYS */
	__u8 fresh;   /* of a slot that is stable but for that */
	__u8 is_udp;
};

#define FLOW_SEED 0x243f6a8885a308d3ULL /* digits of pi; the same on all balancers */
#define FLOW_MIX 0x9e3779b97f4a7c15ULL  /* odd; 2^64 over the golden ratio */

static __always_inline __u64 flow_mix(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * FLOW_MIX;
	return hash ^ hash >> 32;
}

/* What a VIP was found by: VIP_HOST_BITS and VIP_BY_PORT_0. */
#define FLOW_FOUND_BY_MASK 0xff

/*
 * Names the flow. Never 0, so that no flow is found in a free entry. What the VIP was found by keeps
 * flows of one VIP apart from those of one that is more or less exact, whose reals are others.
 */
static __always_inline __u64 flow_tag(const struct packet *p, __u32 vip_flags)
{
	__u64 found_by = vip_flags >> VIP_HOST_BITS_SHIFT & FLOW_FOUND_BY_MASK;
	__u64 hash = flow_mix(FLOW_SEED, p->src | (__u64)p->fold << 32);

	hash = flow_mix(hash, p->dst[0]);
	hash = flow_mix(hash, p->dst[1]);
	hash = flow_mix(hash, p->ports | (__u64)p->protocol << 32 | found_by << 40);
	hash = flow_mix(hash, 0) >> FLOW_TAG_SHIFT;
	return hash ? hash : 1;
}

static __always_inline int flow_has_record(const struct real *real)
{
	return real && real->kind != ENCAP_NONE;
}

static __always_inline int flow_receives(const struct real *real)
{
	return flow_has_record(real) && real->use != REAL_RETIRED;
}

static __always_inline int flow_takes_new(const struct real *real)
{
	return flow_has_record(real) && real->use == REAL_ACTIVE;
}

/* Whether the packet begins a flow or ends one without being remembered. */
static __always_inline void flow_look(struct xdp_md *ctx, const struct packet *p, __u32 vip_flags,
				      struct flow_packet *f)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	void *l4 = data + (p->l3 & 31) + (p->l4 & 0x3fff);

	f->is_udp = p->protocol == IPPROTO_UDP;
	if (p->icmp_error) {
		f->silent = f->error = 1;
		return;
	}
	if (p->by_client)
		return;
	if (f->is_udp) {
		/* The trailer behind an empty payload is no QUIC. */
		if (vip_flags & VIP_QUIC && p->bytes > p->l4 + UDP_BYTES && l4 + UDP_BYTES + 1 <= end)
			f->begins = (LD8(l4 + UDP_BYTES) & QUIC_LONG_MASK) == QUIC_BEGINS;
		return;
	}
	/* Follows from what was parsed; the verifier does not see that. */
	if (l4 + TCP_BYTES > end)
		return;
	f->begins = !!(LD8(l4 + TCP_FLAGS) & TCP_SYN);
	f->silent = !f->begins && LD8(l4 + TCP_FLAGS) & TCP_RST;
}

/* The entry as the packet may use it: its real, or 0 if the flow is as good as unknown. */
static __always_inline __u32 flow_known(const struct flow_packet *f, struct flow_entry *e)
{
	const struct real *real;
	__u32 id;

	if (!e->tag)
		return 0;
	id = e->value & FLOW_REAL_MASK;
	real = real_get(id);
	if (!flow_receives(real) ||
	    (e->tag_word >> FLOW_GENERATION_SHIFT & FLOW_GENERATION_MASK) != real->generation) {
		count_flow(FLOW_HIT_STALE);
		return 0;
	}
	if (f->always && f->is_udp && flow_age(e->value) > flow_settings.udp_idle_ticks + 1)
		return 0;
	return id;
}

/* The words of an entry that names a real. */
static __always_inline __u64 flow_tag_word(const struct flow_packet *f, const struct real *real)
{
	return f->tag << FLOW_TAG_SHIFT | (__u64)real->generation << FLOW_GENERATION_SHIFT;
}

static __always_inline __u64 flow_value(const struct flow_packet *f, __u32 id)
{
	return id | (__u64)f->slot << FLOW_SLOT_SHIFT | (__u64)flow_tick() << FLOW_TICK_SHIFT;
}

/* Returns 0 if it was not possible. */
static __always_inline int flow_remember(const struct flow_packet *f, const struct flow_entry *e,
					 __u32 id, const struct real *real)
{
	/* Not FLOW_SEEN, or a flood of any one packet would keep its places. */
	__u64 tag_word = flow_tag_word(f, real), value = flow_value(f, id);

	if (e->tag)
		return flow_replace(e->tag, e->value_at, e->tag_word, tag_word, value);
	return flow_insert(f->tag, tag_word, value, f->always);
}

static __always_inline enum flow_event flow_taken(const struct flow_packet *f)
{
	if (f->begins || f->fresh)
		return FLOW_BEGAN;
	return f->state == SLOT_MOVING ? FLOW_TAKEN_OLD : FLOW_TAKEN_NEW;
}

/* The flow is not known, or begins anew. */
static __always_inline __u32 flow_choose(const struct flow_packet *f, const struct flow_entry *e)
{
	__u32 id = f->begins ? f->cur : f->prev;
	const struct real *real;

	if (f->silent)
		return id;
	if (f->state == SLOT_LINGERING) {
		if (e->tag)
			flow_forget(e);
		if (!f->begins)
			count_flow(FLOW_TAKEN_NEW);
		return id;
	}
	real = real_get(id);
	if (!flow_has_record(real))
		return id;
	if (flow_remember(f, e, id, real)) {
		count_flow(flow_taken(f));
		return id;
	}
	/* Its next packets will be unknown, so it begins where those go. */
	if (f->begins && flow_takes_new(real_get(f->prev)))
		return f->prev;
	return id;
}

/* The slot's state as it counts here, and its reals. */
static __always_inline void flow_slot(__u64 slot, struct flow_packet *f)
{
	f->cur = f->prev = (__u32)slot;
	f->state = slot >> SLOT_STATE_SHIFT;
	f->fresh = f->state == SLOT_STABLE;
	if (f->fresh)
		f->state = SLOT_SETTLING;
	if (f->state != SLOT_MOVING)
		return;
	f->prev = slot >> SLOT_PREV_SHIFT & SLOT_PREV_MASK;
	if (!flow_receives(real_get(f->prev))) {
		f->prev = f->cur;
		f->state = SLOT_SETTLING;
	}
}

/* VIP flags above the 20 bits of a slot's index: a function has no more than five arguments. */
#define FLOW_FLAGS_SHIFT 20

/* The entry of a flow that its server id led to a real names that real from now on. */
static __always_inline void flow_repair(const struct flow_packet *f, const struct flow_entry *e,
					__u32 id, const struct real *real)
{
	__u64 tag_word = flow_tag_word(f, real), at_id = e->value & FLOW_REAL_MASK;

	if (at_id == id && !((e->tag_word ^ tag_word) & ~(__u64)FLOW_SEEN)) {
		flow_refresh(e, f->slot, 1);
		return;
	}
	if (flow_replace(e->tag, e->value_at, e->tag_word, tag_word | FLOW_SEEN, flow_value(f, id)))
		count_flow(FLOW_REPAIRED);
}

/*
 * The table follows a packet that its server id led to a real: docs/packet-path.md section 3.2. A TCP
 * flow without an entry gets one. A function of its own, for the stack that it takes; returns 0.
 */
__attribute__((noinline)) int flow_follow_id(struct xdp_md *ctx, const struct packet *p, __u64 slot,
					     __u32 index_and_flags, __u32 id)
{
	__u32 vip_flags = index_and_flags >> FLOW_FLAGS_SHIFT;
	const struct real *real = real_get(id);
	struct flow_packet f = {};
	struct flow_entry e = {};

	if (!ctx || !p || !real)
		return 0; /* never: the verifier wants arguments to be checked */
	f.tag = flow_tag(p, vip_flags);
	f.slot = index_and_flags & FLOW_SLOT_MASK;
	f.always = !!(vip_flags & VIP_FLOWS_ALWAYS);
	flow_slot(slot, &f);
	flow_look(ctx, p, vip_flags, &f);
	flow_find(f.tag, &e);
	if (e.tag)
		flow_repair(&f, &e, id, real);
	else if (!f.is_udp && !f.silent && f.state != SLOT_LINGERING && flow_remember(&f, &e, id, real))
		count_flow(flow_taken(&f));
	return 0;
}

/*
 * A function of its own, so that the verifier walks it once, and its registers and its code are not
 * the stable path's.
 */
__attribute__((noinline)) __u32 flow_select(struct xdp_md *ctx, const struct packet *p, __u64 slot,
					    __u32 index, __u32 vip_flags)
{
	struct flow_packet f = {};
	struct flow_entry e = {};
	__u32 id;

	if (!ctx || !p)
		return 0; /* never: the verifier wants arguments to be checked */
	f.tag = flow_tag(p, vip_flags);
	f.slot = index;
	f.always = !!(vip_flags & VIP_FLOWS_ALWAYS);
	flow_slot(slot, &f);
	flow_look(ctx, p, vip_flags, &f);
	flow_find(f.tag, &e);
	/* SYN starts anew; a QUIC packet that may begin a flow may also belong to one. */
	if (!f.begins || f.is_udp) {
		id = flow_known(&f, &e);
		if (id) {
			count_flow(FLOW_HIT);
			if (!f.error)
				flow_refresh(&e, index, !f.begins);
			return id;
		}
	}
	return flow_choose(&f, &e);
}
