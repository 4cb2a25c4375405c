// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Server ids in TCP options, on both ends of connections. A program on the sockets of a cgroup
 * (sock_ops): a server says its id on connections that it accepted, in option 0xb6; a client
 * remembers it and says it in option 0xb7 on its later packets, by which balancers find the server
 * (docs/packet-path.md section 3.2). A client that has option 0xb8 in its SYN is told none.
 *
 * The kernel asks twice for each segment: first how many bytes to reserve, then for the option. It
 * also asks when it computes the size of the segments that it is about to send. Between these, what is
 * reserved may become less but not more, or segments would be longer than that size.
 */
#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/tcp.h>
#include <bpf/bpf_helpers.h>

#define OPTION_HANDED 0xb6
#define OPTION_NAMED 0xb7
#define OPTION_NONE_WANTED 0xb8

#define FLAG_SYN 0x02 /* of the TCP header */

/* What bpf_load_hdr_opt says (errno-base.h, errno.h): the option is longer than asked for; it is not
 * there. */
#define ENOSPC 28
#define ENOMSG 42

/* How many segments of a connection have the server's id after the SYN-ACK, if the client does not show
 * that it knows it: some, since a SYN-ACK has no room at times. */
#define SEGMENTS_HANDED 8

/* Setting, constant before the program is loaded: the server's id; 0 makes a client. */
const volatile __u32 setting_server_id = 0;

/* An option as it is in the segment. The id is in host order. */
struct id_option {
	__u8 kind;
	__u8 len;
	__u32 id;
} __attribute__((packed));
_Static_assert(sizeof(struct id_option) == 6, "as balancers read it");

/* What is known of a connection. */
struct connection {
	__u32 id;            /* client: the server's; 0: not known */
	__u32 segments_left; /* server: that will have the id */
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct connection);
} connections SEC(".maps");

/* Elements of counters; lb/tcpid has their names. */
enum counter {
	COUNTER_HANDED,      /* server: segments with its id */
	COUNTER_CONFIRMED,   /* server: connections whose client knows the id */
	COUNTER_FOREIGN,     /* server: packets with another id than its own */
	COUNTER_NONE_WANTED, /* server: connections whose client wants none */
	COUNTER_LEARNED,     /* client: connections whose server said its id */
	COUNTER_NAMED,       /* client: segments with the server's id */
	COUNTER_NO_ROOM,     /* segments that had no room for the option */
	COUNTER_LEN,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTER_LEN);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

static __always_inline void counter_add(__u32 which)
{
	__u64 *n = bpf_map_lookup_elem(&counters, &which);

	if (n) /* always: which is within the array */
		*n += 1;
}

/* The connection's state; NULL where the kernel has no whole socket yet, as for a SYN-ACK. */
static __always_inline struct connection *connection_of(struct bpf_sock_ops *ctx, __u64 flags)
{
	struct bpf_sock *sk = ctx->sk;

	if (!sk)
		return NULL;
	return bpf_sk_storage_get(&connections, sk, NULL, flags);
}

/* From here on the kernel asks for options, and shows segments with options that it does not know. */
static __always_inline void options_ask(struct bpf_sock_ops *ctx)
{
	bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG |
					       BPF_SOCK_OPS_PARSE_UNKNOWN_HDR_OPT_CB_FLAG);
}

/* The id in an option of the segment that came; 0 if there is none, or not of the right length. */
static __always_inline __u32 id_read(struct bpf_sock_ops *ctx, __u8 kind)
{
	struct id_option option = {.kind = kind};

	if (bpf_load_hdr_opt(ctx, &option, sizeof(option), 0) != sizeof(option))
		return 0;
	return option.id;
}

/* Whether ids may be handed out: the SYN is known, and does not refuse them. That of a connection whose
 * listening socket is older than the program is not known. */
static __always_inline int syn_allows(struct bpf_sock_ops *ctx, int *refused)
{
	__u8 option[2] = {OPTION_NONE_WANTED, 0};
	int ret = bpf_load_hdr_opt(ctx, option, sizeof(option), BPF_LOAD_HDR_OPT_TCP_SYN);

	*refused = ret >= 0 || ret == -ENOSPC;
	return ret == -ENOMSG; /* the SYN is there, and does not have it */
}

