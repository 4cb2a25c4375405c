// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * One question a program: what does a card take? Each is judged alone, with the maps that it uses. The
 * name is the answer, then the rule that it is about (rule.go), then the question:
 *
 *	accept_		the check and the card's driver take it
 *	warn_RULE_	both take it, and the check warns
 *	refuse_RULE_	both refuse it
 *	differ_RULE_	the check refuses it; the driver of some kernels does not
 *	strict_RULE_	the check refuses what the driver takes: it cannot follow loops as the verifier does, and
 *			does not take programs that lose packets
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_helpers.h>

#define CASE(name) SEC("xdp") int name(struct xdp_md *c)
#define VALUE(map) ({ __u32 key = 1; (__u64 *)bpf_map_lookup_elem(&(map), &key); })
#define MAP_FLAGS(name, kind, key, value, entries, flags) struct {	\
		__uint(type, BPF_MAP_TYPE_##kind);			\
		__uint(key_size, key);					\
		__uint(value_size, value);				\
		__uint(max_entries, entries);				\
		__uint(map_flags, flags);				\
	} name SEC(".maps")
#define MAP(name, kind, key, value, entries) MAP_FLAGS(name, kind, key, value, entries, 0)

MAP(arr, ARRAY, 4, 16, 16);
MAP(arr2, ARRAY, 4, 16, 16);
MAP(hash, HASH, 16, 16, 1024);
MAP(element_64, HASH, 40, 24, 16);
MAP(element_72, HASH, 40, 32, 16);
MAP(element_64_rounded, HASH, 6, 56, 16);
MAP(element_72_rounded, HASH, 9, 50, 16);
MAP(array_value_56, ARRAY, 4, 56, 16);
MAP(array_value_64, ARRAY, 4, 64, 16);
MAP(big, ARRAY, 4, 4, 3100000);
MAP(million, HASH, 16, 16, 1000000);
MAP(half1, ARRAY, 4, 8, 1600000);
MAP(half2, ARRAY, 4, 8, 1600000);
MAP(percpu, PERCPU_ARRAY, 4, 16, 16);
MAP(percpu_hash, PERCPU_HASH, 4, 16, 16);
MAP(lru, LRU_HASH, 16, 16, 1024);
MAP_FLAGS(lpm, LPM_TRIE, 8, 8, 16, BPF_F_NO_PREALLOC);
MAP(stack, STACK, 0, 8, 16);
MAP(perf, PERF_EVENT_ARRAY, 4, 4, 16);
MAP(ring, RINGBUF, 0, 0, 4096);
MAP(jumps, PROG_ARRAY, 4, 4, 4);
MAP(ports, DEVMAP, 4, 4, 4);
MAP_FLAGS(no_prealloc, HASH, 4, 16, 16, BPF_F_NO_PREALLOC);
MAP_FLAGS(mmapable, ARRAY, 4, 16, 16, BPF_F_MMAPABLE);
MAP_FLAGS(read_only, ARRAY, 4, 16, 16, BPF_F_RDONLY_PROG);

struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64); } inner SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, typeof(inner));
} outer SEC(".maps") = { .values = { &inner } };

const volatile __u32 setting = 7;
__u32 zeroed;
__u32 initialised = 7;
__u32 own_section SEC(".data.own") = 7;

static __always_inline __u8 *frame(struct xdp_md *c, __u32 n)
{
	void *d = (void *)(long)c->data, *e = (void *)(long)c->data_end;

	return d + n > e ? 0 : d;
}

