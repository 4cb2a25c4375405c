// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func testTrafficReport() TrafficReport {
	trial := func(role string, offered, sent float64, lost uint64) Trial {
		return Trial{
			Role: role, Target: Remora, Generator: "live frames", Placement: placementName(true), Threads: 1, Size: "64",
			Destination: TrafficVIP4().String(), Flows: 65536, Offered: offered, Seconds: 1, Sent: 1_000_000, Received: 1_000_000 - lost, Lost: lost,
			SentMpps: sent, ReceivedMpps: sent, WireMbps: sent * 88 * 8, CPUPerMpps: 0.25, Latency: Latency{Samples: 1000, P50: 10, P90: 20, P99: 30, P999: 40, Max: 50},
			Balance: Balance{Servers: 100, Least: 0.9, Most: 1.1, Deviation: 0.05, Chance: 0.04}, Counters: map[string]uint64{"program 0: rx_drops": 3},
		}
	}
	return TrafficReport{
		Head:     testHead(KindTraffic),
		Searches: []Search{{Size: "64", Destination: TrafficVIP4().String(), Threads: 1, Mpps: 1.5, WireMbps: 1056, Trials: 2, CPUPerMpps: 0.25, Latency: Latency{Samples: 1000, P50: 10, P90: 20, P99: 30, P999: 40, Max: 50}}},
		Trials:   []Trial{trial(roleFree, 0, 2, 500_000), trial(roleSearch, 1_500_000, 1.5, 0), trial(roleLatency, 1_500_000, 1.5, 0), trial(roleCurve, 1_800_000, 1.8, 10_000)},
	}
}

func testControlReport() ControlReport {
	return ControlReport{Head: testHead(KindControl), Rows: []ControlRow{
		{ControlScale: ControlScale{10, 100, SmallRing}, FirstApply: 0.05, ChangeAll: 0.01, Change: Spread{1, 2, 3}, HeapMB: 2, MapsMB: 17, Start: 0.1, Adopt: 0.08, StartMB: 60},
		{ControlScale: ControlScale{1000, 100, SmallRing}, FirstApply: 1.5, ChangeAll: 0.7, Change: Spread{300, 400, 500}, HeapMB: 196, MapsMB: 68},
	}}
}

func testChurnReport() ChurnReport {
	return ChurnReport{Head: testHead(KindChurn), Flows: 100, Servers: 10, Window: 4, Rows: []ChurnRow{
		{Scenario: "add", Mode: "never", Changes: 3, Began: 140, Packets: 998, Moved: 20},
	}}
}

func allReports() []Report {
	return []Report{testReport(), testVethReport(), testRingReport(), testChurnReport(), testTrafficReport(), testControlReport()}
}

func TestReportsAreReadAsWritten(t *testing.T) {
	for _, r := range allReports() {
		t.Run(r.Header().Kind, func(t *testing.T) {
			if p, ok := r.(ProgramReport); ok { // no measurement makes a row with neither figures nor an error
				for i := range p.Rows {
					if p.Rows[i].Error == "" && len(p.Rows[i].Ratios) == 0 {
						p.Rows[i].Ratios = []float64{p.Rows[i].Ratio}
					}
				}
			}
			var raw bytes.Buffer
			if err := WriteJSON(&raw, r); err != nil {
				t.Fatal(err)
			}
			got, err := ReadReport(&raw)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(r, got); diff != "" {
				t.Errorf("read differs (-written +read):\n%s", diff)
			}
		})
	}
}

