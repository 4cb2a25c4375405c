// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bfd

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Limits and defaults of Config.
const (
	DefaultInterval   = 300 * time.Millisecond
	DefaultMultiplier = 3
	MinInterval       = 10 * time.Millisecond
	MaxInterval       = 60 * time.Second
)

// Config is what a session needs to know.
type Config struct {
	// Local and Remote are the addresses of the two ends, of one family, on one link.
	Local, Remote netip.Addr
	// Interval is how often packets are sent and how often they can be received; the slower of
	// both ends counts. 10 ms to 60 s. 0 stands for 300 ms.
	Interval time.Duration
	// Multiplier is how many intervals may pass without a packet before the peer counts as gone.
	// 1 to 255. 0 stands for 3.
	Multiplier uint8
	// OnChange is told about each change of state, from the session's own goroutine. expired
	// tells that the detection time passed: only then is it this end that noticed. Default:
	// nobody is told.
	OnChange func(s State, expired bool)
}

// Validate reports all problems of the configuration, each with the name of its field.
func (c Config) Validate() error {
	var errs []error
	for _, a := range []struct {
		field string
		addr  netip.Addr
	}{{"Local", c.Local}, {"Remote", c.Remote}} {
		if !a.addr.IsValid() || a.addr.IsUnspecified() || a.addr.Is4In6() || a.addr.Zone() != "" {
			errs = append(errs, fmt.Errorf("%s: %v is not an IPv4 or IPv6 address without a zone", a.field, a.addr))
		}
	}
	if c.Local.Is4() != c.Remote.Is4() {
		errs = append(errs, errors.New("Local: is of another family than Remote"))
	}
	return errors.Join(append(errs, CheckInterval(c.Interval))...)
}

// CheckInterval returns an error unless Config takes the interval.
func CheckInterval(d time.Duration) error {
	if d != 0 && (d < MinInterval || d > MaxInterval) {
		return fmt.Errorf("Interval: %v is not between %v and %v", d, MinInterval, MaxInterval)
	}
	return nil
}

func (c Config) withDefaults() Config {
	if c.Interval == 0 {
		c.Interval = DefaultInterval
	}
	if c.Multiplier == 0 {
		c.Multiplier = DefaultMultiplier
	}
	if c.OnChange == nil {
		c.OnChange = func(State, bool) {}
	}
	return c
}
