// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package probetunnel

import (
	"errors"
	"fmt"

	"github.com/remora-lb/remora/lb"
)

// DefaultMarkBase is the default of Config.MarkBase.
const DefaultMarkBase uint32 = 0x72000000

// idMask is PROBE_ID_MASK of bpf/probe.bpf.c.
const idMask = uint32(lb.MaxRealID)

// Config says where probes are wrapped, and which packets are probes.
type Config struct {
	// Interface is the name of the network interface that probes leave by. Required.
	Interface string
	// MarkBase is the upper 8 bits of the marks of probes, 0x01000000 to 0xff000000; the lower 24 are
	// a real's id. All packets with such a mark are probes. Default: DefaultMarkBase.
	MarkBase uint32
}

// Validate reports all problems, each with the name of its field.
func (c Config) Validate() error {
	var errs []error
	if c.Interface == "" {
		errs = append(errs, errors.New("Interface: is empty"))
	}
	if c.MarkBase&idMask != 0 {
		errs = append(errs, fmt.Errorf("MarkBase: the lower 24 bits of %#08x are not 0", c.MarkBase))
	}
	return errors.Join(errs...)
}

// withDefaults fills in what may be left out.
func (c Config) withDefaults() Config {
	if c.MarkBase == 0 {
		c.MarkBase = DefaultMarkBase
	}
	return c
}

// Mark is the mark of packets to a real.
func (c Config) Mark(id lb.RealID) uint32 { return c.withDefaults().MarkBase | uint32(id)&idMask }
