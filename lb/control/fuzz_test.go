// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
)

// FuzzRequest: no body and no type of it is a fault of the daemon's.
func FuzzRequest(f *testing.F) {
	methods := []string{"GetStatus", "Drain", "Undrain", "WatchDrain", "ListDrains", "ExportState", "ImportState"}
	types := []string{
		"application/json", "application/proto", "application/connect+json", "application/connect+proto",
		"application/grpc+proto", "application/grpc+json", "application/grpc-web+proto", "text/plain",
	}
	for m := range methods {
		for c := range types {
			f.Add(uint8(m), uint8(c), []byte(`{"vip":"192.0.2.10:80/tcp","backend":"10.20.0.11","timeout":"60s"}`))
			f.Add(uint8(m), uint8(c), []byte("\x00\x00\x00\x00\x0c\x12\x0a10.20.0.11"))
			f.Add(uint8(m), uint8(c), []byte("\x12\x0a10.20.0.11\x1a\x02\x08\x3c"))
			f.Add(uint8(m), uint8(c), []byte{})
		}
	}
	log := new(logBuffer)
	cfg := Config{Daemon: &fakeDaemon{}, Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelError})), WatchInterval: 1}
	running, stop := context.WithCancel(context.Background())
	stop() // a watch ends after the first message
	h := newHandler(running, cfg, access{}, defaultBounds())
	f.Fuzz(func(t *testing.T, m, c uint8, body []byte) {
		method, contentType := methods[int(m)%len(methods)], types[int(c)%len(types)]
		req := httptest.NewRequest(http.MethodPost, "/remora.v1.Control/"+method, bytes.NewReader(body))
		req.Header.Set("Content-Type", contentType)
		req.ProtoMajor = 2 // for gRPC
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req.WithContext(context.WithValue(req.Context(), peerKey{}, peer{})))
		res := w.Result()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode == http.StatusInternalServerError || log.String() != "" {
			t.Errorf("%s as %s: %s\n%s\n%s", method, contentType, res.Status, text, log)
		}
	})
}
