// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * nfpsim: a network card that is not there, with an eBPF engine behind it.
 *
 * The card is judged by the real driver: the NFP driver's verifier hook,
 * translator and map checks (taken at build time from the distribution's
 * kernel source) decide what may be loaded. What the real driver would ask of
 * the firmware over its control channel (map storage) is done here in memory,
 * and an offloaded program is really run, instruction by instruction, on every
 * packet that reaches the card from the wire.
 *
 * Two interfaces appear: nfpN, the card, and wireN, the far end of its cable.
 */
#include <linux/bpf.h>
#include <linux/bpf_verifier.h>
#include <linux/debugfs.h>
#include <linux/dma-mapping.h>
#include <linux/etherdevice.h>
#include <linux/filter.h>
#include <linux/jhash.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/platform_device.h>
#include <linux/prandom.h>
#include <linux/rtnetlink.h>
#include <linux/seq_file.h>
#include <linux/slab.h>

#include "nfp_app.h"
#include "nfp_main.h"
#include "nfp_net.h"
#include "nfp_net_ctrl.h"
#include "bpf/fw.h"
#include "bpf/main.h"

/* What the firmware would announce. Sizes as published for the card. */
static unsigned int stack_size = 512;
module_param(stack_size, uint, 0444);
static unsigned int max_insns = 2800;
module_param(max_insns, uint, 0444);
static unsigned int max_maps = 64;
module_param(max_maps, uint, 0444);
static unsigned int max_elems = 3072000;
module_param(max_elems, uint, 0444);
static unsigned int max_elem_sz = 64;
module_param(max_elem_sz, uint, 0444);
static bool cap_random = true, cap_qsel = true, cap_tail = true;
module_param(cap_random, bool, 0444);
module_param(cap_qsel, bool, 0444);
module_param(cap_tail, bool, 0444);
static bool cap_head = true;
module_param(cap_head, bool, 0444);

/* ---- maps: what the firmware keeps ---------------------------------- */

struct sim_ent {
	struct hlist_node n;
	struct list_head free;
	u8 *key, *val;
};

struct sim_map {
	struct list_head l;
	u32 tid;
	struct bpf_offloaded_map *offmap;
	spinlock_t lock;
	u32 vstride, kstride, buckets, used;
	u8 *keys, *vals;
	struct sim_ent *ent;
	struct hlist_head *head;
	struct list_head freelist;
};

static LIST_HEAD(sim_maps);
static DEFINE_SPINLOCK(sim_maps_lock);
static u32 sim_next_tid = 1;

static struct sim_map *sim_of(struct bpf_offloaded_map *offmap)
{
	struct nfp_bpf_map *nm = offmap->dev_priv;
	struct sim_map *m;

	rcu_read_lock();
	list_for_each_entry_rcu(m, &sim_maps, l)
		if (m->tid == nm->tid)
			break;
	rcu_read_unlock();
	return m;
}

static bool sim_is_array(struct sim_map *m)
{
	return m->offmap->map.map_type == BPF_MAP_TYPE_ARRAY;
}

static struct sim_ent *sim_find(struct sim_map *m, const void *key)
{
	u32 ks = m->offmap->map.key_size;
	struct sim_ent *e;

	hlist_for_each_entry(e, &m->head[jhash(key, ks, 0) & (m->buckets - 1)], n)
		if (!memcmp(e->key, key, ks))
			return e;
	return NULL;
}

static u8 *sim_lookup(struct sim_map *m, const void *key)
{
	struct sim_ent *e;
	u8 *v = NULL;

	if (sim_is_array(m)) {
		u32 i = *(u32 *)key;

		return i < m->offmap->map.max_entries ? m->vals + (size_t)i * m->vstride : NULL;
	}
	spin_lock_bh(&m->lock);
	e = sim_find(m, key);
	if (e)
		v = e->val;
	spin_unlock_bh(&m->lock);
	return v;
}

