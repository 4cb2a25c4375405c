// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import "github.com/prometheus/client_golang/prometheus"

// metric is a family of series. Its kind is for docs/metrics.md and follows from how it is collected.
type metric struct {
	name, help string
	kind       prometheus.ValueType
	labels     []string
	desc       *prometheus.Desc
}

// families are all metrics of a collector, in the order of docs/metrics.md.
type families struct {
	all []*metric

	buildInfo, dataPlaneReadable, attachedAt, interfaceInfo *metric

	packets, vipPackets, vipBytes, realPackets, realBytes, removedPackets, removedBytes *metric

	ringSlots, ringInfo, reals, drainingFlows, drainingActive *metric

	flowEntries, flowCapacity, flowEvents, mapEntries, mapCapacity *metric

	backends, vipFailOpen, vipServable, checks, checkDuration *metric

	nextHops, hopProbes, hopResyncs *metric

	enginePasses, engineErrors, engineChanges, engineFailing, engineSettled, engineProblems *metric
	engineLastPass, engineLastApply                                                         *metric

	watchIndex, watchChanged, watchAnswered, watchErrors, watchFailing *metric

	refusedAnswers, heldChanges, holdsEnded, holds, unusable *metric

	sessionState, sessionSince, sessionRoutes, sessionFlaps, bfdUp, nodeDrained *metric
	vipAnnounced, announceState                                                 *metric

	reloadOK, reloadAt, reloads, events, seriesDropped, readSeconds *metric
}

func newFamilies() *families {
	f := new(families)
	gauge := func(name, help string, labels ...string) *metric {
		return f.add(prometheus.GaugeValue, name, help, labels)
	}
	counter := func(name, help string, labels ...string) *metric {
		return f.add(prometheus.CounterValue, name, help, labels)
	}
	f.addDataPlane(gauge, counter)
	f.addControl(gauge, counter)
	return f
}

// maker makes a family of one kind.
type maker func(name, help string, labels ...string) *metric

func (f *families) add(kind prometheus.ValueType, name, help string, labels []string) *metric {
	m := &metric{name: "remora_" + name, help: help, kind: kind, labels: labels}
	m.desc = prometheus.NewDesc(m.name, help, labels, nil)
	f.all = append(f.all, m)
	return m
}

// addDataPlane makes the families of what the maps hold.
func (f *families) addDataPlane(gauge, counter maker) {
	f.buildInfo = gauge("build_info", "The program; the value is 1.", "version", "goversion")
	f.dataPlaneReadable = gauge("dataplane_readable", "1 if the pinned maps could be read at this scrape.")
	f.attachedAt = gauge("attached_timestamp_seconds", "When the packet program was attached.")
	f.interfaceInfo = gauge("interface_info", "Where the packet program is attached, in which mode, and why in no better one; the value is 1.", "interface", "mode", "reason")

	f.packets = counter("packets_total", "Packets by what became of them (docs/packet-path.md).", "reason", "verdict")
	f.vipPackets = counter("vip_packets_total", "Packets sent to the reals of the VIP since the daemon's start.", "service", "vip")
	f.vipBytes = counter("vip_bytes_total", "Bytes of clients' IP packets sent to the reals of the VIP since the daemon's start.", "service", "vip")
	f.realPackets = counter("real_packets_total", "Packets sent to the real since it came.", "service", "vip", "real")
	f.realBytes = counter("real_bytes_total", "Bytes of clients' IP packets sent to the real since it came.", "service", "vip", "real")
	f.removedPackets = counter("removed_real_packets_total", "Packets sent to reals that are gone.")
	f.removedBytes = counter("removed_real_bytes_total", "Bytes of clients' IP packets sent to reals that are gone.")

	f.ringSlots = gauge("ring_slots", "Slots of the VIP's ring by state.", "service", "vip", "state")
	f.ringInfo = gauge("ring_info", "The VIP's ring. The digest is the same on every balancer with the same backends; the value is 1.", "service", "vip", "digest", "hash", "size")
	f.reals = gauge("reals", "Reals of the VIP by which packets they may get.", "service", "vip", "use")
	f.drainingFlows = gauge("draining_real_flows", "Remembered flows of a draining real.", "service", "vip", "real")
	f.drainingActive = gauge("draining_real_active_flows", "Remembered flows of a draining real that had a packet within the last minute.", "service", "vip", "real")

	f.flowEntries = gauge("flow_table_entries", "Remembered flows.")
	f.flowCapacity = gauge("flow_table_capacity", "Flows that can be remembered.")
	f.flowEvents = counter("flow_events_total", "What happened at the flow table.", "event")
	f.mapEntries = gauge("map_entries", "Entries of a map that are in use.", "map")
	f.mapCapacity = gauge("map_capacity", "Entries that a map has room for. All but that of flows grow.", "map")

	f.backends = gauge("backends", "Backends of the VIP by what health checks say.", "service", "vip", "health")
	f.vipFailOpen = gauge("vip_fail_open", "1 if the checks of the VIP's backends are not believed, since too few are healthy.", "service", "vip")
	f.vipServable = gauge("vip_servable", "1 if enough backends of the VIP are healthy.", "service", "vip")
}

