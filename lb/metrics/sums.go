// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import "github.com/remora-lb/remora/lb"

// sums counts VIPs, and backends of VIPs, by what their reals count. The sum over the reals that are there
// would fall when one goes, and Prometheus would take that for a restart, and all that is left for new.
// What a real gets between the last scrape and its end is not counted.
type sums struct {
	started  bool
	vips     map[lb.VIP]Traffic
	backends map[lb.Target]Traffic
	reals    map[realKey]Traffic // as they were at the last scrape
}

// realKey tells the holders of an id apart.
type realKey struct {
	id         lb.RealID
	generation uint8
	target     lb.Target
}

func newSums() *sums {
	return &sums{}
}

// update adds what the reals got since the last update. The first finds where counting of VIPs begins;
// that of backends begins with what their reals have by then. VIPs and backends that are gone are forgotten.
func (s *sums) update(vips []VIP) {
	next := &sums{
		started: true, vips: make(map[lb.VIP]Traffic, len(vips)),
		backends: make(map[lb.Target]Traffic, len(s.backends)), reals: make(map[realKey]Traffic, len(s.reals)),
	}
	for _, v := range vips {
		sum := s.vips[v.VIP]
		for _, r := range v.Reals {
			target := lb.Target{VIP: v.VIP, Backend: r.Backend.Addr}
			key := realKey{r.ID, r.Generation, target}
			if s.started {
				sum.add(r.Traffic, s.reals[key])
			}
			backend, there := next.backends[target]
			if !there {
				backend = s.backends[target]
			}
			backend.add(r.Traffic, s.reals[key])
			next.backends[target], next.reals[key] = backend, r.Traffic
		}
		next.vips[v.VIP] = sum
	}
	*s = *next
}

// add adds what was counted since before. A counter that fell began anew.
func (t *Traffic) add(now, before Traffic) {
	if now.Packets < before.Packets || now.Bytes < before.Bytes {
		before = Traffic{}
	}
	t.Packets += now.Packets - before.Packets
	t.Bytes += now.Bytes - before.Bytes
}
