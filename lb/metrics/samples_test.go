// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/remora-lb/remora/test/require"
)

const (
	alerts    = "../../configs/alerts.yaml"
	dashboard = "../../configs/grafana-dashboard.json"
)

// names are those of all metrics, and those that a histogram's series have.
func names() map[string]*metric {
	all := make(map[string]*metric)
	for _, m := range newFamilies().all {
		all[m.name] = m
		if typeOf(m) == "histogram" {
			all[m.name+"_bucket"], all[m.name+"_sum"], all[m.name+"_count"] = m, m, m
		}
	}
	return all
}

// selector is a metric with its label matchers.
var selector = regexp.MustCompile(`\b(remora_[a-z_]+)(\{[^}]*\})?`)

// checkSelectors fails for metrics and labels that there are not, and returns how many metrics it saw.
func checkSelectors(t *testing.T, text string) int {
	t.Helper()
	known, seen := names(), 0
	for _, found := range selector.FindAllStringSubmatch(text, -1) {
		m := known[found[1]]
		if m == nil {
			t.Errorf("there is no metric %s", found[1])
			continue
		}
		seen++
		for _, match := range regexp.MustCompile(`([a-z_]+)\s*(=~|!~|!=|=)"`).FindAllStringSubmatch(found[2], -1) {
			label := match[1]
			if label != "instance" && label != "job" && !strings.Contains(" "+strings.Join(m.labels, " ")+" ", " "+label+" ") {
				t.Errorf("%s has no label %s", m.name, label)
			}
		}
	}
	return seen
}

func TestAlertsNameMetrics(t *testing.T) {
	text, err := os.ReadFile(alerts)
	require.NoError(t, err)
	if seen := checkSelectors(t, string(text)); seen < 15 {
		t.Errorf("found %d metrics, which are too few", seen)
	}
}

// TestAlertsAreComplete: each rule has what a person needs who is woken by it, and a test of its own.
func TestAlertsAreComplete(t *testing.T) {
	text, err := os.ReadFile(alerts)
	require.NoError(t, err)
	tests, err := os.ReadFile("testdata/alerts_test.yaml")
	require.NoError(t, err)
	rules := strings.Split(string(text), "- alert: ")[1:]
	if len(rules) < 12 {
		t.Errorf("there are %d rules", len(rules))
	}
	for _, rule := range rules {
		name, body, _ := strings.Cut(rule, "\n")
		for _, part := range []string{"summary: ", "description: ", "`remora ", "severity: "} {
			if !strings.Contains(body, part) {
				t.Errorf("rule %s lacks %s", name, part)
			}
		}
		if !strings.Contains(string(tests), "- alertname: "+name+"\n") {
			t.Errorf("rule %s has no test in testdata/alerts_test.yaml", name)
		}
	}
}

// TestPromtool: Prometheus's own tool takes the rules, and they fire as they should.
func TestPromtool(t *testing.T) {
	require.Tools(t, "promtool")
	for _, args := range [][]string{{"check", "rules", alerts}, {"test", "rules", "testdata/alerts_test.yaml"}} {
		if out, err := exec.Command("promtool", args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

func TestDashboard(t *testing.T) {
	text, err := os.ReadFile(dashboard)
	require.NoError(t, err)
	var d struct {
		Title, UID string
		Panels     []struct {
			ID          int
			Type, Title string
			Targets     []struct{ Expr string }
		}
		Templating struct {
			List []struct{ Name, Definition string }
		}
	}
	require.NoError(t, json.Unmarshal(text, &d))
	seen, ids := 0, make(map[int]bool)
	for _, p := range d.Panels {
		if p.Title == "" || ids[p.ID] || p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %d %q has no title, no query, or the number of another", p.ID, p.Title)
		}
		ids[p.ID] = true
		for _, target := range p.Targets {
			seen += checkSelectors(t, target.Expr)
		}
	}
	for _, v := range d.Templating.List {
		checkSelectors(t, v.Definition)
	}
	if d.Title == "" || d.UID == "" || seen < 30 {
		t.Errorf("title %q, %d metrics", d.Title, seen)
	}
}
