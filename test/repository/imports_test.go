// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package repository tests the repository itself: import arrows, licences, and the commands that
// its documents name.
package repository

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/remora-lb/remora"

// goPackage is what `go list` says of a package.
type goPackage struct {
	ImportPath, Dir                    string
	Imports, TestImports, XTestImports []string
}

func packages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []goPackage
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// foreign says which packages may use a library; docs/architecture.md says why.
var foreign = map[string][]string{
	"github.com/cilium/ebpf":         {"lb/doctor/machine", "lb/dataplane", "lb/attach", "lb/decap", "lb/tcpid", "lb/probetunnel", "lb/offload", "bench", "cmd/remora", "test/corpus", "test/rig"},
	"github.com/vishvananda/netlink": {"lb/doctor/machine", "lb/nexthop", "lb/attach", "bench", "test/rig"},
	"github.com/vishvananda/netns":   {"lb/nexthop", "bench", "test/rig"},
	"go.yaml.in/yaml":                {"lb/config", "lb/katran"},
	"github.com/spf13/cobra":         {"cmd/remora"},
	"github.com/osrg/gobgp":          {"bgp"},
	"github.com/hashicorp/consul":    {"lb/discovery/consul", "test/consul"},
	"github.com/safchain/ethtool":    {"lb/doctor/machine", "bench"},
	"connectrpc.com/connect":         {"lb/api/remora/v1/remorav1connect", "lb/control"},
	"github.com/miekg/dns":           {"healthcheck"},
	"github.com/prometheus":          {"lb/metrics"},
}

// own says which packages of this module each may import; lb itself is allowed to all.
var own = map[string][]string{
	"lb":                               {},
	"lb/config":                        {},
	"lb/maglev":                        {},
	"lb/model":                         {"lb/maglev"},
	"lb/transition":                    {},
	"lb/explain":                       {"lb/model"},
	"lb/plan":                          {"lb/engine", "lb/maglev"},
	"lb/engine":                        {"lb/event", "lb/maglev", "lb/transition"},
	"lb/event":                         {},
	"lb/engine/enginetest":             {"lb/engine"},
	"lb/discovery":                     {"lb/config", "lb/discovery/consul", "lb/discovery/static", "lb/event", "lb/governor", "lb/store"},
	"lb/discovery/static":              {},
	"lb/discovery/consul":              {},
	"lb/governor":                      {},
	"lb/health":                        {"healthcheck", "lb/config", "lb/control", "lb/engine", "lb/event", "lb/governor", "lb/probetunnel"},
	"lb/store":                         {},
	"lb/announce":                      {},
	"lb/nexthop":                       {"lb/event"},
	"bgp":                              {"bgp/bfd"},
	"bgp/bfd":                          {},
	"healthcheck":                      {},
	"lb/api":                           {},
	"lb/api/remora/v1":                 {},
	"lb/api/remora/v1/remorav1connect": {"lb/api/remora/v1"},
	"lb/control":                       {"lb/api/remora/v1", "lb/api/remora/v1/remorav1connect", "lb/event"},
	"lb/attach":                        {},
	"lb/dataplane":                     {"lb/attach", "lb/engine", "lb/event"},
	"lb/metrics":                       {},
	"lb/decap":                         {"lb/attach"},
	"lb/tcpid":                         {"lb/attach"},
	"lb/offload":                       {"lb/dataplane"},
	"lb/doctor":                        {},
	"lb/doctor/machine":                {"lb/doctor"},
	"lb/katran":                        {"lb/config", "lb/maglev"},
	"lb/probetunnel":                   {"lb/attach", "lb/dataplane"},
	"bench":                            {"lb/maglev", "lb/dataplane"},
}

func TestImports(t *testing.T) {
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		if strings.HasPrefix(name, "test/") || name == "cmd/remora" {
			checkForeign(t, name, p.Imports)
			continue
		}
		allowed, known := own[name]
		if !known {
			t.Errorf("package %s is in no row of this test: say what it may import", name)
		}
		for _, imp := range p.Imports {
			to, ours := strings.CutPrefix(imp, module+"/")
			if ours && to != "lb" && !contains(allowed, to) {
				t.Errorf("%s imports %s", name, to)
			}
		}
		checkForeign(t, name, p.Imports)
	}
}

func checkForeign(t *testing.T, name string, imports []string) {
	t.Helper()
	for _, imp := range imports {
		for library, users := range foreign {
			if strings.HasPrefix(imp, library) && !contains(users, name) {
				t.Errorf("%s imports %s, which only %v may", name, imp, users)
			}
		}
		if strings.HasPrefix(imp, module+"/test/") && !strings.HasPrefix(name, "test/") {
			t.Errorf("%s imports the test package %s", name, imp)
		}
	}
}

func contains(list []string, s string) bool {
	for _, one := range list {
		if one == s {
			return true
		}
	}
	return false
}
