// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/remora-lb/remora/lb/dataplane"
	"github.com/remora-lb/remora/test/require"
	"github.com/remora-lb/remora/test/rig"
)

const (
	// defaultCrashes is how often TestCrashes kills the daemon; REMORA_CRASHES is another number.
	defaultCrashes = 15
	// firstStartCrashes is how often TestCrashAtFirstStart does.
	firstStartCrashes = 5
	// longestLife is how long a daemon that is to be killed lives at most after a start or a reload.
	longestLife = 300 * time.Millisecond
	// settledRequests is the number of requests to each address of a settled configuration.
	settledRequests = 4
)

// crashBed is a bed whose daemon gets killed while traffic goes on.
type crashBed struct {
	*bed
	rand *rand.Rand
	// settledAt is the configuration that the daemon was last seen to have applied; given are those
	// it was given since.
	settledAt crashConfig
	given     []crashConfig
	traffic   *crashTraffic
	// drained is whether the operator wants the moving service's drain; unsure, that the last command
	// about it may have come too late for the daemon, or not.
	drained, unsure bool
	// cut counts the kills that left a change half done.
	cut int
}

// newCrashBed builds a lab with servers that run, and a balancer that does not.
func newCrashBed(t *testing.T) *crashBed {
	t.Helper()
	require.Root(t)
	lab, err := rig.New(rig.Config{VIPs: crashVIPs()})
	if err != nil {
		t.Fatal(err)
	}
	b := &crashBed{
		bed:  newBalancer(t, lab, lab.Balancers[0]),
		rand: newCrashRand(t),
	}
	b.traffic = &crashTraffic{lab: lab, stop: make(chan struct{})}
	t.Cleanup(func() { b.close(t) })
	for _, s := range b.Servers {
		serveName(t, s)
		if _, err := b.remora.StartDecap(within(t), s, []netip.Addr{s.IPv4, s.IPv6}, crashVIPs()); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// newCrashRand is the source of all that is random; REMORA_SEED makes it the same as in another run.
func newCrashRand(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv("REMORA_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("read REMORA_SEED: %v", err)
		}
	}
	t.Logf("REMORA_SEED=%d repeats this run", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// close ends the lab and demands that nothing is left of it.
func (b *crashBed) close(t *testing.T) {
	t.Helper()
	b.traffic.end()
	if err := b.Close(); err != nil {
		t.Errorf("close lab: %v", err)
	}
	if left, err := filepath.Glob("/run/netns/" + b.Name + "-*"); err != nil || len(left) != 0 {
		t.Errorf("network namespaces are left: %v, error %v", left, err)
	}
	if _, err := os.Stat(b.remora.PinDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("pins are left in %s (%v)", b.remora.PinDir(), err)
	}
}

// serveName answers each line with the server's name, on port 80 of all addresses. Unlike nginx it
// does not close a connection after some number of requests.
func serveName(t *testing.T, n *rig.Node) {
	t.Helper()
	var listener net.Listener
	if err := n.Do(func() (err error) {
		listener, err = net.Listen("tcp", ":80")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(func() {
		listener.Close()
		all.Wait()
	})
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				stop := context.AfterFunc(t.Context(), func() { conn.Close() })
				defer stop()
				for in := bufio.NewScanner(conn); in.Scan(); {
					if _, err := fmt.Fprintln(conn, n.Name); err != nil {
						return
					}
				}
			})
		}
	})
}

