// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/require"
)

// fakeSource gives what it is told to.
type fakeSource struct{ s Snapshot }

func (f *fakeSource) Snapshot(context.Context) Snapshot { return f.s }

var at = time.Unix(1_700_000_000, 0)

func vipOf(n byte) lb.VIP {
	return lb.VIP{Addr: netip.AddrFrom4([4]byte{192, 0, 2, n}), Port: 80, Protocol: lb.TCP}
}

// realOf is a real of a VIP with so many packets, each of 100 bytes.
func realOf(id lb.RealID, vip lb.VIP, addr byte, packets uint64) Real {
	backend := netip.AddrFrom4([4]byte{10, 0, 0, addr})
	r := Real{Real: lb.Real{ID: id, VIP: vip, Backend: lb.Backend{Addr: backend}, Generation: 1}, State: "up", Flows: 5, Active: 2}
	r.Tunnel.Destination, r.NextHop.MAC = backend, [6]byte{2}
	r.Traffic = Traffic{packets, 100 * packets}
	return r
}

// full has something of everything.
func full() Snapshot {
	draining := realOf(2, vipOf(1), 12, 20)
	draining.Use, draining.State = lb.RealDraining, "down"
	stale, lost := realOf(3, vipOf(2), 13, 30), realOf(4, vipOf(2), 14, 0)
	stale.NextHop.Stale, lost.NextHop.MAC = true, [6]byte{}
	dp := &DataPlane{
		Attached: at, Removed: Traffic{7, 700}, Flows: 3, Places: 1024, Maps: []Map{{"reals", 4, 63}},
		VIPs: []VIP{
			{VIPEntry: lb.VIPEntry{VIP: vipOf(1), Service: "web", Ring: lb.Ring{Size: 7}}, Digest: "abc",
				Slots: [lb.SlotStateLen]int{5, 2, 0, 0}, Reals: []Real{realOf(1, vipOf(1), 11, 10), draining}, Health: &Health{Servable: true}},
			{VIPEntry: lb.VIPEntry{VIP: vipOf(2), Service: "dns", Ring: lb.Ring{Size: 7}}, Reals: []Real{stale, lost}},
		},
	}
	dp.Reasons[lb.ReasonForwarded], dp.FlowEvents[lb.FlowEvicted] = 67, 9
	return Snapshot{
		Version: "v1", DataPlane: dp, Interfaces: []Interface{{"eth0", "native", "asked for"}},
		Engine:   Engine{Passes: 9, Failures: 1, Changes: 3, LastPass: at, LastApply: at, Settled: true, Problems: 2},
		Checks:   Checks{Results: map[string]uint64{"ok": 5}, Durations: Histogram{Bounds: []float64{0.1, 1}, Counts: []uint64{3, 4}, Count: 5, Sum: 6}},
		NextHops: NextHops{Probes: 4, Resyncs: 1},
		Watches:  []Watch{{Kind: "service", Name: "web", Index: 42, Changed: at, Answered: at, Errors: 2, Failing: true}},
		Governor: Governor{Refused: map[string]uint64{"no_leader": 1}, Held: map[string]uint64{"radius": 2},
			Ended: map[string]uint64{"expired": 3}, Holding: map[string]int{"radius": 1}, Unusable: 4},
		BGP: &BGP{Drained: true, Sessions: []Session{
			{Peer: netip.MustParseAddr("10.0.0.1"), ASN: 65000, State: "established", Since: at, Routes: 2, Flaps: 1, BFD: "up"},
			{Peer: netip.MustParseAddr("10.0.0.2"), ASN: 65000, State: "active", Since: at, BFD: "off"},
		}, VIPs: []Announcement{{VIP: vipOf(1), State: "announced", Code: "served", Announced: true}}},
		Reloads: Reloads{Succeeded: 1, Failed: 2, At: at},
		Events:  map[string]uint64{"backend": 8},
	}
}

// collector shows what the source has.
func collector(t *testing.T, f *fakeSource, change func(*CollectorConfig)) *Collector {
	t.Helper()
	cfg := CollectorConfig{Source: f, PerReal: true}
	if change != nil {
		change(&cfg)
	}
	c, err := NewCollector(cfg)
	require.NoError(t, err)
	return c
}

// scraped are all series but those that differ from run to run: `name{label="value"} value`.
func scraped(t *testing.T, c prometheus.Collector) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	require.NoError(t, registry.Register(c))
	families, err := registry.Gather()
	require.NoError(t, err)
	series := make(map[string]float64)
	for _, family := range families {
		for _, m := range family.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			key := family.GetName() + "{" + strings.Join(labels, ",") + "}"
			switch {
			case m.Counter != nil:
				series[key] = m.Counter.GetValue()
			case m.Gauge != nil:
				series[key] = m.Gauge.GetValue()
			case m.Histogram != nil:
				series[key] = float64(m.Histogram.GetSampleCount())
			}
		}
	}
	return series
}

