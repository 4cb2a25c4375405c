// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/remora-lb/remora/lb/attach"
)

// Config is what a data plane needs to know at the start.
type Config struct {
	// Instance names this data plane among those of the machine: a folder below BPFFS/remora.
	// Empty: nothing is pinned, nor is anything adopted, and the program can only be test-run.
	Instance string
	// BPFFS is the mount point of the BPF file system. Default: DefaultBPFFS.
	BPFFS string
	// Interface is where packets come in and go out.
	Interface string
	// Mode is how the program is attached. Default: the best that the driver takes.
	Mode attach.Mode
	// Flows is how many flows can be remembered, 16 bytes each; rounded up to a power of two, and
	// 4 at least. Range 1 to MaxFlows. Default: DefaultFlows.
	Flows int
	// FlowInserts is how many flows each CPU remembers anew in about a second. Range 1 to
	// MaxFlowInserts. Default: DefaultFlowInserts.
	FlowInserts int
	// UDPIdle is the pause after which a UDP flow is new, on VIPs with lb.FlowAlways; to about a
	// second. Range 1 s to MaxUDPIdle. Default: DefaultUDPIdle.
	UDPIdle time.Duration
	// Log gets changes of state. Default: nothing is logged.
	Log *slog.Logger
}

// Defaults and limits of what Config says of the flow table.
const (
	DefaultFlows = 1 << 20
	MaxFlows     = 1 << 26 // 1 GiB
	// DefaultFlowInserts is Katran's limit.
	DefaultFlowInserts = 125_000
	MaxFlowInserts     = 1 << 30
	// DefaultUDPIdle is Katran's time-out.
	DefaultUDPIdle = 30 * time.Second
	MaxUDPIdle     = 24 * time.Hour
)

func (c Config) withDefaults() Config {
	if c.BPFFS == "" {
		c.BPFFS = DefaultBPFFS
	}
	if c.Flows == 0 {
		c.Flows = DefaultFlows
	}
	if c.FlowInserts == 0 {
		c.FlowInserts = DefaultFlowInserts
	}
	if c.UDPIdle == 0 {
		c.UDPIdle = DefaultUDPIdle
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate reports every field that is out of its range; 0 stands for a default.
func (c Config) Validate() error {
	c = c.withDefaults()
	var problems []error
	if c.Flows < 1 || c.Flows > MaxFlows {
		problems = append(problems, fmt.Errorf("Flows is %d, not 1 to %d", c.Flows, MaxFlows))
	}
	if c.FlowInserts < 1 || c.FlowInserts > MaxFlowInserts {
		problems = append(problems, fmt.Errorf("FlowInserts is %d, not 1 to %d", c.FlowInserts, MaxFlowInserts))
	}
	if c.UDPIdle < time.Second || c.UDPIdle > MaxUDPIdle {
		problems = append(problems, fmt.Errorf("UDPIdle is %v, not %v to %v", c.UDPIdle, time.Second, MaxUDPIdle))
	}
	return errors.Join(problems...)
}
