// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/remora-lb/remora/lb"
)

// TestServicesAndBackendsChangeTogether: a service that changes its name is never without backends,
// which a pass between the two halves of the change would make it.
func TestServicesAndBackendsChangeTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t, nil, nil).run(t)
		b.SetServicesAndBackends([]lb.Service{service(t, "web", vip1)}, "file", backends("10.0.0.1"))
		b.SetNextHops(resolved("10.0.0.1"))
		synctest.Wait()
		b.dp.TakeCalls()

		renamed := map[string][]lb.Backend{"shop": backends("10.0.0.1")["web"]}
		b.SetServicesAndBackends([]lb.Service{service(t, "shop", vip1)}, "file", renamed)
		synctest.Wait()
		// Neither the ring nor the real changes.
		b.expectCalls(t, "SetVIPs 1")
		b.expectDump(t, `
			real 192.0.2.10:80/tcp 1=10.0.0.1 weight=1 ipip from=172.16.0.0/16 port=0 hop=020000000001 mtu 1500
			vip 192.0.2.10:80/tcp service=shop ring=0 maglev-v2/7: 1=10.0.0.1:7`)

		mine := []lb.Service{service(t, "shop", vip1)}
		b.SetServicesAndBackends(mine, "file", renamed)
		mine[0].Name, renamed["shop"][0].Weight = "changed", 9
		synctest.Wait()
		b.expectCalls(t)
	})
}

// TestLearnedNextHops: addresses that are about to be needed come before the change that needs
// them, and take nothing from those that are in use.
func TestLearnedNextHops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t, nil, nil).run(t)
		b.SetServicesAndBackends([]lb.Service{service(t, "web", vip1)}, "file", backends("10.0.0.1"))
		b.SetNextHops(resolved("10.0.0.1"))
		synctest.Wait()
		b.dp.TakeCalls()

		learned := resolved("10.0.0.2")
		// Whoever looked may have seen less than the watcher has, which would not tell again.
		learned[netip.MustParseAddr("10.0.0.1")] = lb.NextHop{Problem: "not asked in time"}
		b.LearnNextHops(learned)
		synctest.Wait()
		b.expectCalls(t)

		b.SetServicesAndBackends([]lb.Service{service(t, "web", vip1)}, "file", backends("10.0.0.2"))
		synctest.Wait()
		if calls := b.dp.TakeCalls(); slices.Contains(calls, "SetReals 1") {
			t.Errorf("the real that goes was changed first: %v", calls)
		}
		b.expectDump(t, `
			real 192.0.2.10:80/tcp 2=10.0.0.2 weight=1 ipip from=172.16.0.0/16 port=0 hop=020000000001 mtu 1500
			vip 192.0.2.10:80/tcp service=web ring=0 maglev-v2/7: 2=10.0.0.2:7`)

		b.SetNextHops(map[netip.Addr]lb.NextHop{}) // whole again: nothing is resolved
		synctest.Wait()
		b.expectCalls(t, "SetReals 2")
	})
}

func TestLearnNextHopsFirst(t *testing.T) {
	b := newFixture(t, nil, nil)
	b.LearnNextHops(resolved("10.0.0.1"))
	b.SetServicesAndBackends([]lb.Service{service(t, "web", vip1)}, "file", backends("10.0.0.1"))
	if err := b.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.expectDump(t, `
		real 192.0.2.10:80/tcp 1=10.0.0.1 weight=1 ipip from=172.16.0.0/16 port=0 hop=020000000001 mtu 1500
		vip 192.0.2.10:80/tcp service=web ring=0 maglev-v2/7: 1=10.0.0.1:7`)
}
