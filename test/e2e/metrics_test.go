// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/remora-lb/remora/test/require"
	"github.com/remora-lb/remora/test/rig"
)

const (
	metricsAddress    = "127.0.0.1:9645"
	prometheusAddress = "127.0.0.1:9090"
	metricsSection    = "metrics: {listen: \"" + metricsAddress + "\"}\n"
)

// soakTime is how long Prometheus runs: REMORA_SOAK, such as 2m, or 20 s.
func soakTime(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("REMORA_SOAK")
	if text == "" {
		return 20 * time.Second
	}
	d, err := time.ParseDuration(text)
	require.NoError(t, err)
	return d
}

// local asks a server on the balancer's loopback interface.
func (b *bed) local(t *testing.T, args ...string) (string, error) {
	t.Helper()
	return b.balancer.Run(within(t), "curl", append([]string{"-sS", "--fail", "--max-time", "10"}, args...)...)
}

// startPrometheus runs Prometheus on the balancer, which scrapes the daemon each second and has the sample's
// alerting rules.
func (b *bed) startPrometheus(t *testing.T) *rig.Process {
	t.Helper()
	rules, err := filepath.Abs("../../configs/alerts.yaml")
	require.NoError(t, err)
	config := filepath.Join(b.Dir, "prometheus.yml")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `
global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
  - job_name: remora
    static_configs: [{targets: [%q]}]
`, rules, metricsAddress), 0o600))
	p, err := b.balancer.Start("prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(b.Dir, "prometheus"),
		"--web.listen-address="+prometheusAddress, "--log.level=warn")
	require.NoError(t, err)
	waitFor(t, "Prometheus", func() error {
		if err := p.Running(); err != nil {
			return err
		}
		_, err := b.local(t, "http://"+prometheusAddress+"/-/ready")
		return err
	})
	return p
}

// prometheus asks Prometheus's API.
func (b *bed) prometheus(t *testing.T, answer any, args ...string) {
	t.Helper()
	out, err := b.local(t, args...)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal([]byte(out), answer))
}

// query is the value of an expression that has exactly one.
func (b *bed) query(t *testing.T, expr string) (float64, error) {
	t.Helper()
	var answer struct {
		Data struct {
			Result []struct {
				Value [2]any `json:"value"`
			} `json:"result"`
		} `json:"data"`
	}
	b.prometheus(t, &answer, "--get", "--data-urlencode", "query="+expr, "http://"+prometheusAddress+"/api/v1/query")
	if n := len(answer.Data.Result); n != 1 {
		return 0, fmt.Errorf("%s has %d values", expr, n)
	}
	text, _ := answer.Data.Result[0].Value[1].(string)
	return strconv.ParseFloat(text, 64)
}

// TestPrometheus: a stock Prometheus scrapes the daemon under traffic without a failure, evaluates the
// sample's alerting rules, and has the numbers that remora status has.
func TestPrometheus(t *testing.T) {
	require.Tools(t, "prometheus")
	b := newBed(t, rig.Config{Servers: 2})
	b.startServers(t, ipv4)
	b.write(t, b.Servers, ipv4, metricsSection)
	b.startDaemon(t)
	waitFor(t, "metrics", func() error {
		_, err := b.local(t, "http://"+metricsAddress+"/metrics")
		return err
	})
	p := b.startPrometheus(t)
	began := time.Now()
	for time.Since(began) < soakTime(t) {
		b.assertShared(t, vip4(), b.Servers...)
		b.assertShared(t, vip6(), b.Servers...)
	}
	require.NoError(t, p.Running())
	b.checkScrapes(t, time.Since(began))
	b.checkRules(t)
	b.checkNumbers(t)
	require.NoError(t, p.Stop(waitTimeout))
}

// checkScrapes demands that all scrapes of the time succeeded.
func (b *bed) checkScrapes(t *testing.T, during time.Duration) {
	t.Helper()
	var targets struct {
		Data struct {
			ActiveTargets []struct{ Health, LastError string }
		}
	}
	b.prometheus(t, &targets, "http://"+prometheusAddress+"/api/v1/targets")
	if list := targets.Data.ActiveTargets; len(list) != 1 || list[0].Health != "up" || list[0].LastError != "" {
		t.Errorf("the targets are %+v", list)
	}
	window := fmt.Sprintf("[%ds]", int(during.Seconds())+1)
	scrapes, err := b.query(t, `count_over_time(up{job="remora"}`+window+`)`)
	require.NoError(t, err)
	succeeded, err := b.query(t, `sum_over_time(up{job="remora"}`+window+`)`)
	require.NoError(t, err)
	if scrapes < 5 || succeeded != scrapes {
		t.Errorf("%v of %v scrapes succeeded", succeeded, scrapes)
	}
	samples, err := b.query(t, `scrape_samples_post_metric_relabeling{job="remora"}`)
	require.NoError(t, err)
	if samples < 100 {
		t.Errorf("a scrape has %v samples", samples)
	}
	slowest, err := b.query(t, `max_over_time(scrape_duration_seconds{job="remora"}`+window+`)`)
	require.NoError(t, err)
	t.Logf("%v scrapes of %v samples, the slowest in %v s", scrapes, samples, slowest)
	own, err := b.local(t, "http://"+prometheusAddress+"/metrics")
	require.NoError(t, err)
	for line := range strings.Lines(own) {
		if strings.HasPrefix(line, "prometheus_target_scrapes_") && !strings.HasSuffix(strings.TrimSpace(line), " 0") {
			t.Errorf("Prometheus complains: %s", line)
		}
	}
}