/* Maps. */
CASE(accept_lookup_array) { __u64 *v = VALUE(arr); return v && *v ? XDP_DROP : XDP_PASS; }
CASE(accept_lookup_hash) { __u64 k[2] = { 1, 2 }, *v = bpf_map_lookup_elem(&hash, k); return v && *v ? XDP_DROP : XDP_PASS; }
CASE(accept_element_64) { __u64 k[5] = {}; return bpf_map_lookup_elem(&element_64, k) ? XDP_DROP : XDP_PASS; }
CASE(accept_element_64_rounded) { __u64 k = 1; return bpf_map_lookup_elem(&element_64_rounded, &k) ? XDP_DROP : XDP_PASS; }
CASE(accept_array_value_56) { return VALUE(array_value_56) ? XDP_DROP : XDP_PASS; }
CASE(accept_million) { __u64 k[2] = {}; return bpf_map_lookup_elem(&million, k) ? XDP_DROP : XDP_PASS; }
CASE(refuse_M1_percpu_array) { return VALUE(percpu) ? XDP_DROP : XDP_PASS; }
CASE(refuse_M1_percpu_hash) { return VALUE(percpu_hash) ? XDP_DROP : XDP_PASS; }
CASE(refuse_M1_lru) { __u64 k[2] = {}; return bpf_map_lookup_elem(&lru, k) ? XDP_DROP : XDP_PASS; }
CASE(refuse_M1_lpm) { __u64 k = 8; return bpf_map_lookup_elem(&lpm, &k) ? XDP_DROP : XDP_PASS; }
CASE(refuse_M1_stack) { __u64 v = 1; return bpf_map_push_elem(&stack, &v, 0) ? XDP_DROP : XDP_PASS; }
CASE(refuse_M1_ring_buffer) { __u64 v = 1; return bpf_ringbuf_output(&ring, &v, 8, 0) ? XDP_DROP : XDP_PASS; }
CASE(refuse_M1_tail_call) { bpf_tail_call(c, &jumps, 0); return XDP_PASS; }
CASE(refuse_M1_devmap) { return bpf_redirect_map(&ports, 0, XDP_PASS); }
CASE(refuse_M1_map_in_map) { return VALUE(outer) ? XDP_DROP : XDP_PASS; }
CASE(refuse_M2_no_prealloc) { return VALUE(no_prealloc) ? XDP_DROP : XDP_PASS; }
CASE(refuse_M2_mmapable) { return VALUE(mmapable) ? XDP_DROP : XDP_PASS; }
CASE(refuse_M2_read_only) { return VALUE(read_only) ? XDP_DROP : XDP_PASS; }
CASE(refuse_M3_element_72) { __u64 k[5] = {}; return bpf_map_lookup_elem(&element_72, k) ? XDP_DROP : XDP_PASS; }
CASE(refuse_M3_element_72_rounded) { __u64 k[2] = {}; return bpf_map_lookup_elem(&element_72_rounded, k) ? XDP_DROP : XDP_PASS; }
CASE(refuse_M3_array_value_64) { return VALUE(array_value_64) ? XDP_DROP : XDP_PASS; }
CASE(refuse_M4_elements_of_one) { return VALUE(big) ? XDP_DROP : XDP_PASS; }
CASE(refuse_M4_elements_of_two) { return VALUE(half1) && VALUE(half2) ? XDP_DROP : XDP_PASS; }
CASE(refuse_M5_rodata) { return setting & 1; }
CASE(refuse_M5_bss) { zeroed = 1; return XDP_PASS; }
CASE(refuse_M5_data) { initialised++; return XDP_PASS; }
CASE(refuse_M5_own_section) { return own_section & 1; }
CASE(refuse_M5_printk) { bpf_printk("x"); return XDP_PASS; }
CASE(accept_count_64) { __u64 *v = VALUE(arr); if (v) __sync_fetch_and_add(v, 1); return XDP_PASS; }
CASE(accept_count_32) { __u32 *v = (__u32 *)VALUE(arr); if (v) __sync_fetch_and_add(v, 1); return XDP_PASS; }
CASE(accept_count_frame_bytes) { __u8 *d = frame(c, 14); __u64 *v = VALUE(arr); if (v && d) __sync_fetch_and_add(v, d[12]); return XDP_PASS; }
CASE(accept_count_and_read_other_word) { volatile __u64 *v = VALUE(arr); if (!v) return XDP_PASS; __sync_fetch_and_add(v, 1); return v[1] > 5; }
CASE(accept_count_and_read_other_map) { volatile __u64 *v = VALUE(arr), *w = VALUE(arr2); if (!v || !w) return XDP_PASS; __sync_fetch_and_add(v, 1); return w[0] > 5; }
CASE(refuse_M6_count_and_read) { volatile __u64 *v = VALUE(arr); if (!v) return XDP_PASS; __sync_fetch_and_add(v, 1); return *v > 5; }
CASE(refuse_M6_count_and_read_half) { volatile __u64 *v = VALUE(arr); if (!v) return XDP_PASS; __sync_fetch_and_add(v, 1); return ((volatile __u32 *)v)[1] > 5; }
CASE(refuse_M6_count_and_read_on_other_path) { __u8 *d = frame(c, 14); volatile __u64 *v = VALUE(arr); if (!v || !d) return XDP_PASS; if (d[0] & 1) { __sync_fetch_and_add(v, 1); return XDP_PASS; } return *v > 5; }

