// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/remora-lb/remora/lb/discovery/consul"
	standin "github.com/remora-lb/remora/test/consul"
	"github.com/remora-lb/remora/test/require"
)

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

// entries are so many instances in order.
func entries(n int) []*api.ServiceEntry {
	list := make([]*api.ServiceEntry, n)
	for i := range list {
		node, id := fmt.Sprintf("node-%d", i), fmt.Sprintf("web-%d", i)
		list[i] = &api.ServiceEntry{
			Node: &api.Node{ID: "0b2b1e0e-3f5c-4f0e-9a53-0d1f6f1f8a10", Node: node, Address: fmt.Sprintf("10.0.%d.%d", i/250, i%250+1), Datacenter: "dc1",
				TaggedAddresses: map[string]string{"lan": "10.0.0.1", "wan": "10.0.0.1"}, Meta: map[string]string{"consul-network-segment": ""}},
			Service: &api.AgentService{ID: id, Service: "web", Port: 80, Tags: []string{"v4"}, Weights: api.AgentWeights{Passing: 1, Warning: 1},
				Meta: map[string]string{"version": "1.2.3"}},
			Checks: api.HealthChecks{
				{Node: node, CheckID: "serfHealth", Name: "Serf Health Status", Status: "passing", Output: "Agent alive and reachable"},
				{Node: node, CheckID: "service:" + id, Name: "Service 'web' check", Status: "passing", ServiceID: id, ServiceName: "web", Type: "http",
					Output: "HTTP GET http://10.0.0.1:80/health: 200 OK Output: fine"},
			},
		}
	}
	return list
}

func newStandIn(t testing.TB) *standin.StandIn {
	t.Helper()
	s := standin.NewStandIn()
	t.Cleanup(s.Close)
	return s
}

// config is a configuration for stand-ins, with times that suit a test.
func config(stands ...*standin.StandIn) consul.Config {
	c := consul.DefaultConfig()
	for _, s := range stands {
		c.Client.Addresses = append(c.Client.Addresses, s.Address)
	}
	c.Wait, c.Grace = time.Second, 200*time.Millisecond
	c.Retry = consul.Retry{Min: 10 * time.Millisecond, Max: 200 * time.Millisecond}
	c.Watches = []consul.Watch{{Name: "web", Service: "web"}}
	return c
}

type feed struct {
	*consul.Source
	updates chan *consul.Answer
}

// follow runs a source until the test ends.
func follow(t testing.TB, c consul.Config) *feed {
	t.Helper()
	s, err := consul.New(c)
	require.NoError(t, err)
	f := &feed{s, make(chan *consul.Answer, 10_000)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx, func(u consul.Update) { f.updates <- u.Answer }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the source ended with %v", err)
		}
	})
	return f
}

// next is what is handed over next.
func (f *feed) next(t testing.TB) *consul.Answer {
	t.Helper()
	select {
	case a := <-f.updates:
		return a
	case <-time.After(patience):
		t.Fatalf("nothing was handed over within %v", patience)
		return nil
	}
}

// whole fails unless the next answer is whole, of this service, with so many instances.
func (f *feed) whole(t testing.TB, service string, instances int) *consul.Answer {
	t.Helper()
	a := f.next(t)
	if a.Service != service || a.Problem() != "" || len(a.Instances) != instances {
		t.Fatalf("service %s, problem %q, %d instances; want %s, none, %d", a.Service, a.Problem(), len(a.Instances), service, instances)
	}
	return a
}

// problem fails unless the next answer is not whole and says why.
func (f *feed) problem(t testing.TB, says string) *consul.Answer {
	t.Helper()
	a := f.next(t)
	if says == "" || !strings.Contains(a.Problem(), says) {
		t.Fatalf("problem %q with %d instances, want %q", a.Problem(), len(a.Instances), says)
	}
	return a
}