// checkRules demands that Prometheus can evaluate all rules, and that none of them sees anything amiss.
func (b *bed) checkRules(t *testing.T) {
	t.Helper()
	var rules struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, State, LastError string }
			}
		}
	}
	b.prometheus(t, &rules, "http://"+prometheusAddress+"/api/v1/rules")
	n := 0
	for _, group := range rules.Data.Groups {
		for _, r := range group.Rules {
			n++
			if r.Health != "ok" || r.State != "inactive" {
				t.Errorf("rule %s: health %s, state %s, %s", r.Name, r.Health, r.State, r.LastError)
			}
		}
	}
	if n < 12 {
		t.Errorf("Prometheus has %d rules", n)
	}
}

// checkNumbers waits until Prometheus has the numbers of remora status; there is no traffic any more.
func (b *bed) checkNumbers(t *testing.T) {
	t.Helper()
	s, err := b.status(t.Context())
	require.NoError(t, err)
	want := map[string]float64{
		`remora_packets_total{reason="forwarded"}`: float64(s.Reasons["forwarded"]),
		`sum(remora_real_packets_total)`:           float64(s.Reasons["forwarded"]),
		`remora_flow_table_entries`:                float64(s.Flows.Used),
		`remora_dataplane_readable`:                1,
		`remora_metrics_series_dropped`:            0,
		`count(remora_ring_info)`:                  float64(len(s.VIPs)),
	}
	for _, v := range s.VIPs {
		for _, r := range v.Reals {
			want[fmt.Sprintf("remora_real_packets_total{vip=%q,real=%q}", v.VIP, r.Address)] = float64(r.Packets)
		}
		want[fmt.Sprintf("remora_vip_packets_total{vip=%q}", v.VIP)] = float64(v.Packets)
		want[fmt.Sprintf(`remora_ring_slots{vip=%q,state="stable"}`, v.VIP)] = float64(v.Slots["stable"])
	}
	if s.Reasons["forwarded"] == 0 {
		t.Error("nothing was forwarded")
	}
	waitFor(t, "the same numbers", func() error {
		var errs []error
		for expr, n := range want {
			if got, err := b.query(t, expr); err != nil || got != n {
				errs = append(errs, fmt.Errorf("%s is %v, not %v; error %v", expr, got, n, err))
			}
		}
		return errors.Join(errs...)
	})
}

// TestMetricsListener: a port that is another's is taken when it is free, and until then status says so;
// the endpoints say how the daemon is; and events tell what happened.
func TestMetricsListener(t *testing.T) {
	b := newBed(t, rig.Config{Servers: 1})
	b.startServers(t, ipv4)
	b.write(t, b.Servers, ipv4, metricsSection)
	var other net.Listener
	require.NoError(t, b.balancer.Do(func() (err error) {
		other, err = net.Listen("tcp", metricsAddress)
		return err
	}))
	defer other.Close()
	b.startDaemon(t)
	listener := func() (l metricsListener) {
		t.Helper()
		command := b.remora.Status("-o", "json", "--interval", "0s", "--socket", b.remora.Socket())
		out, err := b.balancer.Run(within(t), command[0], command[1:]...)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal([]byte(out), &l))
		return l
	}
	waitFor(t, "the failure in the status", func() error {
		if l := listener().Metrics; l.Serving || l.Listen != metricsAddress || !strings.Contains(l.Error, "address already in use") {
			return fmt.Errorf("it has %+v", l)
		}
		return nil
	})
	b.assertShared(t, vip4(), b.Servers...)
	other.Close()
	waitFor(t, "the listener", func() error {
		if l := listener().Metrics; !l.Serving || l.Error != "" {
			return fmt.Errorf("it has %+v", l)
		}
		return nil
	})
	for path, part := range map[string]string{"/healthz": "engine: ok", "/readyz": "attached: ok", "/readyz?format=json": `"ok":true`} {
		if out, err := b.local(t, "http://"+metricsAddress+path); err != nil || !strings.Contains(out, part) {
			t.Errorf("%s answers %q, error %v", path, out, err)
		}
	}
	b.control(t, "drain", b.Servers[0].IPv4.String())
	for _, part := range []string{
		"attachment " + rig.BalancerInterface + ": detached -> ", "backend web 192.0.2.10:80/tcp " + b.Servers[0].IPv4.String() + ": none -> active",
		b.Servers[0].IPv4.String() + ": active -> draining (drained by an operator",
	} {
		waitFor(t, part, func() error {
			if out := b.control(t, "events"); !strings.Contains(out, part) {
				return fmt.Errorf("the events are\n%s", out)
			}
			return nil
		})
	}
}

// metricsListener is what remora status has of the listener.
type metricsListener struct {
	Metrics struct {
		Listen  string `json:"listen"`
		Serving bool   `json:"serving"`
		Error   string `json:"error"`
	} `json:"metrics"`
}
