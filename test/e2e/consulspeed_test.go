// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/hashicorp/consul/api"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/dataplane"
	"github.com/remora-lb/remora/test/require"
	"github.com/remora-lb/remora/test/rig"
)

const (
	// speedInstances is the number of instances of the service; speedChanges, of the changes that are
	// measured unless speedVariable says another.
	speedInstances = 1000
	speedChanges   = 20
	speedVariable  = "REMORA_SPEED_CHANGES"
	// speedLimit is far more than a change may take: the machine may be busy.
	speedLimit = 10 * time.Second
)

// TestConsulSpeed measures the time from Consul's answer until packets meet the new ring, by the whole
// daemon, for a service with 1000 instances of which one goes and comes. For figures:
//
//	REMORA_SPEED_CHANGES=300 go test -count=1 -v -run TestConsulSpeed ./test/e2e
func TestConsulSpeed(t *testing.T) {
	changes := speedChanges
	if text := os.Getenv(speedVariable); text != "" {
		var err error
		changes, err = strconv.Atoi(text)
		require.NoError(t, err)
	}
	b := newConsulBed(t, rig.Config{Servers: 1})
	s := b.startStandIn(t)
	all := manyEntries(b.Servers[0])
	require.NoError(t, s.Set("web", all...))
	b.write(t, generous)
	b.writeText(t, strings.Replace(b.text(t), fmt.Sprintf(", \"[%s]:80/tcp\"", vip6()), "", 1)) // one ring
	b.launchDaemon(t)
	waitFor(t, "all instances", func() error {
		s, err := dataplane.ReadSnapshot(dataplane.DefaultBPFFS, b.remora.Instance)
		if err == nil && len(s.Reals) != len(all) {
			err = fmt.Errorf("there are %d reals", len(s.Reals))
		}
		return errors.Join(err, b.daemon.Running())
	})
	slot, owner := b.firstSlot(t)
	without := slices.DeleteFunc(slices.Clone(all), func(e *api.ServiceEntry) bool { return e.Node.Address == owner })
	have := slot()
	var took []time.Duration
	for i := range changes {
		list := all
		if i%2 == 0 {
			list = without
		}
		asked := len(s.Requests("web"))
		require.NoError(t, s.Set("web", list...))
		begin := time.Now()
		for slot() == have {
			if time.Since(begin) > speedLimit {
				t.Fatalf("change %d has not reached the ring after %v", i, speedLimit)
			}
			time.Sleep(50 * time.Microsecond) // so as not to take a processor from the daemon
		}
		took = append(took, time.Since(begin))
		have = slot()
		waitFor(t, "the next query", func() error {
			if len(s.Requests("web")) == asked {
				return fmt.Errorf("there were %d", asked)
			}
			return nil
		})
	}
	slices.Sort(took)
	t.Logf("%d changes of a service with %d instances, from the answer to the ring: p50 %v, p99 %v, longest %v",
		len(took), speedInstances, took[len(took)/2], took[(len(took)-1)*99/100], took[len(took)-1])
}

// manyEntries are instances on many nodes.
func manyEntries(n *rig.Node) (list []*api.ServiceEntry) {
	for i := range speedInstances {
		e := entry(n)
		e.Node = &api.Node{Node: fmt.Sprintf("node-%d", i), Address: fmt.Sprintf("10.30.%d.%d", 1+i/250, 1+i%250)}
		list = append(list, e)
	}
	return list
}

// firstSlot reads the real of the first slot of the only ring, over and over, and says whose it is.
func (b *consulBed) firstSlot(t *testing.T) (read func() lb.RealID, owner string) {
	t.Helper()
	rings, err := ebpf.LoadPinnedMap(filepath.Join(b.remora.PinDir(), "maps", "rings"), nil)
	require.NoError(t, err)
	t.Cleanup(func() { rings.Close() })
	memory, err := rings.Memory()
	require.NoError(t, err)
	at := 8 * int64(b.ringStart(t))
	read = func() lb.RealID {
		var word [8]byte
		if _, err := memory.ReadAt(word[:], at); err != nil {
			t.Fatal(err)
		}
		return lb.Slot(binary.NativeEndian.Uint64(word[:])).Cur()
	}
	snapshot, err := dataplane.ReadSnapshot(dataplane.DefaultBPFFS, b.remora.Instance)
	require.NoError(t, err)
	for _, r := range snapshot.Reals {
		if r.ID == read() {
			return read, r.Backend.Addr.String()
		}
	}
	t.Fatalf("no real has the id %d of the first slot", read())
	return nil, ""
}

// ringStart is the index of the first slot of the only ring.
func (b *consulBed) ringStart(t *testing.T) uint32 {
	t.Helper()
	infos, err := ebpf.LoadPinnedMap(filepath.Join(b.remora.PinDir(), "maps", "vip_infos"), nil)
	require.NoError(t, err)
	defer infos.Close()
	var key uint32
	var info vipInfo
	entries := infos.Iterate()
	for entries.Next(&key, &info) {
		if info.Slots > 0 {
			return info.RingFirst
		}
	}
	t.Fatalf("no VIP has a ring: %v", entries.Err())
	return 0
}