static int sim_update(struct sim_map *m, const void *key, const void *val, u64 flags)
{
	u32 vs = m->offmap->map.value_size, ks = m->offmap->map.key_size;
	struct sim_ent *e;
	int err = 0;

	if (sim_is_array(m)) {
		u8 *v = sim_lookup(m, key);

		if (!v)
			return -E2BIG;
		if (flags == BPF_NOEXIST)
			return -EEXIST;
		memcpy(v, val, vs);
		return 0;
	}
	spin_lock_bh(&m->lock);
	e = sim_find(m, key);
	if (e && flags == BPF_NOEXIST) {
		err = -EEXIST;
	} else if (!e && flags == BPF_EXIST) {
		err = -ENOENT;
	} else {
		if (!e) {
			e = list_first_entry_or_null(&m->freelist, struct sim_ent, free);
			if (!e) {
				err = -E2BIG;
				goto out;
			}
			list_del(&e->free);
			memcpy(e->key, key, ks);
			memcpy(e->val, val, vs);
			hlist_add_head(&e->n, &m->head[jhash(key, ks, 0) & (m->buckets - 1)]);
			m->used++;
		} else {
			memcpy(e->val, val, vs);
		}
	}
out:
	spin_unlock_bh(&m->lock);
	return err;
}

static int sim_delete(struct sim_map *m, const void *key)
{
	struct sim_ent *e;

	if (sim_is_array(m))
		return -EINVAL;
	spin_lock_bh(&m->lock);
	e = sim_find(m, key);
	if (e) {
		hlist_del(&e->n);
		list_add(&e->free, &m->freelist);
		m->used--;
	}
	spin_unlock_bh(&m->lock);
	return e ? 0 : -ENOENT;
}

long long int nfp_bpf_ctrl_alloc_map(struct nfp_app_bpf *bpf, struct bpf_map *map)
{
	struct sim_map *m = kzalloc(sizeof(*m), GFP_KERNEL);
	u32 i, n = map->max_entries;

	if (!m)
		return -ENOMEM;
	m->offmap = map_to_offmap(map);
	m->vstride = round_up(map->value_size, 8);
	m->kstride = round_up(map->key_size, 8);
	spin_lock_init(&m->lock);
	INIT_LIST_HEAD(&m->freelist);
	m->vals = kvcalloc(n, m->vstride, GFP_KERNEL);
	if (!m->vals)
		goto err;
	if (map->map_type == BPF_MAP_TYPE_HASH) {
		m->buckets = roundup_pow_of_two(n);
		m->keys = kvcalloc(n, m->kstride, GFP_KERNEL);
		m->ent = kvcalloc(n, sizeof(*m->ent), GFP_KERNEL);
		m->head = kvcalloc(m->buckets, sizeof(*m->head), GFP_KERNEL);
		if (!m->keys || !m->ent || !m->head)
			goto err;
		for (i = 0; i < n; i++) {
			m->ent[i].key = m->keys + (size_t)i * m->kstride;
			m->ent[i].val = m->vals + (size_t)i * m->vstride;
			list_add_tail(&m->ent[i].free, &m->freelist);
		}
	}
	spin_lock(&sim_maps_lock);
	m->tid = sim_next_tid++;
	list_add_rcu(&m->l, &sim_maps);
	spin_unlock(&sim_maps_lock);
	return m->tid;
err:
	kvfree(m->vals);
	kvfree(m->keys);
	kvfree(m->ent);
	kvfree(m->head);
	kfree(m);
	return -ENOMEM;
}

void nfp_bpf_ctrl_free_map(struct nfp_app_bpf *bpf, struct nfp_bpf_map *nm)
{
	struct sim_map *m = sim_of(nm->offmap);

	spin_lock(&sim_maps_lock);
	list_del_rcu(&m->l);
	spin_unlock(&sim_maps_lock);
	synchronize_rcu();
	kvfree(m->vals);
	kvfree(m->keys);
	kvfree(m->ent);
	kvfree(m->head);
	kfree(m);
}

int nfp_bpf_ctrl_lookup_entry(struct bpf_offloaded_map *offmap, void *key, void *value)
{
	u8 *v = sim_lookup(sim_of(offmap), key);

	if (!v)
		return -ENOENT;
	memcpy(value, v, offmap->map.value_size);
	return 0;
}

int nfp_bpf_ctrl_update_entry(struct bpf_offloaded_map *offmap, void *key, void *value, u64 flags)
{
	return sim_update(sim_of(offmap), key, value, flags);
}