// give writes a configuration, which the daemon reads at its start or when told to.
func (b *crashBed) give(t *testing.T, c crashConfig) {
	t.Helper()
	b.expect(c)
	next := b.config + ".new"
	if err := os.WriteFile(next, []byte(c.yaml(b.Servers)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, b.config); err != nil {
		t.Fatal(err)
	}
}

// expect says that a configuration may be in force from now on.
func (b *crashBed) expect(c crashConfig) {
	b.given = append(b.given, c)
	b.traffic.expect(b.Servers, append(slices.Clone(b.given), b.settledAt)...)
}

// wanted is the configuration that is to be in force.
func (b *crashBed) wanted() crashConfig {
	return append([]crashConfig{b.settledAt}, b.given...)[len(b.given)]
}

// hup tells the daemon to read its configuration again. One that is starting listens as soon as it
// has the instance.
func (b *crashBed) hup(t *testing.T) {
	t.Helper()
	waitFor(t, "the daemon to have the instance", func() error {
		if err := b.daemon.Running(); err != nil {
			return err
		}
		if pid := dataplane.Writer(dataplane.DefaultBPFFS, b.remora.Instance); pid != b.daemon.Pid() {
			return fmt.Errorf("process %d has it", pid)
		}
		return nil
	})
	b.bed.hup(t)
}

// killSoon kills the daemon at a random moment, and starts nothing.
func (b *crashBed) killSoon(t *testing.T) {
	t.Helper()
	u := b.rand.Float64()
	life := time.Duration(u * u * float64(longestLife)) // most changes are short, so most lives are
	select {
	case <-time.After(life):
	case <-b.daemon.Done():
	}
	if err := b.daemon.Running(); err != nil {
		t.Fatalf("within %v the daemon ended by itself: %v", life, err)
	}
	if err := b.daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	t.Logf("killed after %v", life)
}

// crash changes the configuration, kills the daemon during that, and starts another.
func (b *crashBed) crash(t *testing.T) {
	t.Helper()
	await := func() {} // what is under way when the daemon is killed
	switch b.rand.IntN(6) {
	case 0:
		t.Log("reload")
		b.give(t, randomConfig(b.rand, b.drained))
		b.hup(t)
	case 1:
		t.Log("kill, and start with another file")
		if err := b.daemon.Kill(); err != nil {
			t.Fatal(err)
		}
		b.give(t, randomConfig(b.rand, b.drained))
		b.launchDaemon(t)
	case 2:
		t.Log("stop, and start with another file")
		if err := b.daemon.Stop(waitTimeout); err != nil {
			t.Fatal(err)
		}
		b.give(t, randomConfig(b.rand, b.drained))
		b.launchDaemon(t)
	case 3:
		t.Log("reload twice")
		b.give(t, randomConfig(b.rand, b.drained))
		b.hup(t)
		b.give(t, randomConfig(b.rand, b.drained))
		b.hup(t)
	case 4:
		await = b.toggleDrain(t)
	case 5:
		await = b.toggleDrain(t)
		b.give(t, randomConfig(b.rand, b.drained))
		b.hup(t)
	}
	b.killSoon(t)
	await()
	b.lookAtRemains(t)
	b.launchDaemon(t)
}

// toggleDrain begins or ends the moving service's drain. The function that it returns waits for the
// command, and notes whether it succeeded: then that must survive.
func (b *crashBed) toggleDrain(t *testing.T) (wait func()) {
	t.Helper()
	if b.rand.IntN(2) == 0 { // otherwise the daemon may be starting, and refuse
		b.logged(t, 0, "control API served")
	}
	b.drained = !b.drained
	b.expect(b.wanted().withDrain(b.drained))
	t.Logf("drain: %t", b.drained)
	p := b.startControl(t, b.drainCommand()...)
	return func() {
		t.Helper()
		b.unsure = !strings.Contains(end(t, p).Error(), "without error")
		t.Logf("the daemon answered: %t", !b.unsure)
	}
}

// drainCommand makes the drain of the moving service as it is wanted.
func (b *crashBed) drainCommand() []string {
	verb := map[bool]string{true: "drain", false: "undrain"}[b.drained]
	return []string{verb, moving(false).vips[0].String(), b.Servers[len(b.Servers)-1].IPv4.String()}
}

// lookAtRemains reads what a killed daemon left, which must be possible at any moment, and notes
// whether it is in the middle of a change: as in no configuration, or with pins to be cleared away.
func (b *crashBed) lookAtRemains(t *testing.T) {
	t.Helper()
	s, err := dataplane.ReadSnapshot(dataplane.DefaultBPFFS, b.remora.Instance)
	if err != nil {
		t.Fatal(err)
	}
	lines := snapshotLines(s)
	whole := slices.ContainsFunc(append(slices.Clone(b.given), b.settledAt), func(c crashConfig) bool {
		return slices.Equal(lines, c.lines(b.Servers))
	})
	if pins := b.checkPins(); !whole || pins != nil {
		b.cut++
		t.Logf("that was in the middle of a change: the maps are as in one file: %t; pins: %v", whole, pins)
	}
}

// settle waits until the daemon runs, and everything is as the file says and nothing else is there.
func (b *crashBed) settle(t *testing.T) {
	t.Helper()
	want := b.wanted()
	if b.unsure {
		b.logged(t, 0, "control API served")
		b.control(t, b.drainCommand()...)
		b.unsure = false
	}
	waitFor(t, "everything to be as the file says", func() error {
		if err := b.daemon.Running(); err != nil {
			return err
		}
		if !strings.Contains(b.daemon.Output(), "msg=running") {
			return errors.New("the daemon does not run yet")
		}
		return errors.Join(b.checkStatus(t, want), b.checkPins(), b.checkSnapshot(), b.checkSlots())
	})
	b.settledAt, b.given = want, nil
	b.traffic.settled(b.Servers, want)
	for addr := range want.takers(b.Servers) {
		for range settledRequests {
			b.traffic.request(addr)
		}
	}
	if err := errors.Join(b.traffic.failure(), b.checkBypass()); err != nil {
		t.Fatal(err)
	}
}

// crashes is the number of times that TestCrashes kills the daemon.
func crashes(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(cmp.Or(os.Getenv("REMORA_CRASHES"), strconv.Itoa(defaultCrashes)))
	if err != nil || n < 1 {
		t.Fatalf("REMORA_CRASHES=%q is not a number from 1", os.Getenv("REMORA_CRASHES"))
	}
	return n
}

// TestCrashes kills the daemon again and again in the middle of a change. Forwarding outlives it,
// and each next daemon makes everything as its file says.
func TestCrashes(t *testing.T) {
	b := newCrashBed(t)
	b.settledAt = crashConfig{anchor(), moving(false, 1, 1, 1)}
	b.give(t, b.settledAt)
	b.launchDaemon(t)
	b.settle(t)
	b.traffic.start(t, b.rand.Uint64())
	for n, total := 0, crashes(t); n < total; {
		for range min(1+b.rand.IntN(3), total-n) {
			n++
			b.crash(t)
		}
		b.settle(t)
		t.Logf("settled after %d of %d crashes", n, total)
	}
	b.traffic.end()
	if err := b.traffic.failure(); err != nil {
		t.Error(err)
	}
	if b.traffic.requests == 0 || b.traffic.answers == 0 {
		t.Error("there was no traffic")
	}
	t.Logf("%d kills in the middle of a change; %d requests; %d answers on connections that stayed, the longest after %v",
		b.cut, b.traffic.requests, b.traffic.answers, b.traffic.longest)
}

// TestCrashAtFirstStart kills a daemon that finds nothing of an earlier one; the next start makes
// everything, or completes it.
func TestCrashAtFirstStart(t *testing.T) {
	b := newCrashBed(t)
	for range firstStartCrashes {
		b.settledAt = randomConfig(b.rand, b.drained)
		b.give(t, b.settledAt)
		b.launchDaemon(t)
		b.killSoon(t)
		b.launchDaemon(t)
		b.settle(t)
		if err := b.daemon.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := b.remora.RemovePins(); err != nil {
			t.Fatal(err)
		}
	}
}
