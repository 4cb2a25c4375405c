// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Tables and counters on the host: arrays that the control plane maps into its memory, counters
 * per CPU. A card has the same names in a header of its own. Sizes are set before loading.
 */
#pragma once

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} rings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct real);
} reals SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct vip4_bucket);
} vips4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct vip6_bucket);
} vips6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counter);
} real_counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, REASON_LEN);
	__type(key, __u32); /* enum reason */
	__type(value, __u64);
} reason_counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow_bucket);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, FLOW_EVENT_LEN);
	__type(key, __u32); /* enum flow_event */
	__type(value, __u64);
} flow_counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow_guard);
} flow_guards SEC(".maps");

volatile struct flow_settings flow_settings SEC(".data.flow_settings") = {};

/* The addresses that have a VIP of any port and protocol. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct vip_addr);
	__type(value, __u32);
} vip_addrs SEC(".maps");

/* Where the buckets are, types.h: one word for each family. */
volatile __u64 vip_seeds[2] SEC(".data.vip_seeds") = { 1, 1 };

/* VIPs of a prefix; those of port and protocol 0 tell which addresses have a VIP. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct vip_prefix);
	__type(value, __u64);
} vip_prefixes SEC(".maps");

/* Where server ids, and the backends of source routes, lead. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct target);
	__type(value, __u32);
} targets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct source_prefix);
	__type(value, struct vip_addr);
} source_routes SEC(".maps");

/* Outer destinations whose packets are decapsulated. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct vip_addr);
	__type(value, __u32); /* enum decap_action */
} decap_dsts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32); /* inner family: 0 IPv4, 1 IPv6 */
	__type(value, __u64);
} decap_counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct answer_guard);
} answer_guards SEC(".maps");

volatile struct answer_settings answer_settings SEC(".data.answer_settings") = {};

const volatile struct load_settings load_settings SEC(".rodata.load_settings") = {};

/* Descriptions of the entries above, written and read by the control plane only. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct vip_info);
} vip_infos SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct real_info);
} real_infos SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct instance_info);
} instance SEC(".maps");

static __always_inline int feature(enum feature which)
{
	return !!(load_settings.features & which);
}

static __always_inline __u64 slot_get(__u32 index)
{
	__u64 *slot = bpf_map_lookup_elem(&rings, &index);

	/* Never NULL: a VIP's ring lies within the map. */
	return slot ? *(volatile __u64 *)slot : 0;
}

static __always_inline const struct real *real_get(__u32 id)
{
	return bpf_map_lookup_elem(&reals, &id);
}

/* Whether a VIP may be found by more than address and port. */
static __always_inline int vip_again(__u8 is_v6)
{
	return vip_seeds[is_v6 ? 1 : 0] >> VIP_AGAIN_SHIFT & 1;
}

static __always_inline __u32 bucket_index(__u64 mixed, __u64 seed)
{
	__u32 bucket = mixed >> (seed >> VIP_SHIFT_SHIFT & VIP_SHIFT_MASK);

	return bucket * 2 + (seed >> VIP_HALF_SHIFT & 1);
}

/* The VIP's value; 0 if there is none. */
static __always_inline __u64 vip4_get(__u32 addr, __u32 port_proto)
{
	__u64 key = addr | (__u64)port_proto << 32, seed = vip_seeds[0];
	__u32 index = bucket_index(key * seed, seed);
	struct vip4_bucket *bucket = bpf_map_lookup_elem(&vips4, &index);

	if (!bucket)
		return 0; /* never: the table has as many buckets as the seed's shift leaves */
#pragma clang loop unroll(full)
	for (int i = 0; i < 4; i++)
		if (bucket->key[i] == key)
			return *(volatile __u64 *)&bucket->value[i];
	return 0;
}

static __always_inline __u64 vip6_get(const __u64 addr[2], __u32 port_proto)
{
	__u64 seed = vip_seeds[1], mixed = (addr[0] + port_proto) * seed;
	struct vip6_bucket *bucket;
	__u32 index;

	mixed ^= mixed >> 32 ^ addr[1];
	mixed = (mixed ^ mixed >> 32) * seed; /* the upper half alone would not spread */
	index = bucket_index(mixed, seed);
	bucket = bpf_map_lookup_elem(&vips6, &index);
	if (!bucket)
		return 0; /* never: as in vip4_get */
#pragma clang loop unroll(full)
	for (int i = 0; i < 2; i++) {
		struct vip6_entry *entry = &bucket->entry[i];

		if (entry->addr[1] == addr[1] && entry->addr[0] == addr[0] &&
		    entry->port_proto == port_proto)
			return *(volatile __u64 *)&entry->value;
	}
	return 0;
}

static __always_inline struct vip_addr vip_addr_of(const __u64 addr[2], int is_v6)
{
	struct vip_addr key = { .addr = { addr[0] | (is_v6 ? 0 : IP4_REST), is_v6 ? addr[1] : ~0ULL } };

	return key;
}

/* IPv4: the address in the low half of addr[0], the rest 0. */
static __always_inline int vip_addr_known(const __u64 addr[2], int is_v6)
{
	struct vip_addr key = vip_addr_of(addr, is_v6);

	return bpf_map_lookup_elem(&vip_addrs, &key) != 0;
}

/* 0 if no prefix has the address. */
static __always_inline __u64 vip_prefix_get(const struct vip_prefix *key)
{
	__u64 *vip = bpf_map_lookup_elem(&vip_prefixes, key);

	return vip ? *(volatile __u64 *)vip : 0;
}

/* The real's id; 0 if there is none. */
static __always_inline __u32 target_get(const struct target *key)
{
	__u32 *id = bpf_map_lookup_elem(&targets, key);

	return id ? *(volatile __u32 *)id : 0;
}

/* The backend of the longest prefix; NULL if no prefix has the client. */
static __always_inline const struct vip_addr *source_route_get(const struct source_prefix *client)
{
	return bpf_map_lookup_elem(&source_routes, client);
}

static __always_inline enum decap_action decap_dst_get(const __u64 addr[2], int is_v6)
{
	struct vip_addr key = vip_addr_of(addr, is_v6);
	__u32 *action = bpf_map_lookup_elem(&decap_dsts, &key);

	return action ? *action : load_settings.decap_others;
}

static __always_inline void count_forwarded(__u32 id, __u32 bytes)
{
	struct counter *counter = bpf_map_lookup_elem(&real_counters, &id);

	if (!counter)
		return; /* never: there are as many counters as reals */
	counter->pkts++;
	counter->bytes += bytes;
}

static __always_inline struct flow_bucket *flow_bucket_get(__u32 index)
{
	return bpf_map_lookup_elem(&flows, &index);
}

static __always_inline struct flow_guard *flow_guard_get(void)
{
	__u32 index = 0;

	return bpf_map_lookup_elem(&flow_guards, &index);
}

static __always_inline struct answer_guard *answer_guard_get(void)
{
	__u32 index = 0;

	return bpf_map_lookup_elem(&answer_guards, &index);
}

static __always_inline void count_flow(enum flow_event what)
{
	__u32 index = what;
	__u64 *counter = bpf_map_lookup_elem(&flow_counters, &index);

	if (counter)
		(*counter)++;
}

static __always_inline void count_decapsulated(int is_v6)
{
	__u32 index = !!is_v6;
	__u64 *counter = bpf_map_lookup_elem(&decap_counters, &index);

	if (counter)
		(*counter)++;
}

static __always_inline void count_reason(enum reason why)
{
	__u32 index = why;
	__u64 *counter = bpf_map_lookup_elem(&reason_counters, &index);

	if (counter)
		(*counter)++;
}
