// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Tables and counters on a card: ARRAY and HASH maps without flags and without BTF, elements of 64
 * bytes at most, no data sections. Words that are added to are read by the host only. The names are
 * those of target_native.h. Sizes are set before loading.
 */
#pragma once

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct card_slots));
} rings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, CARD_REAL_BYTES);
} reals SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u64));
	__uint(value_size, sizeof(__u64));
} vips4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct card_vip6_key));
	__uint(value_size, sizeof(__u64));
} vips6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct counter));
} real_counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CARD_PASS_LEN);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u64));
} pass_counters SEC(".maps");

/* The real that has the slot; 0 if it is not stable. Values are read at constant offsets only. */
static __always_inline __u32 slot_get(__u32 index)
{
	__u32 element = index / CARD_SLOTS;
	struct card_slots *slots = bpf_map_lookup_elem(&rings, &element);

	if (!slots)
		return 0; /* never: a VIP's ring lies within the map */
	switch (index % CARD_SLOTS) {
	case 0:
		return LD32(&slots->real[0]);
	case 1:
		return LD32(&slots->real[1]);
	case 2:
		return LD32(&slots->real[2]);
	case 3:
		return LD32(&slots->real[3]);
	case 4:
		return LD32(&slots->real[4]);
	case 5:
		return LD32(&slots->real[5]);
	case 6:
		return LD32(&slots->real[6]);
	default:
		return LD32(&slots->real[7]);
	}
}

/* Only the first CARD_REAL_BYTES are there. */
static __always_inline const struct real *real_get(__u32 id)
{
	return bpf_map_lookup_elem(&reals, &id);
}

/* The VIP's value; 0 if there is none. */
static __always_inline __u64 vip4_get(__u32 addr, __u32 port_proto)
{
	__u64 key = addr | (__u64)port_proto << 32;
	__u64 *value = bpf_map_lookup_elem(&vips4, &key);

	return value ? LD64(value) : 0;
}

static __always_inline __u64 vip6_get(const __u64 addr[2], __u32 port_proto)
{
	struct card_vip6_key key = { .addr = { addr[0], addr[1] }, .port_proto = port_proto };
	__u64 *value = bpf_map_lookup_elem(&vips6, &key);

	return value ? LD64(value) : 0;
}

static __always_inline void count_forwarded(__u32 id, __u32 bytes)
{
	struct counter *counter = bpf_map_lookup_elem(&real_counters, &id);

	if (!counter)
		return; /* never: there are as many counters as reals */
	__sync_fetch_and_add(&counter->pkts, 1);
	__sync_fetch_and_add(&counter->bytes, (__u64)bytes);
}

static __always_inline void count_pass(enum card_pass why)
{
	__u32 index = why;
	__u64 *counter = bpf_map_lookup_elem(&pass_counters, &index);

	if (counter)
		__sync_fetch_and_add(counter, 1);
}
