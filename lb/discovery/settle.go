// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"context"
	"time"

	"github.com/remora-lb/remora/lb/governor"
)

// settleTime is how long a start that does not stay waits for Consul.
const settleTime = 10 * time.Second

// Settle reads until every service of the file has been answered for, or some time has passed: for a
// start that does not stay. It is called in place of Run.
func (d *Discovery) Settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-look.C:
			if d.State().Complete {
				cancel()
			}
		}
	}
}

// complete tells whether the latest answer about every service of the file was whole, and the folder of
// definitions has been read.
func (d *Discovery) complete() bool {
	whole := 0
	for _, s := range d.governor.Services() {
		if _, ok := d.cfg.Sources[s.Service]; ok && s.Known && s.Refused == governor.RuleNone {
			whole++
		}
	}
	return whole == len(d.cfg.Sources) && (d.definitionsHeard || d.file.Consul.Definitions == nil)
}
