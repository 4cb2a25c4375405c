// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package decap

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/attach"
)

// DefaultGUEPort is the UDP destination port of GUE unless configured, as on the balancers.
const DefaultGUEPort = 6080

// maxAddrs bounds each table. A server has a few tunnel addresses and at most some thousand VIPs.
const maxAddrs = 1 << 16

// Config says what is decapsulated, and where.
type Config struct {
	// Interface is the name of the network interface that tunnelled frames arrive on.
	Interface string
	// TunnelAddrs are the outer destinations to accept: the server's addresses as the balancers
	// know them. At least one.
	TunnelAddrs []netip.Addr
	// VIPs are the inner destinations to accept. None means all.
	VIPs []netip.Addr
	// GUEPort is the outer UDP destination port of GUE. 0 means DefaultGUEPort.
	GUEPort uint16
	// Mode is where in the kernel the program runs.
	Mode attach.Mode
	// Log gets what an operator should know: why native mode was not used, and the like. Nil
	// means nowhere.
	Log *slog.Logger
}

// Validate reports all problems of the configuration, each with the name of its field.
func (c Config) Validate() error {
	var errs []error
	if c.Interface == "" {
		errs = append(errs, errors.New("Interface: empty: name the network interface that tunnelled packets arrive on"))
	}
	if len(c.TunnelAddrs) == 0 {
		errs = append(errs, errors.New("TunnelAddrs: empty: name at least one address that the balancers send to"))
	}
	errs = append(errs, checkAddrs("TunnelAddrs", c.TunnelAddrs), checkAddrs("VIPs", c.VIPs))
	if c.Mode > attach.Generic {
		errs = append(errs, fmt.Errorf("Mode: %d is not auto, native or generic", c.Mode))
	}
	return errors.Join(errs...)
}

// checkAddrs refuses what no packet on the wire is addressed to, by the vocabulary's own rule.
func checkAddrs(field string, addrs []netip.Addr) error {
	if len(addrs) > maxAddrs {
		return fmt.Errorf("%s: %d addresses, at most %d fit", field, len(addrs), maxAddrs)
	}
	var errs []error
	for i, a := range addrs {
		if _, err := lb.ParseBackendAddr(a.String()); err != nil {
			errs = append(errs, fmt.Errorf("%s[%d]: %v", field, i, err))
		}
	}
	return errors.Join(errs...)
}

// withDefaults fills in what may be left out.
func (c Config) withDefaults() Config {
	if c.GUEPort == 0 {
		c.GUEPort = DefaultGUEPort
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}
