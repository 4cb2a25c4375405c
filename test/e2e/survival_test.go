// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"path/filepath"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/remora-lb/remora/test/rig"
)

// weights writes a configuration in which servers have weights; a server of weight -1 is not in it.
func (b *bed) weights(t *testing.T, of ...int) {
	t.Helper()
	var backends []string
	for i, weight := range of {
		if weight >= 0 {
			backends = append(backends, fmt.Sprintf("{address: %s, weight: %d}", b.Servers[i].IPv4, weight))
		}
	}
	b.writeText(t, webConfig("", "tcp", backends...))
}

// TestConnectionsSurvive changes the balancer in every way while files are on their way to and from
// all servers: no connection breaks but those of a server whose time to drain is over.
func TestConnectionsSurvive(t *testing.T) {
	b := newBed(t, rig.Config{})
	b.start(t)
	one, two, three := b.Servers[0], b.Servers[1], b.Servers[2]
	files := b.newTransfers(t)
	curls := b.startCurls(t)
	for _, change := range []struct {
		name string
		make func(t *testing.T)
	}{
		{"a server is removed", func(t *testing.T) {
			b.weights(t, 1, -1, 1)
			b.reload(t, []*rig.Node{one, three})
		}},
		{"another is drained", func(t *testing.T) {
			b.control(t, "drain", three.IPv4.String())
			b.awaitActive(t, "drain", []*rig.Node{one})
		}},
		{"the removed one comes back", func(t *testing.T) {
			b.weights(t, 1, 1, 1)
			b.reload(t, []*rig.Node{one, two})
		}},
		{"other weights, one of them 0", func(t *testing.T) {
			b.weights(t, 0, 5, 1)
			b.reload(t, []*rig.Node{two})
			b.control(t, "undrain", three.IPv4.String())
			b.awaitActive(t, "end of the drain", []*rig.Node{two, three})
			b.weights(t, 3, 1, 2)
			b.reload(t, b.Servers)
		}},
		{"a server flaps", func(t *testing.T) {
			for range 3 {
				b.weights(t, 3, 1, -1)
				b.reload(t, []*rig.Node{one, two})
				b.weights(t, 3, 1, 2)
				b.reload(t, b.Servers)
			}
		}},
		{"the daemon is killed within a change", func(t *testing.T) {
			b.weights(t, 1, -1, 1)
			b.hup(t)
			b.killDaemon(t)
		}},
		{"it is started again", func(t *testing.T) {
			b.startDaemon(t)
			b.awaitActive(t, "start", []*rig.Node{one, three})
		}},
		{"it is killed, and started with another file", func(t *testing.T) {
			b.killDaemon(t)
			b.weights(t, 1, 4, 0)
			b.startDaemon(t)
			b.awaitActive(t, "start", []*rig.Node{one, two})
		}},
	} {
		t.Run(change.name, func(t *testing.T) {
			change.make(t)
			files.move(t)
		})
		if t.Failed() {
			return
		}
		files.begin(t) // each of these began in another state of the ring
	}
	t.Run("its time to drain is over", func(t *testing.T) {
		if len(files.on(one)) == 0 {
			t.Fatalf("%s has no connection", one.Name)
		}
		out, err := b.tryControl(t, "drain", one.IPv4.String(), "--timeout", "2s", "--wait")
		if !exited(err, 3) {
			t.Errorf("the drain ended: error %v, output %q, want exit status 3", err, out)
		}
		files.takeReset(t, one)
		files.move(t)
	})
	if err := curls(); err != nil {
		t.Error(err)
	}
	files.finish(t)
}

// killDaemon ends the daemon with SIGKILL.
func (b *bed) killDaemon(t *testing.T) {
	t.Helper()
	if err := b.daemon.Kill(); err != nil {
		t.Fatal(err)
	}
}

// startCurls has curl download the large file slowly through both VIPs. The function that it returns
// waits for the end, and says what is wrong with any of them.
func (b *bed) startCurls(t *testing.T) (wait func() error) {
	t.Helper()
	var g errgroup.Group
	dir := t.TempDir()
	for i, path := range []string{url(vip4(), "/large"), url(vip6(), "/large")} {
		g.Go(func() error {
			file := filepath.Join(dir, fmt.Sprint(i))
			if _, err := b.Client.Run(within(t), "curl", "-sS", "--fail", "--limit-rate", "1M", "-o", file, path); err != nil {
				return err
			}
			return b.sameAsLarge(file)
		})
	}
	return g.Wait
}
