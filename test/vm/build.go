// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"path/filepath"
)

// build builds the programs of a part without C libraries, so that they run where nothing else is. Go
// keeps what it has built before.
func (w *workshop) build(ctx context.Context, opts options, p part) error {
	for _, t := range p.tests {
		if _, err := w.goTool(ctx, "test", "-c", "-ldflags=-s -w", "-o", filepath.Join(w.dir, t.binary()), "./"+t.pkg); err != nil {
			return fmt.Errorf("build tests of %s: %v", t.pkg, err)
		}
	}
	if opts.binary != "" {
		return nil
	}
	if _, err := w.goTool(ctx, "build", "-trimpath", "-ldflags=-s -w", "-o", w.remora(opts), "./cmd/remora"); err != nil {
		return fmt.Errorf("build remora: %v", err)
	}
	return nil
}

func (w *workshop) goTool(ctx context.Context, args ...string) (string, error) {
	return output(ctx, []string{"CGO_ENABLED=0"}, "go", args...)
}

// remora is the path of the program.
func (w *workshop) remora(opts options) string {
	if opts.binary != "" {
		return opts.binary
	}
	return filepath.Join(w.dir, "remora")
}
