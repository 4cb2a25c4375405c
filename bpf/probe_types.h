// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What probe.bpf.c shares with Go (lb/probetunnel), beside the record of a real in types.h. */
#pragma once

/*
 * What became of a packet with a mark of the range. All but the first are dropped: without its
 * tunnel a probe would go to whichever server a balancer picks.
 */
enum probe_outcome {
	PROBE_WRAPPED,
	PROBE_NOT_IP,
	PROBE_NO_REAL,	  /* the mark names none */
	PROBE_NO_NEXTHOP, /* its link address is not known */
	PROBE_TOO_BIG,	  /* longer than the way to the real takes */
	PROBE_NO_ROOM,	  /* the kernel had no room for the outer headers */
	PROBE_OUTCOME_LEN,
};
