// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/remora-lb/remora/test/rig"
)

// earlierCommit is the last one whose pinned maps have the schema before the present one.
const earlierCommit = "98d59c603181a4223fd78c55445bde1e5cdb8da4"

// TestUpgrade puts this program in the place of an earlier one, that one back, and this one again, while
// connections are held and a server drains. The attachment stays one and the same, and somebody always
// forwards. Upgrades break no connection; the way back those of the server that drains, and no other.
func TestUpgrade(t *testing.T) {
	b := newBed(t, rig.Config{})
	present := b.remora.Binary
	earlier := buildEarlier(t)
	b.keepNeighbours(t)
	b.remora.Binary = earlier
	b.start(t)
	u := &upgrade{bed: b, files: b.newTransfers(t), curls: b.startCurls(t)}
	u.held = u.hold(t, firstFlowPort+1000, 2*flowsPerVIP)
	u.drainLast(t)
	u.held = append(u.held, u.hold(t, firstFlowPort+2000, 100)...)
	if n := u.remembered(t); n == 0 {
		t.Fatal("no flow is remembered while a server drains")
	}
	for i, change := range []struct {
		name, binary string
		// adopted tells that the program takes over what the one before remembered.
		adopted bool
	}{
		{"upgrade", present, true},
		{"restart", present, true},
		{"downgrade", earlier, false},
		{"upgrade again", present, true},
	} {
		u.begin(t)
		t.Run(change.name, func(t *testing.T) { u.change(t, change.binary, change.adopted) })
		if t.Failed() {
			return
		}
		u.held = append(u.held, u.hold(t, firstFlowPort+3000+100*i, flowsPerVIP)...)
	}
	if err := u.curls(); err != nil {
		t.Error(err)
	}
	u.files.finish(t)
	t.Run("reset", func(t *testing.T) { u.reset(t, earlier, present) })
}

// buildEarlier builds the program of earlierCommit, and returns its path. The test ends if the history is
// not there: as skipped, unless REMORA_REQUIRE_HISTORY=1 promises it.
func buildEarlier(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := extract(t, earlierCommit, dir); err != nil {
		if os.Getenv("REMORA_REQUIRE_HISTORY") == "1" {
			t.Fatalf("this test needs commit %s, and REMORA_REQUIRE_HISTORY=1 promises it: %v", earlierCommit, err)
		}
		t.Skipf("this test needs commit %s, which a clone that is shallow has not: %v", earlierCommit, err)
	}
	began := time.Now()
	build := exec.CommandContext(t.Context(), "go", "build", "-ldflags=-s -w", "-o", "remora-earlier", "./cmd/remora")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the program of commit %s: %v: %s", earlierCommit, err, out)
	}
	t.Logf("building the program of commit %s took %v", earlierCommit, time.Since(began).Round(time.Second))
	return filepath.Join(dir, "remora-earlier")
}

// extract writes the files of a commit of this repository into a folder.
func extract(t *testing.T, commit, dir string) error {
	t.Helper()
	archive := exec.CommandContext(t.Context(), "git", "-C", filepath.Join("..", ".."), "archive", commit)
	var problem bytes.Buffer
	archive.Stderr = &problem
	text, err := archive.Output()
	if err != nil {
		return fmt.Errorf("git archive: %v: %s", err, strings.TrimSpace(problem.String()))
	}
	unpack := exec.CommandContext(t.Context(), "tar", "-x", "-C", dir)
	unpack.Stdin = bytes.NewReader(text)
	if out, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	return nil
}

// upgrade is a bed whose program is replaced.
type upgrade struct {
	*bed
	// Some began before the drain, others while it is under way.
	files *transfers
	held  []*connection
	curls func() error

	deadline  time.Time // of the drain
	before    attachment
	forwarded uint64
}

func (u *upgrade) drained() *rig.Node { return u.Servers[len(u.Servers)-1] }

// drainLast begins the drain of the last server, which has connections, and remembers its deadline.
func (u *upgrade) drainLast(t *testing.T) {
	t.Helper()
	u.control(t, "drain", u.drained().IPv4.String(), "--timeout", "1h")
	u.awaitActive(t, "drain", u.Servers[:len(u.Servers)-1])
	u.deadline = u.drain(t, tcp80(vip4()).String(), u.drained()).Deadline.AsTime()
}

// hold opens n connections to each VIP, from ports of which the ring's choice is the same in every run.
func (u *upgrade) hold(t *testing.T, port, n int) (conns []*connection) {
	t.Helper()
	for i := range n {
		conns = append(conns, u.connect(t, vip4(), port+i), u.connect(t, vip6(), port+i))
	}
	return conns
}