/* Opcodes. */
CASE(refuse_I1_modulo) { __u8 *d = frame(c, 14); return d ? d[0] % 3 : XDP_PASS; }
CASE(refuse_I1_store_immediate) { __u8 *d = frame(c, 14); if (d) asm volatile("*(u8 *)(%0 + 0) = 7" :: "r"(d) : "memory"); return XDP_TX; }
CASE(refuse_I1_store_immediate_on_stack) { __u64 v; asm volatile("*(u64 *)(%0 + 0) = 0" :: "r"(&v) : "memory"); return v & 1; }
CASE(accept_swap_16) { __u8 *d = frame(c, 14); return d ? __builtin_bswap16(*(__u16 *)(d + 12)) == 0x0800 : XDP_PASS; }
CASE(accept_swap_32) { __u8 *d = frame(c, 14); return d ? __builtin_bswap32(*(__u32 *)d) == 0x0800 : XDP_PASS; }
CASE(accept_swap_64) { __u8 *d = frame(c, 14); return d ? __builtin_bswap64(*(__u64 *)d) == 0x0800 : XDP_PASS; }
CASE(accept_shift_by_variable) { __u8 *d = frame(c, 14); return d ? *(__u64 *)d >> (d[1] & 63) & 1 : XDP_PASS; }
CASE(accept_negate) { __u8 *d = frame(c, 14); return d ? -*(__u64 *)d >> 63 : XDP_PASS; }
CASE(accept_signed_compare) { __u8 *d = frame(c, 14); return d && (__s32)*(__u32 *)d > -3 ? XDP_DROP : XDP_PASS; }
CASE(accept_bit_test) { __u8 *d = frame(c, 14); return d && *(__u64 *)d & 0x1000 ? XDP_DROP : XDP_PASS; }
CASE(accept_immediate_64) { __u8 *d = frame(c, 14); return d && *(__u64 *)d == 0x123456789abcdef0 ? XDP_DROP : XDP_PASS; }

/* Helpers and calls. */
CASE(accept_update_hash) { __u64 k[2] = { 1, 2 }, v[2] = { 3, 4 }; bpf_map_update_elem(&hash, k, v, 0); return XDP_PASS; }
CASE(accept_delete_hash) { __u64 k[2] = { 1, 2 }; bpf_map_delete_elem(&hash, k); return XDP_PASS; }
CASE(accept_random) { return bpf_get_prandom_u32() & 1; }
CASE(accept_adjust_tail) { return bpf_xdp_adjust_tail(c, -4) ? XDP_DROP : XDP_PASS; }
CASE(refuse_I2_time) { return bpf_ktime_get_ns() & 1; }
CASE(refuse_I2_processor) { return bpf_get_smp_processor_id() & 1; }
CASE(refuse_I2_adjust_meta) { return bpf_xdp_adjust_meta(c, -4) ? XDP_DROP : XDP_PASS; }
CASE(refuse_I2_redirect) { return bpf_redirect(2, 0); }
CASE(refuse_I2_fib_lookup) { struct bpf_fib_lookup f = {}; return bpf_fib_lookup(c, &f, sizeof(f), 0) ? XDP_DROP : XDP_PASS; }
CASE(refuse_I2_checksum_difference) { __u32 a[2] = { 1, 2 }; return bpf_csum_diff(0, 0, a, 8, 0) & 1; }
CASE(refuse_I2_load_bytes) { __u32 a[2]; return bpf_xdp_load_bytes(c, 0, a, 8) & 1; }
CASE(refuse_I2_perf_output) { __u32 x = 1; bpf_perf_event_output(c, &perf, BPF_F_CURRENT_CPU, &x, 4); return XDP_PASS; }
extern int bpf_xdp_metadata_rx_timestamp(const struct xdp_md *c, __u64 *stamp) __ksym;
CASE(refuse_I3_kernel_function) { __u64 stamp; return bpf_xdp_metadata_rx_timestamp(c, &stamp) ? XDP_DROP : XDP_PASS; }

