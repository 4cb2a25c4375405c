// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul

import (
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/hashicorp/consul/api"
)

// token is the ACL token of requests. Its methods may be called concurrently.
type token struct {
	// file, if not empty, holds the token.
	file string

	mu sync.Mutex
	// value is the token, or the last one that the file held; guarded by mu.
	value string
}

// newToken chooses where the token comes from: configuration before environment, and in each the
// file before the value.
func newToken(c ClientConfig, env *api.Config) *token {
	switch {
	case c.TokenFile != "":
		return &token{file: c.TokenFile}
	case c.Token != "":
		return &token{value: c.Token}
	case env.TokenFile != "":
		return &token{file: env.TokenFile}
	}
	return &token{value: env.Token}
}

// get is the token to send now; empty means none. A file that is rotated can be away or empty for a
// moment: then the last token is used. It is an error only if there never was one.
func (t *token) get() (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.file == "" {
		return t.value, nil
	}
	data, err := os.ReadFile(t.file)
	if value := strings.TrimSpace(string(data)); err == nil && value != "" {
		t.value = value
	}
	switch {
	case t.value != "":
		return t.value, nil
	case err != nil:
		return "", fmt.Errorf("read token: %v", err)
	}
	return "", fmt.Errorf("read token: %q is empty", t.file)
}
