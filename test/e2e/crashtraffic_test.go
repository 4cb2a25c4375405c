// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/rig"
)

const (
	// longestPause is how long an answer may take: far more than any retransmission, so that only
	// an interruption of forwarding, not a busy machine, takes longer.
	longestPause = 3 * time.Second
	// anchorConnections is the number of connections to each VIP of the anchor, movingConnections that
	// to each of the moving service.
	anchorConnections, movingConnections = 4, 12
	// longestConnection is how often a connection to the moving service asks at most.
	longestConnection = 1000
	// requesters is the number of goroutines that open new connections, one after another.
	requesters = 2
	// requestInterval is the time between two requests of one goroutine.
	requestInterval = 5 * time.Millisecond
)

// crashTraffic is what the client does all the time.
type crashTraffic struct {
	lab  *rig.Lab
	stop chan struct{}
	all  sync.WaitGroup

	// flying is held for reading by each request, so that none that began before a change is still
	// on its way when the change comes.
	flying sync.RWMutex

	mu sync.Mutex // guards the rest
	// steady are the permanent addresses that all configurations have that the balancer may follow now,
	// takers the servers that one of these has for an address.
	steady []netip.Addr
	takers map[netip.Addr][]string
	// changing says that connections may move to another server; epoch counts changes of that.
	changing          bool
	epoch             int
	requests, answers int
	longest           time.Duration
	failures          []error
}

// expect says which configurations the balancer may follow from now on.
func (c *crashTraffic) expect(servers []*rig.Node, configs ...crashConfig) {
	c.flying.Lock()
	defer c.flying.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changing = true
	c.epoch++
	c.merge(servers, configs)
}

// settled says which configuration the balancer follows.
func (c *crashTraffic) settled(servers []*rig.Node, config crashConfig) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changing = false
	c.epoch++
	c.merge(servers, []crashConfig{config})
}

func (c *crashTraffic) merge(servers []*rig.Node, configs []crashConfig) {
	c.takers = make(map[netip.Addr][]string)
	in := make(map[netip.Addr]int)
	for _, config := range configs {
		for addr, names := range config.takers(servers) {
			c.takers[addr] = append(c.takers[addr], names...)
			in[addr]++
		}
	}
	c.steady = nil
	for addr, n := range in {
		if n == len(configs) && isPermanent(addr) {
			c.steady = append(c.steady, addr)
		}
	}
	slices.SortFunc(c.steady, netip.Addr.Compare)
}

// start opens the anchor's connections, and begins to make requests.
func (c *crashTraffic) start(t *testing.T, seed uint64) {
	t.Helper()
	for _, vip := range anchor().vips {
		for range anchorConnections {
			conn, err := c.dial(vip.Addr)
			if err != nil {
				t.Fatal(err)
			}
			c.all.Go(func() { c.hold(conn, vip, 0) })
		}
	}
	for v, vip := range moving(false).vips {
		for i := range movingConnections {
			r := rand.New(rand.NewPCG(seed, uint64(100*(v+1)+i)))
			c.all.Go(func() { c.follow(vip, r) })
		}
	}
	for i := range requesters {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		c.all.Go(func() {
			c.every(func() bool {
				c.requestAny(r)
				return true
			})
		})
	}
}

// every calls f again and again until it returns false or the traffic ends.
func (c *crashTraffic) every(f func() bool) {
	ticker := time.NewTicker(requestInterval)
	defer ticker.Stop()
	for {
		select {
		case <-c.stop:
			return
		case <-ticker.C:
			if !f() {
				return
			}
		}
	}
}

// end ends all traffic and waits for it.
func (c *crashTraffic) end() {
	select {
	case <-c.stop:
	default:
		close(c.stop)
	}
	c.all.Wait()
}

func (c *crashTraffic) dial(addr netip.Addr) (conn net.Conn, err error) {
	err = c.lab.Client.Do(func() (err error) {
		conn, err = net.DialTimeout("tcp", netip.AddrPortFrom(addr, 80).String(), longestPause)
		return err
	})
	return conn, err
}

