// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"math"
	"net/netip"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// As in bpf/sink.bpf.c.
const (
	sinkFlows      = 1 << 18
	latencySubBits = 3
	latencyBuckets = 320
)

const (
	tallyReceived = iota
	tallyPlain
	tallyDisordered
	tallyUncounted
	tallyLen
)

// sink is where traffic ends. One goroutine uses it; close it.
type sink struct {
	coll  *ebpf.Collection
	flows *ebpf.Memory
	empty []byte
}

// sinkState is what a sink has counted since the load.
type sinkState struct {
	tallies   [tallyLen]uint64
	latencies [latencyBuckets]uint64
	servers   map[netip.Addr]uint64 // packets
}

func openSink() (*sink, error) {
	spec, err := loadSink()
	if err != nil {
		return nil, fmt.Errorf("load sink: %w", err)
	}
	if err := spec.Variables["day_offset_ns"].Set(dayOffset()); err != nil {
		return nil, fmt.Errorf("load sink: %w", err)
	}
	s := &sink{empty: make([]byte, sinkFlows*8)}
	if s.coll, err = ebpf.NewCollection(spec); err != nil {
		return nil, fmt.Errorf("load sink: %w", err)
	}
	if s.flows, err = s.coll.Maps["flows"].Memory(); err != nil {
		s.close()
		return nil, fmt.Errorf("map flows of sink: %w", err)
	}
	return s, nil
}

// dayOffset is the time of day less the monotonic clock, in ns.
func dayOffset() uint64 {
	var day, mono unix.Timespec
	if unix.ClockGettime(unix.CLOCK_REALTIME, &day) != nil || unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono) != nil {
		return 0
	}
	return uint64(day.Nano() - mono.Nano())
}

func (s *sink) program() *ebpf.Program { return s.coll.Programs["sink"] }

func (s *sink) close() { s.coll.Close() }

// forget makes the sink begin anew with the order of packets: pktgen counts from 1 in each run.
func (s *sink) forget() error {
	if _, err := s.flows.WriteAt(s.empty, 0); err != nil {
		return fmt.Errorf("clear flows of sink: %w", err)
	}
	return nil
}

// received is how many packets have come.
func (s *sink) received() (uint64, error) { return sumOfCPUs(s.coll.Maps["tallies"], tallyReceived) }

func sumOfCPUs(m *ebpf.Map, key uint32) (sum uint64, err error) {
	var byCPU []uint64
	if err := m.Lookup(key, &byCPU); err != nil {
		return 0, fmt.Errorf("read sink: %w", err)
	}
	for _, n := range byCPU {
		sum += n
	}
	return sum, nil
}

func (s *sink) read() (state sinkState, err error) {
	for i := range state.tallies {
		if state.tallies[i], err = sumOfCPUs(s.coll.Maps["tallies"], uint32(i)); err != nil {
			return state, err
		}
	}
	for i := range state.latencies {
		if state.latencies[i], err = sumOfCPUs(s.coll.Maps["latencies"], uint32(i)); err != nil {
			return state, err
		}
	}
	state.servers = map[netip.Addr]uint64{}
	var key [16]byte
	var byCPU []sinkServer
	all := s.coll.Maps["servers"].Iterate()
	for all.Next(&key, &byCPU) {
		for _, c := range byCPU {
			state.servers[netip.AddrFrom16(key).Unmap()] += c.Packets
		}
	}
	if err := all.Err(); err != nil {
		return state, fmt.Errorf("read servers of sink: %w", err)
	}
	return state, nil
}

// since is what was counted after an earlier state.
func (s sinkState) since(before sinkState) sinkState {
	d := sinkState{servers: map[netip.Addr]uint64{}}
	for i := range s.tallies {
		d.tallies[i] = s.tallies[i] - before.tallies[i]
	}
	for i := range s.latencies {
		d.latencies[i] = s.latencies[i] - before.latencies[i]
	}
	for addr, n := range s.servers {
		if n > before.servers[addr] {
			d.servers[addr] = n - before.servers[addr]
		}
	}
	return d
}

// Latency is how long packets were under way, in µs, from the generator's program to the sink's.
type Latency struct {
	// Samples is how many packets were timed.
	Samples uint64  `json:"samples"`
	P50     float64 `json:"p50_us"`
	P90     float64 `json:"p90_us"`
	P99     float64 `json:"p99_us"`
	P999    float64 `json:"p99_9_us"`
	Max     float64 `json:"max_us"`
}

// latency reads percentiles from the buckets, each as the bucket's upper end: at most an eighth too much.
func (s sinkState) latency() Latency {
	var l Latency
	for _, n := range s.latencies {
		l.Samples += n
	}
	if l.Samples == 0 {
		return l
	}
	for _, p := range []struct {
		share float64
		to    *float64
	}{{0.5, &l.P50}, {0.9, &l.P90}, {0.99, &l.P99}, {0.999, &l.P999}, {1, &l.Max}} {
		*p.to = float64(latencyEnd(s.latencies[:], uint64(math.Ceil(p.share*float64(l.Samples))))) / 1e3
	}
	return l
}

// latencyEnd is the end, in ns, of the bucket in which the sample with that number lies.
func latencyEnd(buckets []uint64, number uint64) uint64 {
	for i, n := range buckets {
		if number <= n {
			return bucketEnd(i)
		}
		number -= n
	}
	return bucketEnd(len(buckets) - 1)
}

// bucketEnd is the first number of ns that lies behind bucket i; see latency_count in bpf/sink.bpf.c.
func bucketEnd(i int) uint64 {
	const sub = 1 << latencySubBits
	if i < sub {
		return uint64(i + 1)
	}
	return uint64(sub+i%sub+1) << (i/sub - 1)
}

// Balance is how packets were spread over servers.
type Balance struct {
	// Servers is how many got packets.
	Servers int `json:"servers"`
	// Least and Most are the smallest and the greatest share of a server, as multiples of what its weight
	// says; Deviation is the standard deviation of all from 1.
	Least     float64 `json:"least"`
	Most      float64 `json:"most"`
	Deviation float64 `json:"deviation"`
	// Chance is the deviation that so many random flows have by themselves.
	Chance float64 `json:"chance"`
}

// balance compares packets with weights; without weights, all servers that got packets have the same.
func balance(packets map[netip.Addr]uint64, weights map[netip.Addr]float64, flows int) Balance {
	b := Balance{Servers: len(packets)}
	if len(weights) == 0 {
		weights = map[netip.Addr]float64{}
		for addr := range packets {
			weights[addr] = 1
		}
	}
	var total, weight, squares, chance float64
	for addr := range weights {
		total += float64(packets[addr])
		weight += weights[addr]
	}
	if total == 0 || weight == 0 {
		return b
	}
	b.Least = math.Inf(1)
	for addr, w := range weights {
		share := float64(packets[addr]) / total / (w / weight)
		b.Least, b.Most = min(b.Least, share), max(b.Most, share)
		squares += (share - 1) * (share - 1)
		chance += (1 - w/weight) / (w / weight * float64(flows))
	}
	n := float64(len(weights))
	b.Deviation, b.Chance = math.Sqrt(squares/n), math.Sqrt(chance/n)
	return b
}