/* Context. */
CASE(refuse_I4_ingress_interface) { return c->ingress_ifindex & 1; }
CASE(refuse_I4_queue_read) { return c->rx_queue_index & 1; }
CASE(refuse_I4_metadata) { void *m = (void *)(long)c->data_meta, *d = (void *)(long)c->data; return m + 4 > d ? XDP_PASS : XDP_DROP; }

CASE(accept_queue_select) { c->rx_queue_index = 1; return XDP_PASS; }

/* Memory. */
CASE(accept_stack_400) { volatile __u64 b[50]; b[0] = 1; b[49] = 2; return b[0] & 1; }
CASE(strict_I5_stack_in_loop) { volatile __u64 b[50]; for (int i = 0; i < 50; i++) b[i] = i; return b[7] & 1; }
CASE(accept_frame_variable_offset) { __u8 *d = frame(c, 34), *at; void *e = (void *)(long)c->data_end; if (!d) return XDP_PASS; at = d + 14 + (d[14] & 15) * 4; return (void *)(at + 8) > e ? XDP_PASS : at[1] & 1; }
CASE(accept_frame_copy) { __u8 *d = frame(c, 64); if (d) __builtin_memcpy(d, d + 20, 14); return XDP_TX; }
CASE(accept_value_to_frame) { __u8 *d = frame(c, 64); __u64 *v = VALUE(arr); if (d && v) __builtin_memcpy(d, v, 12); return XDP_TX; }
CASE(accept_frame_store) { __u8 *d = frame(c, 14); if (d) d[0] = 2; return XDP_TX; }
CASE(refuse_I5_value_store) { volatile __u64 *v = VALUE(arr); __u8 *d = frame(c, 14); if (v && d) *v = d[0]; return XDP_PASS; }
CASE(refuse_I5_value_variable_offset) { __u8 *d = frame(c, 14), *v = (__u8 *)VALUE(arr); return v && d ? v[d[0] & 7] & 1 : XDP_PASS; }
CASE(refuse_I5_stack_variable_offset) { __u8 *d = frame(c, 14); volatile __u8 b[16]; if (!d) return XDP_PASS; for (int i = 0; i < 16; i++) b[i] = i; return b[d[0] & 15] & 1; }
CASE(refuse_I5_atomic_fetch) { __u64 *v = VALUE(arr); return v ? __sync_fetch_and_add(v, 1) & 1 : XDP_PASS; }
CASE(refuse_I5_atomic_or) { __u64 *v = VALUE(arr); if (v) __sync_fetch_and_or(v, 1); return XDP_PASS; }
CASE(refuse_I5_atomic_and) { __u64 *v = VALUE(arr); if (v) __sync_fetch_and_and(v, 1); return XDP_PASS; }
CASE(refuse_I5_atomic_exchange) { __u64 *v = VALUE(arr); return v ? __sync_lock_test_and_set(v, 1) & 1 : XDP_PASS; }
CASE(refuse_I5_atomic_compare_exchange) { __u64 *v = VALUE(arr); return v ? __sync_val_compare_and_swap(v, 1, 2) & 1 : XDP_PASS; }
CASE(refuse_I5_atomic_on_stack) { __u64 x = 1; asm volatile("" : "+m"(x)); __sync_fetch_and_add(&x, 1); asm volatile("" : "+m"(x)); return x & 1; }
CASE(refuse_I6_key_in_frame) { __u8 *d = frame(c, 32); __u64 *v; if (!d) return XDP_PASS; v = bpf_map_lookup_elem(&hash, d); return v && *v ? XDP_DROP : XDP_PASS; }
CASE(refuse_I6_key_in_value) { void *v = VALUE(arr); return v && bpf_map_lookup_elem(&hash, v) ? XDP_DROP : XDP_PASS; }
CASE(refuse_I6_key_unaligned) { __u64 b[4] = {}; void *k = (void *)b + 2; asm volatile("" : "+r"(k) :: "memory"); return bpf_map_lookup_elem(&arr, k) ? XDP_DROP : XDP_PASS; }
CASE(refuse_I6_update_from_frame) { __u64 k[2] = { 1, 2 }; __u8 *d = frame(c, 32); if (d) bpf_map_update_elem(&hash, k, d, 0); return XDP_PASS; }

