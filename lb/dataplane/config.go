// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/attach"
	"github.com/remora-lb/remora/lb/event"
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
	// Decap says which tunnelled packets are decapsulated here. Default: none.
	Decap lb.Decap
	// QUICLB is the form of connection ids on VIPs with lb.ConnectionIDsQUICLB. The zero value: none is
	// read.
	QUICLB lb.QUICLB
	// AnswerLimit is how many echo requests and packets that are too big each CPU answers in about a
	// second. Range 1 to AnswersUnlimited. Default: DefaultAnswerLimit.
	AnswerLimit int
	// Log gets what should not be, and steps. Default: nothing is logged.
	Log *slog.Logger
	// Events gets changes of what is attached. Default: they are written to Log.
	Events event.Sink

	faults faults
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
	// DefaultAnswerLimit is far above what path MTU discovery and monitoring need.
	DefaultAnswerLimit = 1000
	// AnswersUnlimited is more than a CPU can answer.
	AnswersUnlimited = 1<<31 - 1
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
	if c.AnswerLimit == 0 {
		c.AnswerLimit = DefaultAnswerLimit
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Events == nil {
		c.Events = event.ToLog(c.Log)
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
	if c.AnswerLimit < 1 || c.AnswerLimit > AnswersUnlimited {
		problems = append(problems, fmt.Errorf("AnswerLimit is %d, not 1 to %d", c.AnswerLimit, AnswersUnlimited))
	}
	return errors.Join(append(problems, checkDecap(c.Decap), checkQUICLB(c.QUICLB))...)
}

func checkDecap(d lb.Decap) error {
	var problems []error
	if d.Others > lb.DecapHost {
		problems = append(problems, fmt.Errorf("Decap.Others is %v", d.Others))
	}
	for addr, action := range d.Destinations {
		if !addr.IsValid() || addr.Is4In6() || addr.Zone() != "" {
			problems = append(problems, fmt.Errorf("Decap.Destinations has %q, which is no address of a packet", addr))
		}
		if action > lb.DecapHost {
			problems = append(problems, fmt.Errorf("Decap.Destinations[%s] is %v", addr, action))
		}
	}
	return errors.Join(problems...)
}

func checkQUICLB(q lb.QUICLB) error {
	if q == (lb.QUICLB{}) {
		return nil
	}
	var problems []error
	if q.ConfigID > 6 {
		problems = append(problems, fmt.Errorf("QUICLB.ConfigID is %d, not 0 to 6", q.ConfigID))
	}
	if q.ServerIDBytes < 1 || q.ServerIDBytes > 4 {
		problems = append(problems, fmt.Errorf("QUICLB.ServerIDBytes is %d, not 1 to 4", q.ServerIDBytes))
	}
	return errors.Join(problems...)
}