// TestMisbehaviour: whatever Consul does, what is not whole is told as such, and the truth follows.
func TestMisbehaviour(t *testing.T) {
	for _, tc := range []struct {
		name string
		step standin.Step
		// says is the problem that is handed over, empty if nothing is.
		says string
	}{
		{"500", standin.Fail(http.StatusInternalServerError), `HTTP status 500: "scripted failure"`},
		{"503", standin.Fail(http.StatusServiceUnavailable), "HTTP status 503"},
		{"403", standin.Fail(http.StatusForbidden), "HTTP status 403"},
		{"too many requests", standin.TooManyRequests(0), "limits.http_max_conns_per_client"},
		{"hangs for longer than the wait", standin.Hang, "no answer within 1.2625s"},
		{"empty while there is no leader", standin.NoLeader, "knows no leader"},
		{"shortened by ACLs", standin.Filtered, "the ACL token may not see all"},
		{"half a list", standin.HalfList, "the list ends too early"},
		{"null", standin.Null, `"null" in place of a list`},
		{"a page of a proxy", standin.WrongType, `content type "text/html" is not application/json`},
		{"index backwards", standin.AtIndex(3), ""},
		{"index 0", standin.AtIndex(0), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newStandIn(t)
			require.NoError(t, s.Set("web", entries(1)...))
			f := follow(t, config(s))
			f.whole(t, "web", 1)
			awaitRequests(t, s, "web", 2) // it waits for a change now
			s.Script("web", tc.step)
			require.NoError(t, s.Set("web", entries(2)...))
			f.whole(t, "web", 2)
			if tc.says != "" {
				f.problem(t, tc.says)
			}
			f.whole(t, "web", 2)
			requests := s.Requests("web")
			if requests[2].Get("index") == "" || requests[3].Get("index") != "" || requests[3].Get("wait") != "1000ms" {
				t.Errorf("the query that failed was %v, the next %v: it should not wait", requests[2], requests[3])
			}
		})
	}
}

// awaitRequests waits until a stand-in has had so many queries.
func awaitRequests(t testing.TB, s *standin.StandIn, service string, n int) {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for len(s.Requests(service)) < n {
		select {
		case <-ticker.C:
		case <-timer.C:
			t.Fatalf("%d queries for %s within %v, want %d", len(s.Requests(service)), service, patience, n)
		}
	}
}

// TestEmpty: an empty answer that is whole is handed over as it is, and what contradicts it says
// that it comes from before.
func TestEmpty(t *testing.T) {
	t.Parallel()
	s := newStandIn(t)
	require.NoError(t, s.Set("web", entries(3)...))
	s.Script("web", standin.Empty)
	f := follow(t, config(s))
	f.whole(t, "web", 0)
	if a := f.whole(t, "web", 3); !a.Facts.Backwards {
		t.Errorf("facts %+v", a.Facts)
	}
}

// TestTimeIsOver: an answer that comes because the wait is over is no news.
func TestTimeIsOver(t *testing.T) {
	t.Parallel()
	s := newStandIn(t)
	require.NoError(t, s.Set("web", entries(1)...))
	f := follow(t, config(s))
	f.whole(t, "web", 1)
	awaitRequests(t, s, "web", 4) // twice
	if len(f.updates) > 0 {
		t.Errorf("%+v", <-f.updates)
	}
	require.NoError(t, s.Set("web", entries(2)...))
	f.whole(t, "web", 2)
}

// TestOthersGoOn: a service that fails for good neither blanks itself nor keeps another waiting.
func TestOthersGoOn(t *testing.T) {
	t.Parallel()
	s := newStandIn(t)
	for range 1000 {
		s.Script("web", standin.Fail(http.StatusInternalServerError))
	}
	c := config(s)
	c.Watches = append(c.Watches, consul.Watch{Name: "dns", Service: "dns"})
	f := follow(t, c)
	for n := 1; n <= 3; n++ {
		require.NoError(t, s.Set("dns", entries(n)...))
		for {
			a := f.next(t)
			if a.Service == "web" {
				if a.Problem() == "" {
					t.Fatalf("a failure passes for an answer: %+v", a)
				}
			} else if len(a.Instances) == n {
				break
			}
		}
	}
}

// TestRetryAfterIsHeeded: an answer that asks to come later is heeded, up to the greatest delay.
func TestRetryAfterIsHeeded(t *testing.T) {
	t.Parallel()
	s := newStandIn(t)
	c := config(s)
	c.Retry.Max = 700 * time.Millisecond
	s.Script("web", standin.TooManyRequests(3600))
	f := follow(t, c)
	refused := f.problem(t, "HTTP status 429")
	if back := f.whole(t, "web", 0); back.Facts.At.Sub(refused.Facts.At) < c.Retry.Max {
		t.Errorf("asked again after %v", back.Facts.At.Sub(refused.Facts.At))
	}
}

// TestFailOver: an address that fails is left for the next, and the first is tried again after the
// last.
func TestFailOver(t *testing.T) {
	t.Parallel()
	first, second := newStandIn(t), newStandIn(t)
	require.NoError(t, first.Set("web", entries(1)...))
	require.NoError(t, second.Set("web", entries(2)...))
	first.Script("web", standin.Fail(http.StatusInternalServerError))
	second.Script("web", standin.Fail(http.StatusBadGateway))
	f := follow(t, config(first, second))
	for _, want := range []*standin.StandIn{first, second} {
		if a := f.problem(t, "HTTP status 50"); a.Facts.Address != want.Address {
			t.Errorf("the failure is %s's, want %s", a.Facts.Address, want.Address)
		}
	}
	if a := f.whole(t, "web", 1); a.Facts.Address != first.Address {
		t.Errorf("the answer is %s's, want %s", a.Facts.Address, first.Address)
	}
}