/* Arithmetic. */
CASE(accept_divide_by_constant) { __u8 *d = frame(c, 14); return d ? *(__u32 *)d / 1000003 & 1 : XDP_PASS; }
CASE(accept_multiply_32) { __u8 *d = frame(c, 14); return d ? *(__u32 *)d * 0x85ebca6bu >> 31 : XDP_PASS; }
CASE(accept_multiply_high) { __u8 *d = frame(c, 14); __u64 x; if (!d) return XDP_PASS; x = *(__u32 *)d; return x * 65537 >> 47; }
CASE(accept_multiply_two) { __u8 *d = frame(c, 14); __u64 x, y; if (!d) return XDP_PASS; x = *(__u32 *)d; y = *(__u32 *)(d + 4); return x * y >> 63; }
CASE(accept_multiply_after_xor_and_move) { __u8 *d = frame(c, 14); __u32 x; if (!d) return XDP_PASS; x = *(__u32 *)d ^ *(__u32 *)(d + 4); asm volatile("%0 = %0" : "+w"(x)); return x * 0x85ebca6bu >> 31; }
CASE(accept_multiply_masked) { __u8 *d = frame(c, 14); __u64 x; if (!d) return XDP_PASS; x = *(__u64 *)d & 0xffffff; return x * 12345 >> 40; }
CASE(accept_multiply_shifted) { __u8 *d = frame(c, 14); __u64 x; if (!d) return XDP_PASS; x = *(__u64 *)d >> 40; return x * 12345 >> 30 & 1; }
CASE(differ_I7_multiply_after_xor) { __u8 *d = frame(c, 14); __u32 x; if (!d) return XDP_PASS; x = *(__u32 *)d ^ *(__u32 *)(d + 4); return x * 0x85ebca6bu >> 31; }
CASE(refuse_I7_multiply_64) { __u8 *d = frame(c, 14); return d ? *(__u64 *)d * 12345 >> 63 : XDP_PASS; }
CASE(refuse_I7_multiply_two_64) { __u8 *d = frame(c, 24); return d ? *(__u64 *)d * *(__u64 *)(d + 8) >> 63 : XDP_PASS; }
CASE(refuse_I7_multiply_by_negative) { __u8 *d = frame(c, 14); __u64 x; if (!d) return XDP_PASS; x = *(__u32 *)d; asm volatile("%0 *= -5" : "+r"(x)); return x >> 63; }
CASE(refuse_I7_divide_by_negative) { __u8 *d = frame(c, 14); __u64 x; if (!d) return XDP_PASS; x = *(__u32 *)d; asm volatile("%0 /= -5" : "+r"(x)); return x & 1; }
CASE(refuse_I7_divide_64) { __u8 *d = frame(c, 14); return d ? *(__u64 *)d / 1000003 & 1 : XDP_PASS; }
CASE(refuse_I7_divide_by_variable) { __u8 *d = frame(c, 14); return d ? *(__u32 *)d / (d[4] | 1) & 1 : XDP_PASS; }
CASE(refuse_I8_two_kinds_of_memory) { __u8 *d = frame(c, 14); __u64 x = 1; void *p = &x; if (!d) return XDP_PASS; if (d[0] & 1) p = d; asm volatile("" : "+r"(p), "+m"(x)); return *(volatile __u8 *)p & 1; }
CASE(accept_one_kind_of_memory_two_places) { __u8 *d = frame(c, 14), *p = d; if (!d) return XDP_PASS; if (d[0] & 1) p = d + 6; asm volatile("" : "+r"(p)); return *(volatile __u8 *)p & 1; }