// follow opens one connection after the other, each for a random time, until the traffic ends.
func (c *crashTraffic) follow(vip lb.VIP, r *rand.Rand) {
	for {
		conn, err := c.dial(vip.Addr)
		if err != nil {
			c.fail(fmt.Errorf("connect to %v: %v", vip, err))
			return
		}
		if u := r.Float64(); !c.hold(conn, vip, 1+int(u*u*longestConnection)) { // many short ones, and some long ones
			return
		}
	}
}

// hold asks for the server's name on one connection, so many times or, if that is 0, until the traffic
// ends; the name and the connection must stay. It tells whether there is to be another.
func (c *crashTraffic) hold(conn net.Conn, vip lb.VIP, times int) (more bool) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	var server string
	asked := 0
	c.every(func() bool {
		start := time.Now()
		name, err := askName(conn, in)
		took := time.Since(start)
		if server == "" {
			server = name
		}
		asked++
		more = asked == times
		c.mu.Lock()
		defer c.mu.Unlock()
		c.answers++
		c.longest = max(c.longest, took)
		if err != nil || name != server {
			c.failures = append(c.failures, fmt.Errorf("connection %v to %v: was on %q, is on %q after %d questions and %v, error %v",
				conn.LocalAddr(), vip, server, name, asked, took, err))
			more = false
			return false
		}
		return !more
	})
	return more
}

func (c *crashTraffic) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failures = append(c.failures, err)
}

// requestAny makes a request to one of the addresses that are there before and after a change.
func (c *crashTraffic) requestAny(r *rand.Rand) {
	c.flying.RLock()
	defer c.flying.RUnlock()
	c.mu.Lock()
	addr := c.steady[r.IntN(len(c.steady))]
	c.mu.Unlock()
	c.request(addr)
}

// request asks for the server's name on a new connection. A connection that was there when its ring
// changed its size or its server's time was over may break, but for those that are kept; no answer may
// come from a server that the VIP does not have.
func (c *crashTraffic) request(addr netip.Addr) {
	c.mu.Lock()
	before, changing, epoch := c.takers[addr], c.changing, c.epoch
	c.mu.Unlock()
	start := time.Now()
	name, err := c.askOnce(addr)
	took := time.Since(start)

	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests++
	mayBreak := (changing || epoch != c.epoch) && !isKept(addr)
	switch {
	case err != nil && mayBreak:
	case err != nil:
		c.failures = append(c.failures, fmt.Errorf("request to %v after %v: %v", addr, took, err))
	case !slices.Contains(before, name) && !slices.Contains(c.takers[addr], name):
		c.failures = append(c.failures, fmt.Errorf("request to %v: answer from %s, which is not one of %v", addr, name, before))
	}
}

// isPermanent tells that every random configuration has an address. Others get no requests during a
// change: a server that lost a connection by it repeats its answer, and the client's reset may come
// when the VIP is gone.
func isPermanent(addr netip.Addr) bool {
	return isKept(addr) || addr == crashVIP(changingNumber, 0, false) || addr == crashVIP(changingNumber, 0, true)
}

// isKept tells that no connection to an address may break.
func isKept(addr netip.Addr) bool {
	return slices.ContainsFunc(slices.Concat(anchor().vips, moving(false).vips), func(v lb.VIP) bool { return v.Addr == addr })
}

func (c *crashTraffic) askOnce(addr netip.Addr) (string, error) {
	conn, err := c.dial(addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	// It ends by a reset, after which no packet follows that could come when its VIP is gone.
	if err := conn.(*net.TCPConn).SetLinger(0); err != nil {
		return "", err
	}
	return askName(conn, bufio.NewReader(conn))
}

func askName(conn net.Conn, in *bufio.Reader) (string, error) {
	if err := conn.SetDeadline(time.Now().Add(longestPause)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintln(conn, "who"); err != nil {
		return "", err
	}
	name, err := in.ReadString('\n')
	return strings.TrimSpace(name), err
}

// failure is what went wrong up to now, nil if nothing.
func (c *crashTraffic) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(c.failures...)
}
