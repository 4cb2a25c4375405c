// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package config

// document is the file as it was written: fields of the right type, each with its place, nothing
// filled in and nothing checked. What the file does not have is zero.
type document struct {
	place
	iface    field[string]
	mode     field[string]
	onExit   field[string]
	encap    encapSection
	nextHop  nextHopSection
	flows    flowsSection
	table    flowTableSection
	consul   consulSection
	governor governorSection
	bgp      bgpSection
	probes   probesSection
	metrics  metricsSection
	services list[serviceSection]
	routes   list[sourceRouteSection]
	decap    decapSection
	quicLB   quicLBSection
	icmp     icmpSection
}

// field is a scalar.
type field[T any] struct {
	place
	// text is the value as written.
	text  string
	value T
	// given tells that the file has the field; ok that its value is of the right type. What is
	// given and not ok has been reported.
	given, ok bool
}

// list is a list of sections; given and ok as in field.
type list[T any] struct {
	place
	given, ok bool
	items     []T
}

type encapSection struct {
	place
	given bool
	kind  field[string]
	ipip  ipipSection
	gue   gueSection
}

type ipipSection struct {
	place
	given            bool
	source4, source6 field[string]
}

type gueSection struct {
	place
	given            bool
	source4, source6 field[string]
	port             field[int64]
	checksum         field[string]
}

type nextHopSection struct {
	place
	given bool
	mac   field[string]
	mtu   field[int64]
}

type flowsSection struct {
	place
	given                          bool
	tcp, udp, drain, onDown, grace field[string]
}

type flowTableSection struct {
	place
	given            bool
	window, udpIdle  field[string]
	size, newPerTick field[int64]
}

type serviceSection struct {
	place
	// ok tells that it is a mapping; anything else has been reported.
	ok       bool
	name     field[string]
	vips     list[vipSection]
	ring     ringSection
	encap    field[string]
	flows    flowsSection
	options  optionsSection
	backends list[backendSection]
	source   sourceSection
	health   healthSection
}

type ringSection struct {
	place
	given bool
	size  field[int64]
	hash  field[string]
}

// vipSection is a VIP, written as text or as a mapping; ok as in serviceSection.
type vipSection struct {
	place
	ok      bool
	vip     field[string]
	ring    ringSection
	encap   field[string]
	flows   flowsSection
	options optionsSection
}

// backendSection is a backend, written as text or as a mapping; ok as in serviceSection.
type backendSection struct {
	place
	ok               bool
	addr             field[string]
	weight, serverID field[int64]
	local            field[bool]
}
