// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/test/require"
)

// The load test says what checks cost. It takes a minute and needs a quiet machine, so it runs only
// with REMORA_LOAD_TEST=1:
//
//	REMORA_LOAD_TEST=1 go test -run TestLoad -v ./healthcheck
//
// The servers are a process of their own behind a veth pair whose ends receive in kernel threads,
// so that the servers' side of the network is not counted as the probes'. The thread of our own
// end is: on a host with a network card it is the card's interrupt.
func TestLoad(t *testing.T) {
	if os.Getenv("REMORA_LOAD_TEST") != "1" {
		t.Skip("runs with REMORA_LOAD_TEST=1 only")
	}
	if !isolated(t, "ethtool", "nsenter") {
		return
	}
	startLoadServers(t)
	for _, tc := range []struct {
		name   string
		checks int
		kind   Kind
		port   uint16
	}{
		{"10000 TCP", 10000, TCP{}, loadTCPPort},
		{"3000 HTTP", 3000, HTTP{}, loadHTTPPort},
	} {
		t.Run(tc.name, func(t *testing.T) { measureLoad(t, tc.checks, tc.kind, tc.port) })
	}
}

const (
	loadTCPPort  = 7000
	loadHTTPPort = 7001
	loadServers  = "REMORA_LOAD_SERVERS"
)

// TestLoadServers is the servers' process, not a test.
func TestLoadServers(t *testing.T) {
	if os.Getenv(loadServers) != "1" {
		t.Skip("is not a test of its own")
	}
	// A server that gets no time for a moment must not refuse connections: queues are long, and
	// connections without data are never given to the program.
	require.NoError(t, os.WriteFile("/proc/sys/net/core/somaxconn", []byte("65535"), 0))
	require.NoError(t, os.WriteFile("/proc/sys/net/ipv4/tcp_max_syn_backlog", []byte("65535"), 0))
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", loadHTTPPort))
	require.NoError(t, err)
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "well\n") }))
	deferring := net.ListenConfig{Control: control(func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_DEFER_ACCEPT, 1)
	})}
	l, err = deferring.Listen(t.Context(), "tcp", fmt.Sprintf(":%d", loadTCPPort))
	require.NoError(t, err)
	for {
		c, err := l.Accept()
		require.NoError(t, err)
		c.Close()
	}
}

// startLoadServers connects a second namespace by veth and starts the servers there.
func startLoadServers(t *testing.T) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestLoadServers$")
	cmd.Env = append(os.Environ(), loadServers+"=1")
	cmd.SysProcAttr = notOutliving(t)
	cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNET
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	pid := strconv.Itoa(cmd.Process.Pid)
	there := func(args ...string) { command(t, "nsenter", append([]string{"-t", pid, "-n"}, args...)...) }
	here := func(args ...string) { command(t, args[0], args[1:]...) }
	here("ip", "link", "add", "near", "type", "veth", "peer", "name", "far", "netns", pid)
	there("ip", "link", "set", "lo", "up")
	for _, end := range []struct {
		run        func(...string)
		link, addr string
	}{{here, "near", "10.0.0.1/30"}, {there, "far", "10.0.0.2/30"}} {
		end.run("ethtool", "-K", end.link, "gro", "on", "tso", "off")
		end.run("ip", "link", "set", end.link, "up")
		end.run("ip", "addr", "add", end.addr, "dev", end.link)
		// /sys shows the network namespace of whoever mounted it.
		end.run("unshare", "-m", "sh", "-c", "mount -t sysfs none /sys && echo 1 > /sys/class/net/"+end.link+"/threaded")
	}
	here("ip", "route", "add", "10.1.0.0/16", "via", "10.0.0.2")
	there("ip", "route", "add", "local", "10.1.0.0/16", "dev", "lo")
	listening(t, fmt.Sprintf("10.1.0.1:%d", loadTCPPort))
}

func measureLoad(t *testing.T, n int, k Kind, port uint16) {
	p, err := k.Probe()
	require.NoError(t, err)
	checks := make(map[int]Check)
	var probes, failures atomic.Int64
	for i := range n {
		addr := netip.AddrFrom4([4]byte{10, 1, byte(i / 250), byte(1 + i%250)})
		checks[i] = Check{Probe: p, Target: Target{Addr: netip.AddrPortFrom(addr, port)}, Rules: Rules{UpInterval: time.Second}}
	}
	var slowest atomic.Int64 // time from a result to the call that tells of it
	s := running(t, Config[int]{OnChange: func(changes []Change[int]) {
		for _, c := range changes {
			slowest.Store(max(slowest.Load(), int64(time.Since(c.At))))
		}
	}}, checks)
	count := func() {
		for _, st := range s.Snapshot() {
			probes.Add(1)
			if !st.Last.OK() {
				failures.Add(1)
			}
		}
	}
	eventually(t, func() error {
		results := make(map[string]int)
		for _, st := range s.Snapshot() {
			if st.Verdict.State != Up {
				results[st.Last.Reason.String()]++
			}
		}
		down := 0
		for _, n := range results {
			down += n
		}
		if down > n/100 {
			return fmt.Errorf("not up: %v", results)
		}
		return nil
	})
	for range 3 {
		const span = 10 * time.Second
		begin, thread, start := processTime(t), threadTime(t, "near"), time.Now()
		timer := time.NewTimer(span)
		<-timer.C
		elapsed := time.Since(start)
		own, rx := processTime(t)-begin, threadTime(t, "near")-thread
		count()
		t.Logf("%d checks: process %.1f%% of a core, receiving thread %.1f%%, %.1f µs a probe; peak resident %d MiB",
			n, percent(own, elapsed), percent(rx, elapsed),
			float64(own.Microseconds())/(float64(n)*elapsed.Seconds()), peakResident(t)>>20)
	}
	t.Logf("verdicts were told at most %v after the result", time.Duration(slowest.Load()))
	// On a busy machine a server may be late for once.
	if f, n := failures.Load(), probes.Load(); f > n/100 {
		t.Errorf("%d of %d results are failures", f, n)
	}
}

func percent(part, whole time.Duration) float64 { return 100 * float64(part) / float64(whole) }

func processTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// threadTime is the time of the kernel thread that receives on a link.
func threadTime(t *testing.T, link string) time.Duration {
	t.Helper()
	comms, err := filepath.Glob("/proc/[0-9]*/comm")
	require.NoError(t, err)
	for _, comm := range comms {
		name, err := os.ReadFile(comm)
		if err != nil || !strings.HasPrefix(string(name), "napi/"+link+"-") {
			continue // processes come and go
		}
		stat, err := os.ReadFile(filepath.Join(filepath.Dir(comm), "stat"))
		require.NoError(t, err)
		_, rest, _ := strings.Cut(string(stat), ") ")
		ticks, err := strconv.Atoi(strings.Fields(rest)[12]) // stime, proc(5); user HZ is 100
		require.NoError(t, err)
		return time.Duration(ticks) * 10 * time.Millisecond
	}
	t.Fatalf("no kernel thread receives on %s", link)
	return 0
}

// peakResident is the greatest resident set of this process, in bytes.
func peakResident(t *testing.T) int64 {
	t.Helper()
	var u syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return u.Maxrss << 10
}