func TestCollect(t *testing.T) {
	source := &fakeSource{full()}
	c := collector(t, source, nil)
	c.Start(t.Context())
	got := scraped(t, c)
	for key, want := range map[string]float64{
		`remora_dataplane_readable{}`: 1,
		`remora_interface_info{interface="eth0",mode="native",reason="asked for"}`:                      1,
		`remora_packets_total{reason="forwarded",verdict="tx"}`:                                         67,
		`remora_removed_real_bytes_total{}`:                                                             700,
		`remora_real_packets_total{real="10.0.0.11",service="web",vip="192.0.2.1:80/tcp"}`:              10,
		`remora_real_bytes_total{real="10.0.0.12",service="web",vip="192.0.2.1:80/tcp"}`:                2000,
		`remora_vip_packets_total{service="web",vip="192.0.2.1:80/tcp"}`:                                0,
		`remora_ring_slots{service="web",state="moving",vip="192.0.2.1:80/tcp"}`:                        2,
		`remora_ring_info{digest="abc",hash="maglev-v2",service="web",size="7",vip="192.0.2.1:80/tcp"}`: 1,
		`remora_reals{service="web",use="draining",vip="192.0.2.1:80/tcp"}`:                             1,
		`remora_draining_real_flows{real="10.0.0.12",service="web",vip="192.0.2.1:80/tcp"}`:             5,
		`remora_draining_real_active_flows{real="10.0.0.12",service="web",vip="192.0.2.1:80/tcp"}`:      2,
		`remora_flow_table_entries{}`:                                                                   3,
		`remora_flow_table_capacity{}`:                                                                  1024,
		`remora_flow_events_total{event="evicted"}`:                                                     9,
		`remora_map_capacity{map="reals"}`:                                                              63,
		`remora_backends{health="down",service="web",vip="192.0.2.1:80/tcp"}`:                           1,
		`remora_vip_servable{service="web",vip="192.0.2.1:80/tcp"}`:                                     1,
		`remora_health_checks_total{result="ok"}`:                                                       5,
		`remora_health_check_duration_seconds{}`:                                                        5,
		`remora_next_hops{state="resolved"}`:                                                            2,
		`remora_next_hops{state="stale"}`:                                                               1,
		`remora_next_hops{state="unresolved"}`:                                                          1,
		`remora_engine_pass_errors_total{}`:                                                             1,
		`remora_engine_last_pass_timestamp_seconds{}`:                                                   1.7e9,
		`remora_consul_watch_index{kind="service",watch="web"}`:                                         42,
		`remora_consul_watch_failing{kind="service",watch="web"}`:                                       1,
		`remora_governor_refused_answers_total{rule="no_leader"}`:                                       1,
		`remora_governor_holds{rule="radius"}`:                                                          1,
		`remora_bgp_session_state{asn="65000",peer="10.0.0.1",state="established"}`:                     1,
		`remora_bgp_session_state{asn="65000",peer="10.0.0.2",state="established"}`:                     0,
		`remora_bgp_session_bfd_up{asn="65000",peer="10.0.0.1"}`:                                        1,
		`remora_vip_announce_state{code="served",state="announced",vip="192.0.2.1:80/tcp"}`:             1,
		`remora_config_last_reload_successful{}`:                                                        0,
		`remora_config_reloads_total{result="failure"}`:                                                 2,
		`remora_events_total{kind="backend"}`:                                                           8,
		`remora_metrics_series_dropped{}`:                                                               0,
	} {
		if n, there := got[key]; !there || n != want {
			t.Errorf("%s is %v (there: %v), want %v", key, n, there, want)
		}
	}
	for _, absent := range []string{
		`remora_bgp_session_bfd_up{asn="65000",peer="10.0.0.2"}`, `remora_vip_servable{service="dns",vip="192.0.2.2:80/tcp"}`,
		`remora_draining_real_flows{real="10.0.0.11",service="web",vip="192.0.2.1:80/tcp"}`,
	} {
		if _, there := got[absent]; there {
			t.Errorf("%s is there", absent)
		}
	}
}

// TestLittle: a daemon whose maps cannot be read, without BGP and Consul, still has what is left.
func TestLittle(t *testing.T) {
	got := scraped(t, collector(t, &fakeSource{Snapshot{Version: "v1"}}, nil))
	if n, there := got["remora_dataplane_readable{}"]; !there || n != 0 {
		t.Errorf("dataplane_readable is %v (there: %v)", n, there)
	}
	for key := range got {
		if strings.HasPrefix(key, "remora_packets") || strings.HasPrefix(key, "remora_bgp") || strings.HasPrefix(key, "remora_vip") {
			t.Errorf("%s is there", key)
		}
	}
}

