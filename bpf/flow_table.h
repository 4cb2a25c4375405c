// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The table of remembered flows: find, replace, insert, refresh. All CPUs, and the control plane,
 * share it without locks. An entry is two words; whoever changes it first claims its tag word by
 * compare-and-swap, and a reader takes a value only if the tag stands before and after it.
 */
#pragma once

/* An entry as it was found; tag is NULL if it was not. */
struct flow_entry {
	__u64 *tag;
	__u64 *value_at;
	__u64 tag_word;
	__u64 value;
};

static __always_inline __u32 flow_tick(void)
{
	return (bpf_jiffies64() >> (flow_settings.tick_shift & 63)) & FLOW_TICK_MASK;
}

/* Ticks since an entry was met, and one more: a CPU may read the tick before another's last one. */
static __always_inline __u32 flow_age(__u64 value)
{
	return (flow_tick() + 1 - (__u32)(value >> FLOW_TICK_SHIFT)) & FLOW_TICK_MASK;
}

/* The two buckets that may hold a tag; they may be one. */
static __always_inline __u32 flow_first_bucket(__u64 tag)
{
	return (__u32)tag & flow_settings.bucket_mask;
}

static __always_inline __u32 flow_second_bucket(__u64 tag)
{
	return ((__u32)tag ^ (__u32)(tag >> 32) * 0x9e3779b1U) & flow_settings.bucket_mask;
}

/* The place of a tag in a bucket; FLOW_PER_BUCKET if it is not there. */
static __always_inline __u32 flow_search_in(__u32 index, __u64 tag)
{
	struct flow_bucket *bucket = flow_bucket_get(index);

	if (!bucket)
		return FLOW_PER_BUCKET; /* never: the mask is that of the table's size */
#pragma clang loop unroll(full)
	for (int i = 0; i < FLOW_PER_BUCKET; i++)
		if (LD64(&bucket->tag[i]) >> FLOW_TAG_SHIFT == tag)
			return i;
	return FLOW_PER_BUCKET;
}

#define FLOW_NOWHERE 0xffffffffu

/*
 * A tag's bucket and place in it, as one number. A function of its own, so that the verifier walks
 * what follows once, and not for each place.
 */
__attribute__((noinline)) __u32 flow_search(__u64 tag)
{
	__u32 index = flow_first_bucket(tag), place = flow_search_in(index, tag);

	if (place == FLOW_PER_BUCKET) {
		index = flow_second_bucket(tag);
		place = flow_search_in(index, tag);
	}
	return place == FLOW_PER_BUCKET ? FLOW_NOWHERE : index * FLOW_PER_BUCKET + place;
}

static __always_inline void flow_find(__u64 tag, struct flow_entry *e)
{
	__u32 at = flow_search(tag), place = at % FLOW_PER_BUCKET;
	struct flow_bucket *bucket;

	if (at == FLOW_NOWHERE)
		return;
	bucket = flow_bucket_get(at / FLOW_PER_BUCKET);
	if (!bucket)
		return; /* never: it was found there */
	e->tag_word = LD64(&bucket->tag[place]);
	e->value = LD64(&bucket->value[place]);
	/* All but FLOW_SEEN, which another packet of the flow may set this moment. */
	if (e->tag_word >> FLOW_TAG_SHIFT != tag ||
	    (LD64(&bucket->tag[place]) ^ e->tag_word) & ~(__u64)FLOW_SEEN)
		return; /* taken by another flow this moment */
	e->tag = &bucket->tag[place];
	e->value_at = &bucket->value[place];
}

/* Writes an entry that holds old, unless another CPU is at it, or was first. */
static __always_inline int flow_replace(__u64 *tag, __u64 *value_at, __u64 old, __u64 tag_word,
					__u64 value)
{
	if (old == FLOW_CLAIMED || __sync_val_compare_and_swap(tag, old, FLOW_CLAIMED) != old) {
		count_flow(FLOW_REFUSED_BUSY);
		return 0;
	}
	ST64(value_at, value);
	/* Not a plain store: the value must be seen first, on every architecture. */
	__sync_lock_test_and_set(tag, tag_word);
	return 1;
}