int nfp_bpf_ctrl_del_entry(struct bpf_offloaded_map *offmap, void *key)
{
	return sim_delete(sim_of(offmap), key);
}

static int sim_next(struct bpf_offloaded_map *offmap, void *key, void *next)
{
	struct sim_map *m = sim_of(offmap);
	struct sim_ent *e = NULL;
	u32 i = 0;

	if (sim_is_array(m)) {
		if (key && *(u32 *)key < offmap->map.max_entries)
			i = *(u32 *)key + 1;
		if (i >= offmap->map.max_entries)
			return -ENOENT;
		*(u32 *)next = i;
		return 0;
	}
	spin_lock_bh(&m->lock);
	if (key)
		e = sim_find(m, key);
	if (e) {
		i = (jhash(key, offmap->map.key_size, 0) & (m->buckets - 1)) + 1;
		e = hlist_entry_safe(e->n.next, struct sim_ent, n);
	}
	for (; !e && i < m->buckets; i++)
		e = hlist_entry_safe(m->head[i].first, struct sim_ent, n);
	if (e)
		memcpy(next, e->key, offmap->map.key_size);
	spin_unlock_bh(&m->lock);
	return e ? 0 : -ENOENT;
}

int nfp_bpf_ctrl_getfirst_entry(struct bpf_offloaded_map *offmap, void *next)
{
	return sim_next(offmap, NULL, next);
}

int nfp_bpf_ctrl_getnext_entry(struct bpf_offloaded_map *offmap, void *key, void *next)
{
	return sim_next(offmap, key, next);
}

const struct rhashtable_params nfp_bpf_maps_neutral_params = {
	.nelem_hint		= 4,
	.key_len		= sizeof_field(struct bpf_map, id),
	.key_offset		= offsetof(struct nfp_bpf_neutral_map, map_id),
	.head_offset		= offsetof(struct nfp_bpf_neutral_map, l),
	.automatic_shrinking	= true,
};

int nfp_net_reconfig(struct nfp_net *nn, u32 update)
{
	return 0;
}

/* ---- programs ---------------------------------------------------------- */

struct sim_prog {
	struct list_head l;
	struct bpf_prog *prog;
	u32 len;
	struct bpf_insn insn[];
};

static LIST_HEAD(sim_progs);
static DEFINE_MUTEX(sim_progs_lock);
static struct bpf_prog_offload_ops sim_ops;

/* The driver's prepare sees the instructions with map pointers resolved and
 * helper numbers in place; keep a copy to run.
 */
static int sim_prepare(struct bpf_prog *prog)
{
	struct sim_prog *p = kvzalloc(struct_size(p, insn, prog->len), GFP_KERNEL);
	int err;

	if (!p)
		return -ENOMEM;
	p->prog = prog;
	p->len = prog->len;
	memcpy(p->insn, prog->insnsi, prog->len * sizeof(p->insn[0]));
	err = nfp_bpf_dev_ops.prepare(prog);
	if (err) {
		kvfree(p);
		return err;
	}
	mutex_lock(&sim_progs_lock);
	list_add(&p->l, &sim_progs);
	mutex_unlock(&sim_progs_lock);
	return 0;
}

static void sim_destroy(struct bpf_prog *prog)
{
	struct sim_prog *p, *t;

	nfp_bpf_dev_ops.destroy(prog);
	mutex_lock(&sim_progs_lock);
	list_for_each_entry_safe(p, t, &sim_progs, l)
		if (p->prog == prog) {
			list_del(&p->l);
			kvfree(p);
		}
	mutex_unlock(&sim_progs_lock);
}

static struct sim_prog *sim_prog_of(struct bpf_prog *prog)
{
	struct sim_prog *p, *found = NULL;

	mutex_lock(&sim_progs_lock);
	list_for_each_entry(p, &sim_progs, l)
		if (p->prog == prog)
			found = p;
	mutex_unlock(&sim_progs_lock);
	return found;
}

struct sim_stats {
	u64 rx, pass, drop, tx, aborted, insns;
};