// addControl makes the families of what the daemon does.
func (f *families) addControl(gauge, counter maker) {
	f.checks = counter("health_checks_total", "Health checks by result.", "result")
	f.checkDuration = f.add(prometheus.UntypedValue, "health_check_duration_seconds", "Durations of the health checks that had a result.", nil)

	f.nextHops = gauge("next_hops", "Addresses that packets are sent to, by what is known of their next hop.", "state")
	f.hopProbes = counter("next_hop_probes_total", "Attempts to have a neighbour resolved or confirmed.")
	f.hopResyncs = counter("next_hop_resyncs_total", "Full reads of the kernel's neighbours because notifications were lost.")

	f.enginePasses = counter("engine_passes_total", "Passes that compared what is wanted with the data plane.")
	f.engineErrors = counter("engine_pass_errors_total", "Passes that failed; they are made again.")
	f.engineChanges = counter("engine_changes_total", "Passes that changed the data plane and succeeded.")
	f.engineFailing = gauge("engine_failing", "1 if the last pass failed: the data plane is not as wanted.")
	f.engineSettled = gauge("engine_settled", "0 while what an earlier daemon left is held because a source has not reported.")
	f.engineProblems = gauge("engine_problems", "Contradictions in the inputs, because of which something was left out.")
	f.engineLastPass = gauge("engine_last_pass_timestamp_seconds", "When the last pass ended; 0 if none has.")
	f.engineLastApply = gauge("engine_last_apply_timestamp_seconds", "When the data plane was last found or made as wanted; 0 if never.")

	f.watchIndex = gauge("consul_watch_index", "Consul's index of the last answer.", "kind", "watch")
	f.watchChanged = gauge("consul_watch_changed_timestamp_seconds", "When the index changed last; 0 if there was no answer.", "kind", "watch")
	f.watchAnswered = gauge("consul_watch_answered_timestamp_seconds", "When the last whole answer came; 0 if none has.", "kind", "watch")
	f.watchErrors = counter("consul_watch_errors_total", "Queries without a whole answer.", "kind", "watch")
	f.watchFailing = gauge("consul_watch_failing", "1 if the last query had no whole answer.", "kind", "watch")

	f.refusedAnswers = counter("governor_refused_answers_total", "Answers of dynamic sources that were refused, by rule.", "rule")
	f.heldChanges = counter("governor_held_changes_total", "Changes of dynamic sources that were held back, by rule.", "rule")
	f.holdsEnded = counter("governor_holds_ended_total", "Holds that ended, by outcome.", "outcome")
	f.holds = gauge("governor_holds", "Answers that are refused and changes that are held back now, by rule.", "rule")
	f.unusable = gauge("governor_unusable", "Things that dynamic sources say now and that cannot be used.")

	f.sessionState = gauge("bgp_session_state", "1 for the state that the session with the router has, 0 for the others.", "peer", "asn", "state")
	f.sessionSince = gauge("bgp_session_since_timestamp_seconds", "When the session was established; else since when it is not.", "peer", "asn")
	f.sessionRoutes = gauge("bgp_session_routes", "Routes that the router is sent.", "peer", "asn")
	f.sessionFlaps = counter("bgp_session_flaps_total", "How often an established session was lost.", "peer", "asn")
	f.bfdUp = gauge("bgp_session_bfd_up", "1 if the BFD session with the router is up; absent if there is none.", "peer", "asn")
	f.nodeDrained = gauge("bgp_node_drained", "1 if the balancer is taken out.")
	f.vipAnnounced = gauge("vip_announced", "1 if a prefix that holds the VIP is announced.", "vip")
	f.announceState = gauge("vip_announce_state", "How the VIP stands and why (docs/bgp.md); the value is 1.", "vip", "state", "code")

	f.reloadOK = gauge("config_last_reload_successful", "0 if the last reading of the configuration file failed: an earlier one is in force.")
	f.reloadAt = gauge("config_last_reload_success_timestamp_seconds", "When the configuration was last read with success.")
	f.reloads = counter("config_reloads_total", "Reloads of the configuration file by result.", "result")
	f.events = counter("events_total", "Changes of state by kind (remora events).", "kind")
	f.seriesDropped = gauge("metrics_series_dropped", "Series that were left out at this scrape because there would be more than metrics.max_series.")
	f.readSeconds = gauge("metrics_read_seconds", "How long it took to read the daemon's state for this scrape.")
}
