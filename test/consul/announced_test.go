// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/remora-lb/remora/lb"
	source "github.com/remora-lb/remora/lb/discovery/consul"
	"github.com/remora-lb/remora/test/consul"
	"github.com/remora-lb/remora/test/require"
)

// TestAnnouncedByOthers: balancers see in Consul which VIPs the others announce, and that they have
// ended to.
func TestAnnouncedByOthers(t *testing.T) {
	t.Parallel()
	a := startAgent(t, consul.Options{})
	registrars := make(map[string]*source.Registrar)
	announce := func(id string, vips ...lb.VIP) {
		announced := make(map[lb.VIP]bool)
		for _, v := range vips {
			announced[v] = true
		}
		registrars[id].Set(source.Report{Self: source.Finding{Health: source.Passing}, Announced: announced})
	}
	for _, id := range []string{"one", "two"} {
		r := source.DefaultRegistration()
		r.Client.Addresses, r.ID, r.Meta = []string{a.Address}, id, map[string]string{source.MetaInstance: "instance " + id}
		registrars[id] = runRegistrar(t, r)
		announce(id, webVIP, dnsVIP)
	}
	config := source.DefaultConfig()
	config.Client.Addresses, config.Watches = []string{a.Address}, []source.Watch{{Name: "fleet", Service: "remora"}}
	reader, err := source.New(config)
	require.NoError(t, err)
	var mu sync.Mutex
	var fleet source.Fleet // guarded by mu
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- reader.Run(ctx, func(u source.Update) {
			mu.Lock()
			defer mu.Unlock()
			fleet = source.Announced(u.Answer.Instances, "instance one")
		})
	}()
	defer func() { cancel(); require.NoError(t, <-done) }()
	await := func(what string, vips ...lb.VIP) {
		t.Helper()
		eventually(t, what, func() error {
			mu.Lock()
			defer mu.Unlock()
			same := len(fleet.Others) == len(vips)
			for _, v := range vips {
				same = same && fleet.Others[v]
			}
			if !fleet.Self || !same {
				return fmt.Errorf("what is seen is %+v", fleet)
			}
			return nil
		})
	}
	await("the other announces both", webVIP, dnsVIP)
	announce("two", dnsVIP)
	await("the other has withdrawn one", dnsVIP)
	announce("one")
	announce("two")
	await("the other announces nothing")
}