struct sim_nic {
	struct nfp_net nn;		/* first: the driver's code takes it from netdev_priv() */
	struct net_device *peer;
	bool wire;
	struct nfp_app app;
	struct nfp_app_bpf bpf;
	struct nfp_bpf_vnic vnic;
	struct sim_prog __rcu *hw;
	struct sim_stats st;
	spinlock_t engine;		/* the one flow processing core */
	u8 *stack;
	struct dentry *dir;
};

struct sim_ctx {
	struct sim_nic *nic;
	struct sk_buff *skb;
	u32 depth;
};

#define FRAME 512
#define CTX_ADDR 0x1000UL

static u64 sim_ld(struct sim_ctx *c, u64 base, s16 off, u8 size)
{
	void *p;

	if (base == CTX_ADDR) {
		switch (off) {
		case offsetof(struct xdp_md, data):
			return (unsigned long)c->skb->data;
		case offsetof(struct xdp_md, data_end):
			return (unsigned long)c->skb->data + c->skb->len;
		}
		return 0;
	}
	p = (void *)(unsigned long)(base + off);
	switch (size) {
	case BPF_B:
		return *(u8 *)p;
	case BPF_H:
		return get_unaligned((u16 *)p);
	case BPF_W:
		return get_unaligned((u32 *)p);
	default:
		return get_unaligned((u64 *)p);
	}
}

static void sim_st(u64 base, s16 off, u8 size, u64 v)
{
	void *p = (void *)(unsigned long)(base + off);

	if (base == CTX_ADDR)
		return;
	switch (size) {
	case BPF_B:
		*(u8 *)p = v;
		break;
	case BPF_H:
		put_unaligned((u16)v, (u16 *)p);
		break;
	case BPF_W:
		put_unaligned((u32)v, (u32 *)p);
		break;
	default:
		put_unaligned(v, (u64 *)p);
	}
}

/* The atomic engine counts in big-endian words; the driver swaps them back
 * when the map is read.
 */
static void sim_xadd(u64 base, s16 off, bool is64, u64 v)
{
	__be32 *w = (void *)(unsigned long)(base + off);
	u64 cur = be32_to_cpu(w[0]);

	if (is64)
		cur |= (u64)be32_to_cpu(w[1]) << 32;
	cur += v;
	w[0] = cpu_to_be32((u32)cur);
	if (is64)
		w[1] = cpu_to_be32(cur >> 32);
}

static u64 sim_call(struct sim_ctx *c, s32 id, u64 *r)
{
	struct bpf_offloaded_map *om;
	s32 delta;

	switch (id) {
	case BPF_FUNC_map_lookup_elem:
		om = map_to_offmap((struct bpf_map *)(unsigned long)r[1]);
		return (unsigned long)sim_lookup(sim_of(om), (void *)(unsigned long)r[2]);
	case BPF_FUNC_map_update_elem:
		om = map_to_offmap((struct bpf_map *)(unsigned long)r[1]);
		return sim_update(sim_of(om), (void *)(unsigned long)r[2], (void *)(unsigned long)r[3], r[4]);
	case BPF_FUNC_map_delete_elem:
		om = map_to_offmap((struct bpf_map *)(unsigned long)r[1]);
		return sim_delete(sim_of(om), (void *)(unsigned long)r[2]);
	case BPF_FUNC_get_prandom_u32:
		return get_random_u32();
	case BPF_FUNC_xdp_adjust_head:
		delta = (s32)r[2];
		if (delta < 0) {
			if (skb_headroom(c->skb) < -delta)
				return -EINVAL;
			skb_push(c->skb, -delta);
		} else {
			if (c->skb->len < delta + ETH_HLEN)
				return -EINVAL;
			skb_pull(c->skb, delta);
		}
		return 0;
	case BPF_FUNC_xdp_adjust_tail:
		delta = (s32)r[2];
		if (delta >= 0 || (s32)c->skb->len + delta < ETH_HLEN)
			return -EINVAL;
		skb_trim(c->skb, c->skb->len + delta);
		return 0;
	}
	return -EOPNOTSUPP;
}

