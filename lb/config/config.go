// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package config reads the configuration file, one YAML document, into plain structs. It is
// strict: what it does not know it refuses, and it reports all mistakes of a file in one run, each
// with its line, field path, and what was expected.
//
// The way of a file: tree.go makes a tree of it, decode.go a document of typed fields that know
// their places, validate.go the Config. Only validate.go knows what values mean.
package config

import (
	"fmt"
	"os"

	"github.com/remora-lb/remora/lb"
)

// Config is a valid configuration, defaults filled in.
type Config struct {
	// Interface is where packets come in and go out. Required; 1 to 15 bytes.
	Interface string
	// Mode is how the packet program attaches. Default ModeAuto.
	Mode Mode
	// OnExit is what a stopping daemon leaves behind. Default OnExitKeep.
	OnExit OnExit
	// NextHop, if not nil, is the next hop of all reals, in place of routes and neighbours. Its MAC
	// is neither zero nor a group address; its MTU is 576 to 65535 bytes, or 0 for that of the
	// interface, the default; its Problem is empty. Default nil.
	NextHop *lb.NextHop
	// Table is how flows are remembered. Default DefaultFlowTable.
	Table FlowTable
	// Consul is how Consul is reached and what is read from it. Default DefaultConsul.
	Consul Consul
	// Governor is how much of what Consul says is done at once. Default DefaultGovernor.
	Governor Governor
	// BGP says to whom VIPs are announced, and how. Default nil: to nobody.
	BGP *BGP
	// Services have unique names and at least one VIP each; no VIP is in two. Ring, encapsulation
	// and tunnel sources of every VIP are filled in. A VIP with GUE has the source address of each
	// family that its service's backends have.
	Services []lb.Service
	// Backends has the backends of every service by its name, also of those that have none, in
	// the file's order. No address is there twice in one service, and none is a VIP's.
	Backends map[string][]lb.Backend
	// Sources are where the backends of services come from that have none in the file, by service name.
	Sources map[string]ConsulSource
	// ProbeMarks is the first mark of health checks that go through the tunnel; the lower 24 bits are 0.
	// Default DefaultProbeMarks.
	ProbeMarks uint32
	// Metrics is where metrics are served. Default DefaultMetrics: nowhere.
	Metrics Metrics
	// SourceRoutes lead clients to backends, on VIPs that have them; ReadSourceRoutes reads their files.
	SourceRoutes []SourceRoutes
	// Decap is what is decapsulated inline. Default: nothing.
	Decap lb.Decap
	// QUICLB is the form of connection ids of VIPs with lb.ConnectionIDsQUICLB.
	QUICLB lb.QUICLB
	// AnswersPerSecond is how many echo requests and packets that are too big each CPU answers in a
	// second. 1 to 1<<30; default DefaultAnswersPerSecond.
	AnswersPerSecond int
	// Health is how the backends of services are checked, by service name; those that are not here are
	// not.
	Health map[string]Health

	// doc is the file as it was written, for definitions.
	doc *document
}

// Mode is how the packet program attaches to the interface.
type Mode string

// The modes.
const (
	// ModeAuto takes the best mode that attaches.
	ModeAuto Mode = "auto"
	// ModeNative runs the program in the network driver.
	ModeNative Mode = "native"
	// ModeGeneric runs the program in the network stack: slower, with any driver.
	ModeGeneric Mode = "generic"
)

// OnExit is what a stopping daemon leaves behind.
type OnExit string

// What a daemon can leave behind.
const (
	// OnExitKeep leaves the program attached: packets are forwarded without the daemon.
	OnExitKeep OnExit = "keep"
	// OnExitDetach takes the program off the interface.
	OnExitDetach OnExit = "detach"
)

// Load reads the file at path as Parse does. The error is Problems, or, if the file cannot be
// read, wraps the one of os.ReadFile.
func Load(path string) (*Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(path, data)
}

// Parse reads a configuration. The name stands for the file in the error, which is always
// Problems. There is either a Config or an error, never a part of each.
func Parse(name string, data []byte) (*Config, error) {
	r := &report{file: name}
	var c *Config
	if root := parseTree(data, r); root != nil {
		if doc, ok := decode(root, len(data), r); ok {
			c = validate(doc, r)
		}
	}
	if len(r.problems) > 0 {
		return nil, r.sorted()
	}
	return c, nil
}