// TestNobodyThere: an address where nobody listens is an error, not silence.
func TestNobodyThere(t *testing.T) {
	t.Parallel()
	s := standin.NewStandIn()
	c := config(s)
	s.Close()
	f := follow(t, c)
	for range 3 {
		f.problem(t, "connection refused")
	}
}

// TestFlapping: changes that never end are read at a bounded rate, and the last one is seen.
func TestFlapping(t *testing.T) {
	t.Parallel()
	s := newStandIn(t)
	const flaps = 25
	for i := range flaps {
		s.Script("web", standin.AtIndex(uint64(1000+i)))
	}
	begin := time.Now()
	f := follow(t, config(s))
	for range flaps {
		f.whole(t, "web", 0)
	}
	if took := time.Since(begin); took < (flaps-10)*100*time.Millisecond {
		t.Errorf("%d answers in %v", flaps, took)
	}
	require.NoError(t, s.Set("web", entries(1)...))
	f.whole(t, "web", 1)
}

// TestStale: an answer that is too old is asked for again from the leader.
func TestStale(t *testing.T) {
	t.Parallel()
	s := newStandIn(t)
	require.NoError(t, s.Set("web", entries(1)...))
	old := func(r *standin.Reply) { r.Header["X-Consul-Lastcontact"], r.Body = "11000", []byte("[]") }
	s.Script("web", old)
	c := config(s)
	c.Consistency = consul.ConsistencyStale
	f := follow(t, c)
	f.whole(t, "web", 1)
	requests := s.Requests("web")
	if !requests[0].Has("stale") || requests[1].Has("stale") || requests[1].Has("consistent") || requests[1].Has("index") {
		t.Errorf("queries %v", requests)
	}
	c.Consistency = consul.ConsistencyConsistent
	n := len(s.Requests("web"))
	follow(t, c).whole(t, "web", 1)
	awaitRequests(t, s, "web", n+1)
	found := false
	for _, r := range s.Requests("web") {
		found = found || r.Has("consistent")
	}
	if !found {
		t.Error("no query asks for consistency")
	}
}

// TestReplace: what stays is not read anew, what goes is quiet, and what comes is read.
func TestReplace(t *testing.T) {
	t.Parallel()
	s := newStandIn(t)
	c := config(s)
	c.Watches = append(c.Watches, consul.Watch{Name: "old", Service: "old"})
	f := follow(t, c)
	if got := f.next(t).Service + f.next(t).Service; got != "webold" && got != "oldweb" {
		t.Fatalf("read %s", got)
	}
	require.NoError(t, f.Replace([]consul.Watch{c.Watches[0], {Name: "new", Service: "new"}}, nil))
	f.whole(t, "new", 0)
	require.NoError(t, s.Set("old", entries(1)...))
	require.NoError(t, s.Set("web", entries(1)...))
	f.whole(t, "web", 1)
	// The same watch by another definition is another.
	require.NoError(t, f.Replace([]consul.Watch{{Name: "web", Service: "web", Tag: "v4", Filter: "x"}}, nil))
	f.whole(t, "web", 1)
	requests := s.Requests("web")
	if got := requests[len(requests)-1].Get("filter"); got != `"v4" in Service.Tags and (x)` {
		t.Errorf("filter %q", got)
	}
}

// TestTurns: with fewer connections than watches every watch is read, and all within the wait.
func TestTurns(t *testing.T) {
	t.Parallel()
	s := newStandIn(t)
	c := config(s)
	c.Connections, c.Wait, c.Watches = 3, 4*time.Second, nil
	for i := range 10 {
		name := fmt.Sprintf("service-%d", i)
		c.Watches = append(c.Watches, consul.Watch{Name: name, Service: name})
	}
	f := follow(t, c)
	missing := make(map[string]bool)
	for _, w := range c.Watches {
		missing[w.Name] = true
	}
	for len(missing) > 0 {
		a := f.next(t)
		require.NoError(t, a.Err)
		delete(missing, a.Service)
	}
	require.NoError(t, s.Set("service-7", entries(1)...))
	f.whole(t, "service-7", 1)
	requests := s.Requests("service-7")
	if got := requests[len(requests)-1].Get("wait"); got != "1200ms" { // 4 s * 3 of 10
		t.Errorf("the query that saw the change waits for %s", got)
	}
}