static u64 sim_alu(u8 op, u64 d, u64 s, bool is64)
{
	if (!is64) {
		d = (u32)d;
		s = (u32)s;
	}
	switch (op) {
	case BPF_ADD: return d + s;
	case BPF_SUB: return d - s;
	case BPF_MUL: return d * s;
	case BPF_DIV: return s ? (is64 ? div64_u64(d, s) : (u32)d / (u32)s) : 0;
	case BPF_OR: return d | s;
	case BPF_AND: return d & s;
	case BPF_XOR: return d ^ s;
	case BPF_MOV: return s;
	case BPF_NEG: return -d;
	case BPF_LSH: return is64 ? d << (s & 63) : (u32)d << (s & 31);
	case BPF_RSH: return is64 ? d >> (s & 63) : (u32)d >> (s & 31);
	case BPF_ARSH: return is64 ? (u64)((s64)d >> (s & 63)) : (u32)((s32)d >> (s & 31));
	}
	return 0;
}

static bool sim_cond(u8 op, u64 d, u64 s, bool is64)
{
	s64 sd = is64 ? (s64)d : (s32)d, ss = is64 ? (s64)s : (s32)s;

	if (!is64) {
		d = (u32)d;
		s = (u32)s;
	}
	switch (op) {
	case BPF_JEQ: return d == s;
	case BPF_JNE: return d != s;
	case BPF_JGT: return d > s;
	case BPF_JGE: return d >= s;
	case BPF_JLT: return d < s;
	case BPF_JLE: return d <= s;
	case BPF_JSGT: return sd > ss;
	case BPF_JSGE: return sd >= ss;
	case BPF_JSLT: return sd < ss;
	case BPF_JSLE: return sd <= ss;
	case BPF_JSET: return d & s;
	}
	return false;
}

static u64 sim_run(struct sim_ctx *c, const struct sim_prog *p, u32 pc, u64 *args)
{
	u64 r[11] = {};
	int i;

	for (i = 1; i <= 5; i++)
		r[i] = args[i];
	r[10] = (unsigned long)c->nic->stack + FRAME * (c->depth + 1);
	for (;; pc++) {
		const struct bpf_insn *n = &p->insn[pc];
		u8 cls = BPF_CLASS(n->code), op = BPF_OP(n->code);
		u64 s = BPF_SRC(n->code) == BPF_X ? r[n->src_reg] : (u64)(s64)n->imm;

		c->nic->st.insns++;
		switch (cls) {
		case BPF_ALU:
		case BPF_ALU64:
			if (op == BPF_END) {
				u64 v = r[n->dst_reg];

				r[n->dst_reg] = n->imm == 16 ? (u64)be16_to_cpu((__force __be16)v) :
					n->imm == 32 ? (u64)be32_to_cpu((__force __be32)v) :
					be64_to_cpu((__force __be64)v);
				break;
			}
			r[n->dst_reg] = sim_alu(op, r[n->dst_reg], s, cls == BPF_ALU64);
			if (cls == BPF_ALU)
				r[n->dst_reg] = (u32)r[n->dst_reg];
			break;
		case BPF_LD:
			r[n->dst_reg] = (u32)n[0].imm | (u64)n[1].imm << 32;
			pc++;
			break;
		case BPF_LDX:
			r[n->dst_reg] = sim_ld(c, r[n->src_reg], n->off, BPF_SIZE(n->code));
			break;
		case BPF_ST:
			sim_st(r[n->dst_reg], n->off, BPF_SIZE(n->code), (s64)n->imm);
			break;
		case BPF_STX:
			if (BPF_MODE(n->code) == BPF_ATOMIC)
				sim_xadd(r[n->dst_reg], n->off, BPF_SIZE(n->code) == BPF_DW, r[n->src_reg]);
			else
				sim_st(r[n->dst_reg], n->off, BPF_SIZE(n->code), r[n->src_reg]);
			break;
		case BPF_JMP:
		case BPF_JMP32:
			if (n->code == (BPF_JMP | BPF_EXIT))
				return r[0];
			if (n->code == (BPF_JMP | BPF_CALL)) {
				if (n->src_reg == BPF_PSEUDO_CALL) {
					c->depth++;
					r[0] = sim_run(c, p, pc + 1 + n->imm, r);
					c->depth--;
				} else {
					r[0] = sim_call(c, n->imm, r);
				}
			} else if (op == BPF_JA || sim_cond(op, r[n->dst_reg], s, cls == BPF_JMP)) {
				pc += n->off;
			}
			break;
		}
	}
}

