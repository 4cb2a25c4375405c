// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/remora-lb/remora/lb"
	source "github.com/remora-lb/remora/lb/discovery/consul"
	"github.com/remora-lb/remora/test/consul"
	"github.com/remora-lb/remora/test/require"
)

var (
	webVIP = lb.VIP{Addr: prefix("192.0.2.10/32").Addr(), Port: 80, Protocol: lb.TCP}
	dnsVIP = lb.VIP{Addr: prefix("2001:db8::53/128").Addr(), Port: 53, Protocol: lb.UDP}
)

// awaitChecks waits until the agent has exactly these checks, as STATUS:TEXT, of the balancer.
func awaitChecks(t *testing.T, c *api.Client, want map[string]string) {
	t.Helper()
	eventually(t, fmt.Sprintf("checks %v", want), func() error {
		checks, err := c.Agent().ChecksWithFilter(`ServiceName == "remora"`)
		if err != nil {
			return err
		}
		got := make(map[string]string)
		for id, check := range checks {
			got[id] = check.Status + ":" + check.Output
		}
		if !maps.Equal(got, want) {
			return fmt.Errorf("they are %v", got)
		}
		return nil
	})
}

// TestRegistrar: the balancer's own service and checks, over changes and the agent's loss of memory,
// to an orderly end.
func TestRegistrar(t *testing.T) {
	t.Parallel()
	a := startAgent(t, consul.Options{})
	c := client(t, a, "")
	// What a run that crashed left behind.
	require.NoError(t, c.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "remora", Checks: api.AgentServiceChecks{{CheckID: "remora-vip-left", TTL: "1h"}}}))
	registration := source.DefaultRegistration()
	registration.Client.Addresses, registration.TTL = []string{a.Address}, 3*time.Second
	registrar, err := source.NewRegistrar(registration)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- registrar.Run(ctx) }()
	defer cancel()

	awaitChecks(t, c, map[string]string{"remora": "critical:starting"})
	self := source.Finding{Health: source.Passing, Text: "serving"}
	registrar.Set(source.Report{Self: self, VIPs: map[lb.VIP]source.Finding{
		webVIP: {Health: source.Passing, Text: "digest 1"}, dnsVIP: {Health: source.Warning, Text: "held"},
	}})
	both := map[string]string{
		"remora": "passing:serving", "remora-vip-192.0.2.10-80-tcp": "passing:digest 1", "remora-vip-2001:db8::53-53-udp": "warning:held",
	}
	awaitChecks(t, c, both)
	registrar.Set(source.Report{Self: self, VIPs: map[lb.VIP]source.Finding{webVIP: {Health: source.Passing, Text: "digest 2"}}})
	one := map[string]string{"remora": "passing:serving", "remora-vip-192.0.2.10-80-tcp": "passing:digest 2"}
	awaitChecks(t, c, one)

	require.NoError(t, a.Kill())
	require.NoError(t, a.Run())
	require.NoError(t, a.AwaitLeader(limited(t)))
	awaitChecks(t, c, one)
	cancel()
	require.NoError(t, <-done)
	awaitChecks(t, c, map[string]string{})
	require.NoError(t, registrar.Run(ctx)) // is over before it began: nothing is there to take out
}

func newLimit(t *testing.T, c source.ClientConfig, limit int, holder string) *source.DrainLimit {
	t.Helper()
	configuration := source.DefaultDrainLimitConfig()
	configuration.Client, configuration.Limit, configuration.Holder = c, limit, holder
	configuration.TTL = 10 * time.Second
	l, err := source.NewDrainLimit(configuration)
	require.NoError(t, err)
	return l
}

// TestDrainLimit: of three, two may drain; the third when one of them has finished.
func TestDrainLimit(t *testing.T) {
	t.Parallel()
	a := startAgent(t, consul.Options{})
	reach := source.ClientConfig{Addresses: []string{a.Address}}
	first, err := newLimit(t, reach, 2, "one").Acquire(limited(t))
	require.NoError(t, err)
	second, err := newLimit(t, reach, 2, "two").Acquire(limited(t))
	require.NoError(t, err)
	third := newLimit(t, reach, 2, "three")
	calledOff, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	if _, err := third.Acquire(calledOff); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("the third balancer may drain, too, or fails with %v", err)
	}
	require.NoError(t, first.Release())
	require.NoError(t, first.Release()) // once more does no harm
	slot, err := third.Acquire(limited(t))
	require.NoError(t, err)
	require.NoError(t, slot.Release())
	_, err = newLimit(t, reach, 3, "four").Acquire(limited(t))
	require.ErrorSays(t, err, "limit conflict")

	c := client(t, a, "")
	sessions, _, err := c.Session().List(nil)
	require.NoError(t, err)
	for _, s := range sessions { // as an operator does who takes the right away
		_, err := c.Session().Destroy(s.ID, nil)
		require.NoError(t, err)
	}
	select {
	case <-second.Lost():
	case <-limited(t).Done():
		t.Error("a right that was taken away is not noticed")
	}
	require.NoError(t, second.Release())
	eventually(t, "no sessions left behind", func() error {
		sessions, _, err := c.Session().List(nil)
		if err == nil && len(sessions) > 0 {
			err = fmt.Errorf("%d are left", len(sessions))
		}
		return err
	})
}

const drainerAddress = "REMORA_TEST_DRAINER_ADDRESS"

// TestDrainLimitAfterCrash: the right of a balancer that was killed goes to another.
func TestDrainLimitAfterCrash(t *testing.T) {
	t.Parallel()
	if address := os.Getenv(drainerAddress); address != "" {
		drainForever(t, address)
		return
	}
	a := startAgent(t, consul.Options{})
	reach := source.ClientConfig{Addresses: []string{a.Address}}
	crashed := exec.Command(os.Args[0], "-test.run", "^TestDrainLimitAfterCrash$")
	crashed.Env = append(os.Environ(), drainerAddress+"="+a.Address)
	crashed.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := crashed.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, crashed.Start())
	defer crashed.Wait()
	defer crashed.Process.Kill()
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "acquired\n" {
		t.Fatalf("the other process says %q, %v", line, err)
	}
	held, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	limit := newLimit(t, reach, 1, "survivor")
	if _, err := limit.Acquire(held); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("two may drain at once, or: %v", err)
	}
	require.NoError(t, crashed.Process.Kill())
	slot, err := limit.Acquire(limited(t)) // after 10 to 20 s
	require.NoError(t, err)
	require.NoError(t, slot.Release())
}

// drainForever is the process that is killed: it takes the right and says so.
func drainForever(t *testing.T, address string) {
	_, err := newLimit(t, source.ClientConfig{Addresses: []string{address}}, 1, "crasher").Acquire(limited(t))
	require.NoError(t, err)
	fmt.Println("acquired")
	select {}
}
