// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Prober tells how the daemon is. It may be called from several goroutines, and does not block for long.
type Prober interface {
	// Alive are the conditions without which a restart may help.
	Alive(now time.Time) []Condition
	// Ready are the conditions under which the balancer does what its configuration says.
	Ready(now time.Time) []Condition
}

// Condition is something that must be so. Detail says how it is, for people; it may be empty.
type Condition struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
}

// health answers with conditions: status 200 if all hold, else 503; text, or JSON for who accepts that
// or asks for ?format=json.
func health(conditions func(time.Time) []Condition) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		list, ok := conditions(time.Now()), true
		for _, c := range list {
			ok = ok && c.OK
		}
		body, kind := healthText(list), "text/plain; charset=utf-8"
		if r.FormValue("format") == "json" || strings.Contains(r.Header.Get("Accept"), "application/json") {
			body, kind = healthJSON(ok, list), "application/json"
		}
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Cache-Control", "no-store")
		if !ok {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = w.Write(body) // an error means that the caller has gone
	}
}

func healthText(list []Condition) []byte {
	var b strings.Builder
	for _, c := range list {
		word := "ok"
		if !c.OK {
			word = "NOT OK"
		}
		fmt.Fprintf(&b, "%s: %s", c.Name, word)
		if c.Detail != "" {
			fmt.Fprintf(&b, ", %s", c.Detail)
		}
		b.WriteByte('\n')
	}
	return []byte(b.String())
}

func healthJSON(ok bool, list []Condition) []byte {
	// These types always can be encoded.
	body, _ := json.Marshal(struct {
		OK         bool        `json:"ok"`
		Conditions []Condition `json:"conditions"`
	}{ok, list})
	return append(body, '\n')
}