/* ---- the two interfaces --------------------------------------------- */

static void sim_rx(struct sk_buff *skb, struct net_device *dev)
{
	skb->protocol = eth_type_trans(skb, dev);
	skb->ip_summed = CHECKSUM_UNNECESSARY;
	dev_sw_netstats_rx_add(dev, skb->len);
	netif_rx(skb);
}

static netdev_tx_t sim_xmit(struct sk_buff *skb, struct net_device *dev)
{
	struct sim_nic *me = netdev_priv(dev), *nic;
	struct net_device *to = me->peer;
	struct sim_prog *p;
	u64 args[6] = { 0, CTX_ADDR };
	u64 act = XDP_PASS;

	dev_sw_netstats_tx_add(dev, 1, skb->len);
	skb_scrub_packet(skb, false);
	/* A cable carries finished packets. */
	if (skb_linearize(skb) || (skb->ip_summed == CHECKSUM_PARTIAL && skb_checksum_help(skb)))
		goto drop;
	if (!me->wire) {
		sim_rx(skb, to);
		return NETDEV_TX_OK;
	}
	nic = netdev_priv(to);
	rcu_read_lock();
	p = rcu_dereference(nic->hw);
	if (p) {
		struct sim_ctx c = { .nic = nic };

		skb = skb_unshare(skb, GFP_ATOMIC);
		if (!skb || skb_cow_head(skb, 256)) {
			rcu_read_unlock();
			if (skb)
				goto drop;
			return NETDEV_TX_OK;
		}
		c.skb = skb;
		spin_lock_bh(&nic->engine);
		nic->st.rx++;
		act = sim_run(&c, p, 0, args);
		switch (act) {
		case XDP_PASS: nic->st.pass++; break;
		case XDP_DROP: nic->st.drop++; break;
		case XDP_TX: nic->st.tx++; break;
		default: nic->st.aborted++; break;
		}
		spin_unlock_bh(&nic->engine);
	}
	rcu_read_unlock();
	if (act == XDP_PASS)
		sim_rx(skb, to);
	else if (act == XDP_TX)
		sim_rx(skb, dev);
	else
		goto drop;
	return NETDEV_TX_OK;
drop:
	dev_kfree_skb(skb);
	return NETDEV_TX_OK;
}

static int sim_bpf(struct net_device *dev, struct netdev_bpf *x)
{
	struct sim_nic *nic = netdev_priv(dev);
	bool running = nic->nn.dp.ctrl & NFP_NET_CFG_CTRL_BPF;
	int err;

	switch (x->command) {
	case XDP_SETUP_PROG_HW:
		if (!x->prog && !running)
			return 0;
		err = nfp_net_bpf_offload(&nic->nn, x->prog, running, x->extack);
		if (err)
			return err;
		if (!x->prog)
			nic->nn.dp.ctrl &= ~NFP_NET_CFG_CTRL_BPF;
		rcu_assign_pointer(nic->hw, x->prog ? sim_prog_of(x->prog) : NULL);
		synchronize_net();
		xdp_attachment_setup(&nic->nn.xdp_hw, x);
		return 0;
	case XDP_SETUP_PROG:
		NL_SET_ERR_MSG(x->extack, "nfpsim: driver mode is not modelled");
		return -EOPNOTSUPP;
	default:
		return nfp_ndo_bpf(&nic->app, &nic->nn, x);
	}
}

static int sim_change_mtu(struct net_device *dev, int mtu)
{
	struct sim_nic *nic = netdev_priv(dev);

	if (nic->nn.xdp_hw.prog && nfp_bpf_offload_check_mtu(&nic->nn, nic->nn.xdp_hw.prog, mtu))
		return -EBUSY;
	dev->mtu = mtu;
	return 0;
}

static int sim_ndo_init(struct net_device *dev)
{
	struct sim_nic *nic = netdev_priv(dev);

	dev->tstats = netdev_alloc_pcpu_stats(struct pcpu_sw_netstats);
	if (!dev->tstats)
		return -ENOMEM;
	return nic->wire ? 0 : bpf_offload_dev_netdev_register(nic->bpf.bpf_dev, dev);
}