func TestLint(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	require.NoError(t, registry.Register(collector(t, &fakeSource{full()}, nil)))
	problems, err := testutil.GatherAndLint(registry)
	require.NoError(t, err)
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestSeriesAreBounded: above the bound all series of reals, and of watches, are left out, and counted.
func TestSeriesAreBounded(t *testing.T) {
	for _, tc := range []struct {
		name                    string
		perReal                 bool
		limit                   int
		reals, watches, dropped int
	}{
		{"all", true, 0, 10, 5, 0},
		{"just fits", true, 10, 10, 5, 0},
		{"one too few for reals", true, 9, 0, 5, 10},
		{"too few for all", true, 4, 0, 0, 15},
		{"not asked for", false, 0, 0, 5, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := scraped(t, collector(t, &fakeSource{full()}, func(c *CollectorConfig) { c.PerReal, c.MaxSeries = tc.perReal, tc.limit }))
			reals, watches := 0, 0
			for key := range got {
				if strings.Contains(key, `real="`) {
					reals++
				}
				if strings.Contains(key, `watch="`) {
					watches++
				}
			}
			if dropped := int(got["remora_metrics_series_dropped{}"]); reals != tc.reals || watches != tc.watches || dropped != tc.dropped {
				t.Errorf("%d series of reals, %d of watches, %d dropped; want %d, %d, %d", reals, watches, dropped, tc.reals, tc.watches, tc.dropped)
			}
		})
	}
}

// TestSameBackendTwice: while a real takes the place of another of the same address, they are one series.
func TestSameBackendTwice(t *testing.T) {
	s := full()
	s.DataPlane.VIPs[0].Reals = []Real{realOf(1, vipOf(1), 11, 10), realOf(5, vipOf(1), 11, 3)}
	if got := scraped(t, collector(t, &fakeSource{s}, nil))[`remora_real_packets_total{real="10.0.0.11",service="web",vip="192.0.2.1:80/tcp"}`]; got != 13 {
		t.Errorf("it has %v packets, want 13", got)
	}
}

// TestRealsOnlyRise: when the older of two reals of one backend goes, their counter does not fall; it begins
// with what they had when the daemon began.
func TestRealsOnlyRise(t *testing.T) {
	source := &fakeSource{}
	set := func(reals ...Real) {
		source.s = Snapshot{DataPlane: &DataPlane{VIPs: []VIP{{VIPEntry: lb.VIPEntry{VIP: vipOf(1), Service: "web"}, Reals: reals}}}}
	}
	c := collector(t, source, nil)
	set(realOf(1, vipOf(1), 11, 1000))
	c.Start(t.Context())
	for _, tc := range []struct {
		name  string
		reals []Real
		want  float64
	}{
		{"at the start", []Real{realOf(1, vipOf(1), 11, 1000)}, 1000},
		{"another comes", []Real{realOf(1, vipOf(1), 11, 1010), realOf(5, vipOf(1), 11, 3)}, 1013},
		{"the older goes", []Real{realOf(5, vipOf(1), 11, 4)}, 1014},
		{"the backend comes anew", []Real{realOf(6, vipOf(1), 11, 2)}, 2},
	} {
		if tc.want == 2 {
			set()
			scraped(t, c)
		}
		set(tc.reals...)
		if got := scraped(t, c)[`remora_real_packets_total{real="10.0.0.11",service="web",vip="192.0.2.1:80/tcp"}`]; got != tc.want {
			t.Errorf("%s: %v packets, want %v", tc.name, got, tc.want)
		}
	}
}

// TestSameWatchTwice: that does not fail the scrape, also if the names differ only in what is mended.
func TestSameWatchTwice(t *testing.T) {
	s := full()
	s.Watches = []Watch{{Kind: "service", Name: "web", Index: 42}, {Kind: "service", Name: "web", Index: 43}, {Kind: "service", Name: "a\xc3"}, {Kind: "service", Name: "a\xc4"}}
	got := scraped(t, collector(t, &fakeSource{s}, nil))
	if n := got[`remora_consul_watch_index{kind="service",watch="web"}`]; n != 42 {
		t.Errorf("the index is %v, want 42", n)
	}
}