static __always_inline void flow_forget(const struct flow_entry *e)
{
	__sync_val_compare_and_swap(e->tag, e->tag_word, 0);
}

/* The flow was met again: now, and, unless by a packet that may begin it, as one that goes on. */
static __always_inline void flow_refresh(const struct flow_entry *e, __u32 index, int seen)
{
	__u64 value = (e->value & FLOW_REAL_MASK) | (__u64)index << FLOW_SLOT_SHIFT |
		      (__u64)flow_tick() << FLOW_TICK_SHIFT;

	if (value != e->value)
		__sync_val_compare_and_swap(e->value_at, e->value, value);
	if (seen && !(e->tag_word & FLOW_SEEN))
		__sync_val_compare_and_swap(e->tag, e->tag_word, e->tag_word | FLOW_SEEN);
}

/* How welcome it is to take an entry's place: 0 not at all; the longer ago it was seen the more. */
#define FLOW_PLACE_FREE (1u << 24)
#define FLOW_PLACE_UNSEEN (1u << 22)

static __always_inline __u32 flow_place_worth(__u64 tag_word, __u64 value, int always)
{
	if (!tag_word)
		return FLOW_PLACE_FREE;
	if (tag_word == FLOW_CLAIMED)
		return 0;
	if (!(tag_word & FLOW_SEEN))
		return FLOW_PLACE_UNSEEN + flow_age(value);
	return always ? flow_age(value) : 0;
}

/* The best place of a bucket: its worth times 4, and its number. The first of equals. */
__attribute__((noinline)) __u32 flow_place(__u32 index, int always)
{
	struct flow_bucket *bucket = flow_bucket_get(index);
	__u32 best = 0;

	if (!bucket)
		return 0; /* never: the mask is that of the table's size */
#pragma clang loop unroll(full)
	for (int i = 0; i < FLOW_PER_BUCKET; i++) {
		__u32 worth = flow_place_worth(LD64(&bucket->tag[i]), LD64(&bucket->value[i]), always);

		if (worth > best >> 2)
			best = worth << 2 | i;
	}
	return best;
}

/* This CPU's guard, as it is in this tick. */
static __always_inline struct flow_guard *flow_guard_now(void)
{
	struct flow_guard *guard = flow_guard_get();
	__u32 tick = flow_tick();

	if (guard && guard->tick != tick) {
		guard->tick = tick;
		guard->inserts = 0;
	}
	return guard;
}

/*
 * Finds a place for a flow that has no entry. The guard is asked first, since a look for a place
 * costs more, but counts only what was remembered.
 */
static __always_inline int flow_insert(__u64 tag, __u64 tag_word, __u64 value, int always)
{
	__u32 index = flow_first_bucket(tag), other = flow_second_bucket(tag), place, second;
	struct flow_guard *guard = flow_guard_now();
	struct flow_bucket *bucket;
	__u64 old;

	if (!guard)
		return 0; /* never: the index is constant */
	if (guard->inserts >= flow_settings.insert_limit) {
		count_flow(FLOW_REFUSED_RATE);
		return 0;
	}
	place = flow_place(index, always);
	if (place < FLOW_PLACE_FREE << 2) {
		second = flow_place(other, always);
		if (second >> 2 > place >> 2) {
			place = second;
			index = other;
		}
	}
	bucket = flow_bucket_get(index);
	if (!(place >> 2) || !bucket) {
		count_flow(FLOW_REFUSED_FULL);
		return 0;
	}
	place %= FLOW_PER_BUCKET;
	old = LD64(&bucket->tag[place]);
	if (old & FLOW_SEEN && !always) {
		count_flow(FLOW_REFUSED_BUSY);
		return 0;
	}
	if (!flow_replace(&bucket->tag[place], &bucket->value[place], old, tag_word, value))
		return 0;
	guard->inserts++;
	if (old)
		count_flow(FLOW_EVICTED);
	return 1;
}