static void sim_ndo_uninit(struct net_device *dev)
{
	struct sim_nic *nic = netdev_priv(dev);

	if (!nic->wire)
		bpf_offload_dev_netdev_unregister(nic->bpf.bpf_dev, dev);
	free_percpu(dev->tstats);
}

static const struct net_device_ops sim_nic_ops = {
	.ndo_init		= sim_ndo_init,
	.ndo_uninit		= sim_ndo_uninit,
	.ndo_start_xmit		= sim_xmit,
	.ndo_get_stats64	= dev_get_tstats64,
	.ndo_change_mtu		= sim_change_mtu,
	.ndo_set_mac_address	= eth_mac_addr,
	.ndo_bpf		= sim_bpf,
};

static const struct net_device_ops sim_wire_ops = {
	.ndo_init		= sim_ndo_init,
	.ndo_uninit		= sim_ndo_uninit,
	.ndo_start_xmit		= sim_xmit,
	.ndo_get_stats64	= dev_get_tstats64,
	.ndo_set_mac_address	= eth_mac_addr,
};

static struct platform_device *sim_pdev;
static struct net_device *sim_nicdev, *sim_wiredev;

static int sim_show(struct seq_file *f, void *v)
{
	struct sim_nic *nic = f->private;
	struct nfp_prog *np = NULL;
	struct bpf_prog *p;

	seq_printf(f, "rx %llu pass %llu drop %llu tx %llu aborted %llu insns %llu maps %u elems %u\n",
		   nic->st.rx, nic->st.pass, nic->st.drop, nic->st.tx, nic->st.aborted, nic->st.insns,
		   nic->bpf.maps_in_use, nic->bpf.map_elems_in_use);
	rtnl_lock();
	p = nic->nn.xdp_hw.prog;
	if (p && p->aux->offload)
		np = p->aux->offload->dev_priv;
	if (np)
		seq_printf(f, "program: %u NFP instructions of %u, stack %u of %u, fast adjust_head %d, max packet offset %u\n",
			   np->prog_len, max_insns, np->stack_size, stack_size,
			   np->adjust_head_location && np->adjust_head_location != UINT_MAX,
			   p->aux->max_pkt_offset);
	rtnl_unlock();
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(sim);

static struct net_device *sim_new(const char *name, const struct net_device_ops *ops, bool wire)
{
	struct net_device *dev = alloc_netdev(sizeof(struct sim_nic), name, NET_NAME_ENUM, ether_setup);
	struct sim_nic *nic;

	if (!dev)
		return NULL;
	nic = netdev_priv(dev);
	nic->wire = wire;
	dev->netdev_ops = ops;
	dev->priv_flags |= IFF_LIVE_ADDR_CHANGE | IFF_NO_QUEUE;
	dev->priv_flags &= ~IFF_TX_SKB_SHARING;
	dev->needed_headroom = 256;
	dev->max_mtu = 9216;
	eth_hw_addr_random(dev);
	spin_lock_init(&nic->engine);
	nic->nn.dp.netdev = dev;
	nic->nn.dp.dev = &sim_pdev->dev;
	return dev;
}

static int __init sim_init(void)
{
	struct sim_nic *nic;
	u8 __iomem *bar;
	int err = -ENOMEM;

	sim_ops = nfp_bpf_dev_ops;
	sim_ops.prepare = sim_prepare;
	sim_ops.destroy = sim_destroy;

	sim_pdev = platform_device_register_simple("nfpsim", -1, NULL, 0);
	if (IS_ERR(sim_pdev))
		return PTR_ERR(sim_pdev);
	dma_coerce_mask_and_coherent(&sim_pdev->dev, DMA_BIT_MASK(64));

	sim_nicdev = sim_new("nfp%d", &sim_nic_ops, false);
	sim_wiredev = sim_new("wire%d", &sim_wire_ops, true);
	if (!sim_nicdev || !sim_wiredev)
		goto err;
	nic = netdev_priv(sim_nicdev);
	nic->peer = sim_wiredev;
	((struct sim_nic *)netdev_priv(sim_wiredev))->peer = sim_nicdev;
	nic->stack = kzalloc(FRAME * 9, GFP_KERNEL);
	bar = (u8 __force __iomem *)kzalloc(NFP_NET_CFG_BAR_SZ, GFP_KERNEL);
	if (!nic->stack || !bar)
		goto err;
	nic->nn.dp.ctrl_bar = bar;
	nic->nn.app = &nic->app;
	nic->nn.app_priv = &nic->vnic;
	nic->app.priv = &nic->bpf;
	nic->bpf.app = &nic->app;
	INIT_LIST_HEAD(&nic->bpf.map_list);
	err = rhashtable_init(&nic->bpf.maps_neutral, &nfp_bpf_maps_neutral_params);
	if (err)
		goto err;
	nn_writeb(&nic->nn, NFP_NET_CFG_BPF_ABI, 3);
	nn_writeb(&nic->nn, NFP_NET_CFG_BPF_CAP, NFP_NET_BPF_CAP_RELO);
	nn_writew(&nic->nn, NFP_NET_CFG_BPF_MAX_LEN, max_insns);
	nn_writeb(&nic->nn, NFP_NET_CFG_BPF_STACK_SZ, stack_size / 64);
	nn_writeb(&nic->nn, NFP_NET_CFG_BPF_INL_MTU, 32);
	nic->vnic.start_off = 512;
	nic->vnic.tgt_done = 100;
	nic->bpf.abi_version = 3;
	nic->bpf.maps.types = 1 << BPF_MAP_TYPE_ARRAY | 1 << BPF_MAP_TYPE_HASH;
	nic->bpf.maps.max_maps = max_maps;
	nic->bpf.maps.max_elems = max_elems;
	nic->bpf.maps.max_key_sz = max_elem_sz;
	nic->bpf.maps.max_val_sz = max_elem_sz;
	nic->bpf.maps.max_elem_sz = max_elem_sz;
	nic->bpf.helpers.map_lookup = 1;
	nic->bpf.helpers.map_update = 2;
	nic->bpf.helpers.map_delete = 3;
	nic->bpf.pseudo_random = cap_random;
	nic->bpf.queue_select = cap_qsel;
	nic->bpf.adjust_tail = cap_tail;
	if (cap_head) {
		nic->bpf.adjust_head.flags = NFP_BPF_ADJUST_HEAD_NO_META;
		nic->bpf.adjust_head.off_min = 32;
		nic->bpf.adjust_head.off_max = 255;
		nic->bpf.adjust_head.guaranteed_sub = 64;
		nic->bpf.adjust_head.guaranteed_add = 64;
	}
	nic->bpf.bpf_dev = bpf_offload_dev_create(&sim_ops, &nic->bpf);
	if (IS_ERR(nic->bpf.bpf_dev)) {
		err = PTR_ERR(nic->bpf.bpf_dev);
		goto err;
	}
	err = register_netdev(sim_nicdev);
	if (err)
		goto err;
	err = register_netdev(sim_wiredev);
	if (err) {
		unregister_netdev(sim_nicdev);
		goto err;
	}
	nic->dir = debugfs_create_dir("nfpsim", NULL);
	debugfs_create_file("stats", 0400, nic->dir, nic, &sim_fops);
	return 0;
err:
	platform_device_unregister(sim_pdev);
	return err;
}

static void __exit sim_exit(void)
{
	struct sim_nic *nic = netdev_priv(sim_nicdev);

	debugfs_remove_recursive(nic->dir);
	unregister_netdev(sim_wiredev);
	unregister_netdev(sim_nicdev);
	bpf_offload_dev_destroy(nic->bpf.bpf_dev);
	rhashtable_destroy(&nic->bpf.maps_neutral);
	kfree(nic->stack);
	kfree((void __force *)nic->nn.dp.ctrl_bar);
	free_netdev(sim_wiredev);
	free_netdev(sim_nicdev);
	platform_device_unregister(sim_pdev);
}

module_init(sim_init);
module_exit(sim_exit);
MODULE_LICENSE("Dual BSD/GPL");
MODULE_DESCRIPTION("Simulated NIC behind the NFP driver's eBPF offload code");