// TestCutText: text that was cut off within a letter does not stop a scrape.
func TestCutText(t *testing.T) {
	s := full()
	s.Interfaces[0].Reason = "refus\xc3"
	if got := scraped(t, collector(t, &fakeSource{s}, nil)); got[`remora_interface_info{interface="eth0",mode="native",reason="refus?"}`] != 1 {
		t.Error("the interface is missing")
	}
}

// TestVIPsOnlyRise: the counter of a VIP begins at 0 and never falls, whatever becomes of its reals.
func TestVIPsOnlyRise(t *testing.T) {
	source := &fakeSource{}
	set := func(reals ...Real) {
		source.s = Snapshot{DataPlane: &DataPlane{VIPs: []VIP{{VIPEntry: lb.VIPEntry{VIP: vipOf(1), Service: "web"}, Reals: reals}}}}
	}
	c := collector(t, source, nil)
	set(realOf(1, vipOf(1), 11, 1000))
	c.Start(t.Context())
	other := realOf(1, vipOf(1), 12, 4)
	again := realOf(1, vipOf(1), 11, 2)
	again.Generation = 2
	for _, tc := range []struct {
		name  string
		reals []Real
		want  float64
	}{
		{"at the start", []Real{realOf(1, vipOf(1), 11, 1000)}, 0},
		{"packets", []Real{realOf(1, vipOf(1), 11, 1010)}, 10},
		{"a real comes", []Real{realOf(1, vipOf(1), 11, 1010), realOf(2, vipOf(1), 13, 5)}, 15},
		{"one goes", []Real{realOf(2, vipOf(1), 13, 6)}, 16},
		{"its id is another's", []Real{realOf(2, vipOf(1), 13, 6), other}, 20},
		{"its id is its own again", []Real{realOf(2, vipOf(1), 13, 6), again}, 22},
		{"a counter begins anew", []Real{realOf(2, vipOf(1), 13, 1), again}, 23},
	} {
		set(tc.reals...)
		if got := scraped(t, c)[`remora_vip_packets_total{service="web",vip="192.0.2.1:80/tcp"}`]; got != tc.want {
			t.Errorf("%s: %v packets, want %v", tc.name, got, tc.want)
		}
	}
	source.s.DataPlane.VIPs = nil
	scraped(t, c)
	if len(c.sums.vips) != 0 || len(c.sums.backends) != 0 || len(c.sums.reals) != 0 {
		t.Errorf("of a VIP that is gone it remembers %v", c.sums.vips)
	}
}

func TestCollectorRefuses(t *testing.T) {
	_, err := NewCollector(CollectorConfig{MaxSeries: -1})
	require.ErrorSays(t, err, "Source: there is none", "MaxSeries: -1 is negative")
}

// typeOf is a metric's type in words.
func typeOf(m *metric) string {
	return map[prometheus.ValueType]string{
		prometheus.CounterValue: "counter", prometheus.GaugeValue: "gauge", prometheus.UntypedValue: "histogram",
	}[m.kind]
}

// TestDocument: docs/metrics.md describes every metric, with its type and labels, and no other.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile("../../docs/metrics.md")
	require.NoError(t, err)
	rows := make(map[string]string)
	for _, line := range strings.Split(string(text), "\n") {
		if m := regexp.MustCompile("^\\| `(remora_[a-z_]+)` ").FindStringSubmatch(line); m != nil {
			if rows[m[1]] != "" {
				t.Errorf("%s is described twice", m[1])
			}
			rows[m[1]] = line
		}
	}
	for _, m := range newFamilies().all {
		var labels []string
		for _, l := range m.labels {
			labels = append(labels, "`"+l+"`")
		}
		want := fmt.Sprintf("| `%s` | %s | %s | %s |", m.name, typeOf(m), strings.Join(labels, ", "), m.help)
		if rows[m.name] != want {
			t.Errorf("the document has\n%s\nwant\n%s", rows[m.name], want)
		}
		delete(rows, m.name)
	}
	for name := range rows {
		t.Errorf("%s is described, and is no metric", name)
	}
}

// TestEveryMetricIsCollected: of a daemon with everything, every family has a series of the labels that it
// is described with.
func TestEveryMetricIsCollected(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	require.NoError(t, registry.Register(collector(t, &fakeSource{full()}, nil)))
	families, err := registry.Gather()
	require.NoError(t, err)
	labels := make(map[string][]string)
	for _, f := range families {
		names := []string{}
		for _, l := range f.Metric[0].Label {
			names = append(names, l.GetName())
		}
		labels[f.GetName()] = names
	}
	for _, m := range newFamilies().all {
		want := slices.Sorted(slices.Values(m.labels))
		if got, there := labels[m.name]; !there || !slices.Equal(got, want) {
			t.Errorf("%s has labels %v (there: %v), want %v", m.name, got, there, want)
		}
	}
}
