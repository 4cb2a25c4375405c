// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"fmt"

	"github.com/safchain/ethtool"
)

// driver is ethtool. Its errors wrap the kernel's error number, as doctor.Machine promises.
type driver struct{ tool *ethtool.Ethtool }

// Name implements doctor.Driver.
func (d *driver) Name(iface string) (string, error) {
	name, err := d.tool.DriverName(iface)
	if err != nil {
		return "", fmt.Errorf("read driver of %s: %w", iface, err)
	}
	return name, nil
}

// Features implements doctor.Driver.
func (d *driver) Features(iface string) (map[string]bool, error) {
	features, err := d.tool.Features(iface)
	if err != nil {
		return nil, fmt.Errorf("read features of %s: %w", iface, err)
	}
	return features, nil
}

// Queues implements doctor.Driver. Cards have queues for receiving, or combined ones.
func (d *driver) Queues(iface string) (now, most int, err error) {
	c, err := d.tool.GetChannels(iface)
	if err != nil {
		return 0, 0, fmt.Errorf("read queues of %s: %w", iface, err)
	}
	return int(c.RxCount + c.CombinedCount), int(max(c.MaxRx, c.MaxCombined)), nil
}

// Ring implements doctor.Driver.
func (d *driver) Ring(iface string) (now, most int, err error) {
	r, err := d.tool.GetRing(iface)
	if err != nil {
		return 0, 0, fmt.Errorf("read receive rings of %s: %w", iface, err)
	}
	return int(r.RxPending), int(r.RxMaxPending), nil
}