/* The frame's start, updates, verdicts. */
CASE(accept_adjust_head) { return bpf_xdp_adjust_head(c, -20) ? XDP_DROP : XDP_PASS; }
CASE(warn_I9_adjust_head_variable) { __u8 *d = frame(c, 14); return d && bpf_xdp_adjust_head(c, d[0] & 1 ? -20 : -40) ? XDP_DROP : XDP_PASS; }
CASE(warn_I9_adjust_head_twice) { __u8 *d = frame(c, 14); if (!d) return XDP_PASS; if (d[0] & 1) return bpf_xdp_adjust_head(c, -20) ? XDP_DROP : XDP_TX; return bpf_xdp_adjust_head(c, -40) ? XDP_DROP : XDP_PASS; }
CASE(refuse_I10_counter_not_zero) { __u64 *v = VALUE(arr), n[2] = { 5, 0 }; __u32 k = 1; if (v) __sync_fetch_and_add(v, 1); else bpf_map_update_elem(&arr, &k, n, 0); return XDP_PASS; }
CASE(differ_I10_counter_zero) { __u64 k[2] = { 1, 2 }, n[2] = {}, *v = bpf_map_lookup_elem(&hash, k); if (v) __sync_fetch_and_add(v, 1); else bpf_map_update_elem(&hash, k, n, 0); return XDP_PASS; }
CASE(accept_pass) { return XDP_PASS; }
CASE(accept_drop) { return XDP_DROP; }
CASE(accept_transmit) { return XDP_TX; }
CASE(strict_I11_redirect_verdict) { return XDP_REDIRECT; }
CASE(strict_I11_redirect_on_one_path) { __u8 *d = frame(c, 14); if (!d) return XDP_PASS; if (d[0] & 1) return XDP_REDIRECT; return XDP_DROP; }
CASE(warn_I11_unknown_verdict) { __u64 *v = VALUE(arr); return v ? *v : XDP_PASS; }

/* The whole. */
static __noinline int scaled(__u32 x, __u32 y) { volatile __u32 z = x * 3 + y; return z; }
CASE(accept_subprogram) { __u8 *d = frame(c, 14); return d ? scaled(d[0], d[1]) & 1 : XDP_PASS; }
CASE(accept_bounded_loop)
{
	__u8 *d = frame(c, 64);
	__u32 sum = 0;

	if (!d)
		return XDP_PASS;
#pragma clang loop unroll(disable)
	for (int i = 0; i < 16; i++) {
		sum += d[i];
		asm volatile("" : "+r"(sum));
	}
	return sum & 1;
}
static __noinline int deep(__u32 x)
{
	volatile __u64 b[32];

	for (int i = 0; i < 32; i++)
		b[i] = x;
	return b[x & 1 ? 3 : 5] & 1;
}
/* 200 and 256 bytes: the host rounds to 32, a card to 64 and adds what it saves. */
CASE(refuse_W1_stack_of_two_frames)
{
	volatile __u64 b[25];
	__u8 *d = frame(c, 14);

	if (!d)
		return XDP_PASS;
	for (int i = 0; i < 25; i++)
		b[i] = i;
	return deep(d[0]) + b[7] & 1;
}
CASE(warn_W3_far_into_packet) { __u8 *d = frame(c, 1700); return d ? d[1650] & 1 : XDP_PASS; }
CASE(warn_W2_long) { __u64 x = 0; asm volatile(".rept 1200\n%0 += 1\n.endr" : "+r"(x)); return x & 1; }
CASE(refuse_W2_too_long) { __u64 x = 0; asm volatile(".rept 1500\n%0 += 1\n.endr" : "+r"(x)); return x & 1; }
SEC("xdp.frags") int refuse_W4_multiple_buffers(struct xdp_md *c) { return c ? XDP_PASS : XDP_DROP; }

char _license[] SEC("license") = "Dual BSD/GPL";