// begin notes what must stay.
func (u *upgrade) begin(t *testing.T) {
	t.Helper()
	u.before = u.attachment(t)
	s, err := u.status(within(t))
	if err != nil {
		t.Fatal(err)
	}
	u.forwarded = s.Reasons["forwarded"]
}

// change ends the daemon and starts another program in its place.
func (u *upgrade) change(t *testing.T, binary string, adopted bool) {
	remembered := u.remembered(t)
	if err := u.daemon.Stop(waitTimeout); err != nil {
		t.Fatal(err)
	}
	u.files.move(t) // nobody is there
	u.remora.Binary = binary
	u.startDaemon(t)
	u.logged(t, 0, "control API served") // the status alone may still be that of the one before
	u.awaitActive(t, "the start", u.Servers[:len(u.Servers)-1])
	u.checkAttachment(t)
	u.checkDrain(t)
	if refused := strings.Contains(u.daemon.Output(), "pinned maps are not adopted"); refused == adopted {
		t.Errorf("the daemon says that it does not adopt the maps: %t", refused)
	}
	if adopted {
		u.checkAdopted(t, remembered)
	} else {
		u.loseDrained(t)
	}
	for _, c := range u.held {
		c.assertStays(t)
	}
	u.files.move(t)
}

// reset has the present program remove what an earlier one left that was killed.
func (u *upgrade) reset(t *testing.T, earlier, present string) {
	if err := u.daemon.Stop(waitTimeout); err != nil {
		t.Fatal(err)
	}
	u.remora.Binary = earlier
	u.startDaemon(t)
	u.logged(t, 0, "control API served")
	u.remora.Binary = present
	command := []string{"reset", "--instance", u.remora.Instance, "--state", "--state-dir", u.remora.StateDir}
	if out, err := u.tryControl(t, command...); !exited(err, 1) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("while the daemon runs: error %v, output %q", err, out)
	}
	u.killDaemon(t)
	out, err := u.tryControl(t, command...)
	if !exited(err, 1) || !strings.Contains(out, rig.BalancerInterface+" runs program id") || !strings.Contains(out, u.remora.StateDir) {
		t.Errorf("without --yes: error %v, output\n%s", err, out)
	}
	u.attachment(t) // still there
	u.control(t, append(command, "--yes")...)
	for _, path := range []string{u.remora.PinDir(), u.remora.Socket(), filepath.Join(u.remora.StateDir, u.remora.Instance)} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
	if err := u.balancer.Do(func() error {
		l, err := netlink.LinkByName(rig.BalancerInterface)
		if err == nil && l.Attrs().Xdp != nil && l.Attrs().Xdp.Attached {
			err = fmt.Errorf("it runs program %d", l.Attrs().Xdp.ProgId)
		}
		return err
	}); err != nil {
		t.Errorf("look at the interface: %v", err)
	}
}

// loseDrained demands that the connections of the server that drains are reset, and forgets them.
func (u *upgrade) loseDrained(t *testing.T) {
	t.Helper()
	all := len(u.held)
	u.held = slices.DeleteFunc(u.held, func(c *connection) bool {
		if c.server == u.drained().Name {
			c.assertReset(t)
		}
		return c.server == u.drained().Name
	})
	if len(u.held) == all {
		t.Errorf("%s had no connection", u.drained().Name)
	}
	u.files.takeReset(t, u.drained())
}

// checkAttachment demands that the interface has the same link, which runs another program.
func (u *upgrade) checkAttachment(t *testing.T) {
	t.Helper()
	now := u.attachment(t)
	if now.link != u.before.link || now.carrier != u.before.carrier {
		t.Errorf("link %d with %d changes of the carrier, was link %d with %d", now.link, now.carrier, u.before.link, u.before.carrier)
	}
	if now.program == u.before.program || now.generation == u.before.generation {
		t.Errorf("the interface still runs program %d of generation %s", now.program, now.generation)
	}
}

// checkDrain demands that the drain goes on to the same deadline.
func (u *upgrade) checkDrain(t *testing.T) {
	t.Helper()
	if got := u.drain(t, tcp80(vip4()).String(), u.drained()).Deadline.AsTime(); !got.Equal(u.deadline) {
		t.Errorf("the deadline of the drain is %v, was %v", got, u.deadline)
	}
	u.awaitRealUse(t, vip4(), u.drained(), "draining")
}

// checkAdopted demands that counters go on and that nothing remembered is forgotten.
func (u *upgrade) checkAdopted(t *testing.T, remembered int) {
	t.Helper()
	s, err := u.status(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if n := s.Reasons["forwarded"]; n < u.forwarded {
		t.Errorf("%d packets were forwarded, and %d before", n, u.forwarded)
	}
	if s.Flows.Used < remembered {
		t.Errorf("%d flows are remembered, and %d were before", s.Flows.Used, remembered)
	}
}
