// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const samples = "../../configs/"

func TestSamplesLoad(t *testing.T) {
	files, err := filepath.Glob(samples + "*.yaml")
	if err != nil || len(files) < 3 {
		t.Fatalf("found %d files, error %v", len(files), err)
	}
	for _, file := range files {
		if filepath.Base(file) == "alerts.yaml" {
			continue // it is Prometheus's
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			c, err := Load(file)
			if err != nil {
				t.Fatal(err)
			}
			if len(c.Services) == 0 || len(c.Backends[c.Services[0].Name]) == 0 {
				t.Errorf("the sample balances nothing: %+v", c)
			}
		})
	}
}

// TestFullSampleHasEveryField and the table beside it, so that no field is added in silence.
func TestFullSampleHasEveryField(t *testing.T) {
	data, err := os.ReadFile(samples + "full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile(samples + "README.md")
	if err != nil {
		t.Fatal(err)
	}
	r := &report{file: "full.yaml"}
	doc, ok := decode(parseTree(data, r), len(data), r)
	if !ok || len(r.problems) > 0 {
		t.Fatal(r.problems)
	}
	given := givenFields(reflect.ValueOf(doc), "document", map[string]string{})
	if len(given) < 15 {
		t.Fatalf("found %d fields of the document, which has more: %v", len(given), given)
	}
	for field, path := range given {
		if path == "" {
			t.Errorf("full.yaml lacks %s", field)
			continue
		}
		// An element of a list that is no mapping is described with the list.
		if row := "| `" + strings.TrimSuffix(tablePath(path), "[]") + "` |"; !strings.Contains(string(readme), row) {
			t.Errorf("README.md has no row %s", row)
		}
	}
}

// givenFields finds each field and section in a document, at any depth, by its Go name; its value
// is the longest path where the file has it (a VIP may be text, or a field of a mapping), empty if
// there is none.
func givenFields(v reflect.Value, name string, found map[string]string) map[string]string {
	if v.Kind() == reflect.Slice {
		for i := range v.Len() {
			givenFields(v.Index(i), name, found)
		}
		return found
	}
	if v.Kind() != reflect.Struct {
		return found
	}
	if given := v.FieldByName("given"); given.IsValid() {
		path := ""
		if given.Bool() {
			path = v.FieldByName("path").String()
		}
		if len(path) >= len(found[name]) {
			found[name] = path
		}
	}
	for i := range v.NumField() {
		if f := v.Type().Field(i); f.Name != "place" {
			givenFields(v.Field(i), name+"."+f.Name, found)
		}
	}
	return found
}

// tablePath is a path as the table has it: services[].vips[].ring.
func tablePath(path string) string {
	before, rest, ok := strings.Cut(path, "[")
	for ok {
		_, rest, _ = strings.Cut(rest, "]")
		path = before + "[]" + rest
		var next string
		next, rest, ok = strings.Cut(rest, "[")
		before += "[]" + next
	}
	return path
}