func TestReadReportRefuses(t *testing.T) {
	var whole bytes.Buffer
	if err := WriteJSON(&whole, testTrafficReport()); err != nil {
		t.Fatal(err)
	}
	good := whole.String()
	if _, err := ReadReport(strings.NewReader(good)); err != nil {
		t.Fatal(err)
	}
	replaced := func(from, to string) string {
		t.Helper()
		if !strings.Contains(good, from) {
			t.Fatalf("%q is not in the report", from)
		}
		return strings.Replace(good, from, to, 1)
	}
	for _, tc := range []struct{ name, in, want string }{
		{"nothing", "", "unexpected end of JSON input"},
		{"no JSON", "kind: prog", "invalid character"},
		{"another document", `{"name": "x"}`, "schema 0, this program reads 1"},
		{"later schema", replaced(`"schema": 1`, `"schema": 2`), "schema 2, this program reads 1"},
		{"unknown kind", replaced(`"kind": "traffic"`, `"kind": "war"`), `kind "war" is none`},
		{"another kind", replaced(`"kind": "traffic"`, `"kind": "prog"`), `unknown field "searches"`},
		{"unknown field", replaced(`"threads"`, `"treads"`), `unknown field "treads"`},
		{"wrong type", replaced(`"threads": 1`, `"threads": "one"`), "cannot unmarshal string"},
		{"cut off", good[:len(good)/2], "unexpected end of JSON input"},
		{"two reports", good + good, "invalid character"},
		{"no machine", replaced(`"kernel": "6.18.0"`, `"kernel": ""`), "machine: kernel, arch or cpus are missing"},
		{"no time", replaced(`2026-01-02T03:04:05Z`, `0001-01-01T00:00:00Z`), "taken: it has no time"},
		{"too many lost", replaced(`"lost": 500000`, `"lost": 5000000`), "trials[0]: more packets lost than sent"},
		{"unknown role", replaced(`"role": "curve"`, `"role": "bend"`), `trials[3].role: "bend" is unknown`},
		{"no figure", replaced(`"sent_mpps": 2`, `"sent_mpps": -2`), "trials[0]: -2 is no figure"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, err := ReadReport(strings.NewReader(tc.in))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("it gives %v, %v, want %q", r, err, tc.want)
			}
		})
	}
	if _, err := ReadReport(&endless{}); err == nil || !strings.Contains(err.Error(), "it has more than") {
		t.Errorf("an endless report gives %v", err)
	}
}

// endless has no end.
type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

func TestReadReportRefusesRows(t *testing.T) {
	row := Row{Target: "x", Case: "tcp4-ack", UnitCase: "tcp4-ack", Flows: 1, Ratios: []float64{1}}
	changed := func(f func(*Row)) ProgramReport {
		own := row
		f(&own)
		return ProgramReport{Head: testHead(KindProg), Unit: Unit, Rows: []Row{own}}
	}
	for _, tc := range []struct {
		name string
		r    Report
		want string
	}{
		{"no rows", ProgramReport{Head: testHead(KindProg), Unit: Unit}, "rows: there are none"},
		{"no unit", ProgramReport{Head: testHead(KindProg), Rows: []Row{row}}, "unit: it is missing"},
		{"no target", changed(func(r *Row) { r.Target = "" }), "target or case is missing"},
		{"flows", changed(func(r *Row) { r.Flows = 3 }), "3 is not a power of two"},
		{"no figures", changed(func(r *Row) { r.Ratios = nil }), "neither figures nor an error"},
		{"figures and an error", changed(func(r *Row) { r.Error = "x" }), "neither figures nor an error, or both"},
		{"too great", changed(func(r *Row) { r.Ratios[0] = 1e30 }), "1e+30 is no figure"},
		{"no rings", RingReport{Head: testHead(KindRing)}, "rows: there are none"},
		{"ring", RingReport{Head: testHead(KindRing), Rows: []RingRow{{Size: 5}}}, "size or members is missing"},
		{"spread", RingReport{Head: testHead(KindRing), Rows: []RingRow{{Size: 5, Members: 2, Build: Spread{2, 1, 3}}}}, "is not in order"},
		{"no scales", ControlReport{Head: testHead(KindControl)}, "rows: there are none"},
		{"no flows", ChurnReport{Head: testHead(KindChurn), Rows: []ChurnRow{{Scenario: "x", Mode: "y"}}}, "flows or servers is missing"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			row.Ratios = []float64{1}
			if err := tc.r.validate(); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("it gives %v, want %q", err, tc.want)
			}
		})
	}
}

// An interrupted measurement may have nothing; that is said.
func TestInterruptedReport(t *testing.T) {
	r := ProgramReport{Head: testHead(KindProg), Unit: Unit}
	r.Interrupted = true
	if err := r.validate(); err != nil {
		t.Error(err)
	}
	var text bytes.Buffer
	if err := WriteText(&text, r); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text.String(), "# note: interrupted") || Measured(r) {
		t.Errorf("report is\n%s", text.String())
	}
}

