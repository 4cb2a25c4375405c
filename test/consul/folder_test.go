// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	source "github.com/remora-lb/remora/lb/discovery/consul"
	"github.com/remora-lb/remora/test/consul"
	"github.com/remora-lb/remora/test/require"
)

const drainDocument = `{"service": "web", "action": "drain", "backend": "10.0.0.1", "author": "ada", "reason": "disk", "expires": "2999-01-01T00:00:00Z"}`

// TestFolders: overrides and definitions come and go with the keys.
func TestFolders(t *testing.T) {
	t.Parallel()
	a := startAgent(t, consul.Options{})
	c := client(t, a, "")
	configuration := config(a)
	configuration.Overlay, configuration.Definitions = "remora/overlay/", "remora/services/"
	f := follow(t, configuration)
	overlay := func(what string, wanted func(source.Overlay, []source.BadDocument) bool) {
		t.Helper()
		f.await(t, what, func(u source.Update) bool {
			if u.Overlay == nil {
				return false
			}
			require.NoError(t, u.Overlay.Err)
			return wanted(source.ParseOverlay(u.Overlay.Pairs))
		})
	}
	overlay("an empty folder", func(o source.Overlay, bad []source.BadDocument) bool { return len(o)+len(bad) == 0 })
	put(t, c, "remora/overlay/drain", drainDocument)
	overlay("an override", func(o source.Overlay, bad []source.BadDocument) bool {
		verdicts := o.Apply("web", []source.Verdict{{State: source.Active, Backend: backend("10.0.0.1", 1)}}, time.Now())
		return len(bad) == 0 && len(o) == 1 && verdicts[0].State == source.Drain
	})
	put(t, c, "remora/overlay/bad", `{"service": "web"`)
	overlay("a bad document beside a good one", func(o source.Overlay, bad []source.BadDocument) bool {
		return len(o) == 1 && len(bad) == 1 && bad[0].Key == "bad" && strings.Contains(bad[0].Reason, "unexpected EOF")
	})
	_, err := c.KV().DeleteTree("remora/overlay/", nil)
	require.NoError(t, err)
	overlay("the empty folder again", func(o source.Overlay, bad []source.BadDocument) bool { return len(o)+len(bad) == 0 })

	put(t, c, "remora/other", "not in a folder that is read")
	put(t, c, "remora/services/web.yaml", "name: web")
	put(t, c, "remora/services/dns.yaml", "name: dns")
	f.await(t, "two definitions", func(u source.Update) bool {
		if u.Definitions == nil {
			return false
		}
		var got []string
		for _, p := range u.Definitions.Pairs {
			got = append(got, fmt.Sprintf("%s=%s at an index: %v", p.Key, p.Value, p.Index > 0))
		}
		return fmt.Sprint(got) == "[dns.yaml=name: dns at an index: true web.yaml=name: web at an index: true]"
	})
}