/* A listening socket keeps the SYNs of its connections, and answers them with the id. */
static __always_inline void server_listens(struct bpf_sock_ops *ctx)
{
	int one = 1;

	if (bpf_setsockopt(ctx, IPPROTO_TCP, TCP_SAVE_SYN, &one, sizeof(one)) == 0)
		options_ask(ctx);
}

/* A client that names a server knows one: it need not be told again. */
static __always_inline void server_reads(struct bpf_sock_ops *ctx)
{
	struct connection *c = connection_of(ctx, 0);
	__u32 id = id_read(ctx, OPTION_NAMED);

	if (id == 0)
		return;
	if (id != setting_server_id) {
		counter_add(COUNTER_FOREIGN);
		return;
	}
	if (!c || c->segments_left == 0)
		return;
	c->segments_left = 0;
	counter_add(COUNTER_CONFIRMED);
}

static __always_inline void server_accepted(struct bpf_sock_ops *ctx)
{
	struct connection *c;
	int refused;

	if (!syn_allows(ctx, &refused)) {
		if (refused)
			counter_add(COUNTER_NONE_WANTED);
		return;
	}
	c = connection_of(ctx, BPF_SK_STORAGE_GET_F_CREATE);
	if (!c)
		return;
	c->segments_left = SEGMENTS_HANDED;
	server_reads(ctx);
	options_ask(ctx);
}

/* Whether the segment that is made is to have the id. */
static __always_inline int server_hands(struct bpf_sock_ops *ctx)
{
	struct connection *c;
	int refused;

	if (ctx->skb_tcp_flags & FLAG_SYN)
		return syn_allows(ctx, &refused);
	c = connection_of(ctx, 0);
	return c && c->segments_left > 0;
}

static __always_inline void client_learns(struct bpf_sock_ops *ctx)
{
	struct connection *c = connection_of(ctx, BPF_SK_STORAGE_GET_F_CREATE);
	__u32 id;

	if (!c || c->id != 0)
		return;
	id = id_read(ctx, OPTION_HANDED);
	if (id == 0)
		return;
	c->id = id;
	counter_add(COUNTER_LEARNED);
}

/* The option of the segment that is made; 0 for none. A SYN never has one. */
static __always_inline int option_of(struct bpf_sock_ops *ctx, struct id_option *option)
{
	struct connection *c;

	option->len = sizeof(*option);
	if (setting_server_id != 0) {
		option->kind = OPTION_HANDED;
		option->id = setting_server_id;
		return server_hands(ctx);
	}
	c = connection_of(ctx, 0);
	if (!c || c->id == 0 || ctx->skb_tcp_flags & FLAG_SYN)
		return 0;
	option->kind = OPTION_NAMED;
	option->id = c->id;
	return 1;
}

static __always_inline void option_reserve(struct bpf_sock_ops *ctx)
{
	struct id_option option;

	if (option_of(ctx, &option) && bpf_reserve_hdr_opt(ctx, sizeof(option), 0) != 0)
		counter_add(COUNTER_NO_ROOM);
}

static __always_inline void option_write(struct bpf_sock_ops *ctx)
{
	struct id_option option;
	struct connection *c;

	if (!option_of(ctx, &option) || bpf_store_hdr_opt(ctx, &option, sizeof(option), 0) != 0)
		return;
	counter_add(setting_server_id != 0 ? COUNTER_HANDED : COUNTER_NAMED);
	c = setting_server_id != 0 ? connection_of(ctx, 0) : NULL;
	if (c && c->segments_left > 0)
		c->segments_left -= 1;
}

SEC("sockops")
int remora_tcp_id(struct bpf_sock_ops *ctx)
{
	int server = setting_server_id != 0;

	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
		if (server)
			server_listens(ctx);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		if (server)
			server_accepted(ctx);
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		if (!server) {
			client_learns(ctx);
			options_ask(ctx);
		}
		break;
	case BPF_SOCK_OPS_PARSE_HDR_OPT_CB:
		if (server)
			server_reads(ctx);
		else
			client_learns(ctx);
		break;
	case BPF_SOCK_OPS_HDR_OPT_LEN_CB:
		option_reserve(ctx);
		break;
	case BPF_SOCK_OPS_WRITE_HDR_OPT_CB:
		option_write(ctx);
		break;
	}
	return 1;
}

char _license[] SEC("license") = "Dual BSD/GPL";
