// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remora-lb/remora/lb/discovery/consul"
	standin "github.com/remora-lb/remora/test/consul"
	"github.com/remora-lb/remora/test/require"
)

// BenchmarkChange measures from the answer of Consul to the hand-over, for one service with 1000
// instances. Run it with -benchtime 300x.
func BenchmarkChange(b *testing.B) {
	s := newStandIn(b)
	all := entries(1000)
	require.NoError(b, s.Set("web", all...))
	c := config(s)
	c.Wait = time.Minute
	f := follow(b, c)
	f.whole(b, "web", len(all))
	var took []time.Duration
	for requests := 2; b.Loop(); requests++ {
		awaitRequests(b, s, "web", requests) // it waits for a change now
		all[0].Service.Port = 80 + requests%2
		require.NoError(b, s.Set("web", all...))
		begin := time.Now()
		a := f.whole(b, "web", len(all))
		took = append(took, a.Facts.At.Sub(begin))
	}
	slices.Sort(took)
	milliseconds := func(percent int) float64 {
		return float64(took[(len(took)-1)*percent/100].Microseconds()) / 1000
	}
	b.ReportMetric(milliseconds(50), "p50-ms")
	b.ReportMetric(milliseconds(99), "p99-ms")
}

const (
	manyServices  = 1000
	manyInstances = 20
	// manyDuration is how long the steady state is measured: every query ends once.
	manyDuration = 65 * time.Second
	manyProcess  = "REMORA_TEST_STANDIN"
)

// BenchmarkManyServices measures what it costs to watch 1000 services with 20 instances each while
// little changes. The stand-in is a process of its own, so that only the reader is counted. Run it
// with -benchtime 1x; it takes two minutes.
func BenchmarkManyServices(b *testing.B) {
	for name, connections := range map[string]int{"a connection each": 2 * manyServices, "in turns": 160} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				measureMany(b, connections)
			}
		})
	}
}

func measureMany(b *testing.B, connections int) {
	address, change := startStandIn(b)
	c := consul.DefaultConfig()
	c.Client.Addresses, c.Connections = []string{address}, connections
	for i := range manyServices {
		name := fmt.Sprintf("service-%d", i)
		c.Watches = append(c.Watches, consul.Watch{Name: name, Service: name})
	}
	f := follow(b, c)
	for range c.Watches {
		require.NoError(b, f.next(b).Err)
	}
	before, begin := processorTime(b), time.Now()
	timer := time.NewTimer(manyDuration)
	defer timer.Stop()
	ticker := time.NewTicker(manyDuration / 10)
	defer ticker.Stop()
	changes := 0
	for over := false; !over; {
		select {
		case <-timer.C:
			over = true
		case a := <-f.updates:
			require.NoError(b, a.Err)
			changes++
		case <-ticker.C:
			fmt.Fprintf(change, "service-%d\n", changes)
		}
	}
	b.ReportMetric(100*float64(processorTime(b)-before)/float64(time.Since(begin)), "%core")
	b.ReportMetric(float64(residentMiB(b)), "MiB")
	b.ReportMetric(float64(changes), "changes")
}

// startStandIn runs a stand-in in a process of its own. What is written to change is the name of a
// service that changes.
func startStandIn(b *testing.B) (address string, change io.Writer) {
	b.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestStandInProcess$")
	cmd.Env = append(os.Environ(), manyProcess+"=1")
	in, err := cmd.StdinPipe()
	require.NoError(b, err)
	out, err := cmd.StdoutPipe()
	require.NoError(b, err)
	require.NoError(b, cmd.Start())
	b.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(b, err)
	return strings.TrimSpace(line), in
}

// TestStandInProcess is the process of startStandIn; it ends with its input.
func TestStandInProcess(t *testing.T) {
	if os.Getenv(manyProcess) == "" {
		t.Skip("this is a part of BenchmarkManyServices")
	}
	s := standin.NewStandIn()
	defer s.Close()
	for i := range manyServices {
		require.NoError(t, s.Set(fmt.Sprintf("service-%d", i), entries(manyInstances)...))
	}
	fmt.Println(s.Address)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		require.NoError(t, s.Set(lines.Text(), entries(manyInstances+1)...))
	}
}

// processorTime is what this process has used.
func processorTime(tb testing.TB) time.Duration {
	tb.Helper()
	var r syscall.Rusage
	require.NoError(tb, syscall.Getrusage(syscall.RUSAGE_SELF, &r))
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// residentMiB is the memory of this process.
func residentMiB(tb testing.TB) int {
	tb.Helper()
	data, err := os.ReadFile("/proc/self/status")
	require.NoError(tb, err)
	_, rest, _ := strings.Cut(string(data), "VmRSS:")
	var kib int
	_, err = fmt.Sscan(rest, &kib)
	require.NoError(tb, err)
	return kib >> 10
}