func TestRenewDocument(t *testing.T) {
	const document = "# Title\n\n<!-- bench:ring -->\nold ring\n<!-- bench:end -->\ntext\n<!-- bench:control -->\nold\n<!-- bench:end -->\nend\n"
	got, err := RenewDocument([]byte(document), []Report{testControlReport()})
	if err != nil {
		t.Fatal(err)
	}
	text := string(got)
	for _, want := range []string{"# Title\n\n<!-- bench:ring -->\nold ring\n<!-- bench:end -->\ntext\n<!-- bench:control -->\n- kernel", "| 10 | 100 | 4093 |", "|\n<!-- bench:end -->\nend\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	if strings.Contains(text, "\nold\n") {
		t.Errorf("what was there is still there:\n%s", text)
	}
	again, err := RenewDocument(got, []Report{testControlReport()})
	if err != nil || string(again) != text {
		t.Errorf("renewing it again gives %v\n%s", err, again)
	}
	for name, bad := range map[string]string{
		"no end": "<!-- bench:control -->\n", "nested": "<!-- bench:ring --> <!-- bench:control --> <!-- bench:end -->", "no region": "text",
	} {
		if _, err := RenewDocument([]byte(bad), []Report{testControlReport()}); err == nil {
			t.Errorf("%s: it succeeds", name)
		}
	}
}

func TestWriteHTML(t *testing.T) {
	evil := testVethReport()
	evil.Rows[1].Target = `<script>alert("x")</script>`
	for i := range evil.Rows {
		evil.Rows[i].Ratios = []float64{evil.Rows[i].Ratio}
	}
	var page bytes.Buffer
	if err := WriteHTML(&page, append(allReports()[2:], testReport(), evil)); err != nil {
		t.Fatal(err)
	}
	text := page.String()
	for _, want := range []string{
		"<h2>One program</h2>", "<h2>Traffic</h2>", "<svg viewBox", "% lost", "Building a ring", "virtual machine", "&lt;script&gt;",
		"remora, not-a-vip, 1 flow: verdict and growth are drop", "from a change to the first packet",
	} {
		if !strings.Contains(strings.ToLower(text), strings.ToLower(want)) {
			t.Errorf("%q is missing", want)
		}
	}
	for _, bad := range []string{"<script", "http:", "https:", "src=", "@import", "url(", "NaN", "ZgotmplZ"} {
		if strings.Contains(text, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	if open, closed := strings.Count(text, "<svg"), strings.Count(text, "</svg>"); open != closed || open < 8 {
		t.Errorf("%d charts begin, %d end", open, closed)
	}
	if err := WriteHTML(&page, nil); err == nil {
		t.Error("a page of nothing is written")
	}
}

func TestNiceScale(t *testing.T) {
	for _, tc := range []struct{ most, step, end float64 }{
		{0, 1, 1}, {-1, 1, 1}, {1, 0.2, 1}, {1.3, 0.5, 1.5}, {6, 1, 6}, {7, 2, 8}, {95, 20, 100}, {1e6, 200000, 1e6}, {0.031, 0.01, 0.04},
	} {
		step, end := niceScale(tc.most)
		if diff := step/tc.step - 1; diff > 1e-9 || diff < -1e-9 {
			t.Errorf("%g: step is %g, want %g", tc.most, step, tc.step)
		}
		if diff := end/tc.end - 1; diff > 1e-9 || diff < -1e-9 {
			t.Errorf("%g: end is %g, want %g", tc.most, end, tc.end)
		}
	}
}

func TestProgress(t *testing.T) {
	var none *Progress
	none.describe("x")
	none.begin(0, 1)
	none.part(0, 1)
	none.Done()
	if NewProgress(&bytes.Buffer{}) != nil {
		t.Error("a buffer is a terminal")
	}
	var out bytes.Buffer
	p := newProgress(&out)
	p.describe("rings of %d", 5)
	p.begin(1, 2)
	if _, err := p.Write([]byte("line\n")); err != nil {
		t.Fatal(err)
	}
	p.part(1, 2)
	p.part(1, 2) // too soon after the last one
	p.Done()
	want := clearLine + " 50 %, 0s left: rings of 5" + clearLine + "line\n" + clearLine + " 75 %, 0s left: rings of 5" + clearLine
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
	if got := progressText(0.25, 30*time.Second, ""); got != " 25 %, 1m30s left" {
		t.Errorf("text is %q", got)
	}
}
