// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"
)

// ServerConfig is what a server serves, and where.
type ServerConfig struct {
	// Listen is ADDRESS:PORT, or the absolute path of a unix socket, which gets mode 0660. Required.
	Listen string
	// PProf adds Go's profiles below /debug/pprof/. Default false.
	PProf bool
	// Collector has the metrics. Required.
	Collector *Collector
	// Prober has the daemon's own health. Required.
	Prober Prober
	// Retry is how long after a failure it is tried again. Default 10 s.
	Retry time.Duration
	// Log receives failures; nil discards them.
	Log *slog.Logger
}

// Bounds of the server: who asks is not trusted.
const (
	maxConnections = 64
	maxScrapes     = 4
	stopTime       = 3 * time.Second
)

// Server serves /metrics, /healthz, /readyz and, if asked for, /debug/pprof/. Status may be called from
// any goroutine. There is nothing to close.
type Server struct {
	cfg     ServerConfig
	handler http.Handler

	mu    sync.Mutex
	state Status // guarded by mu
}

// Status is whether a server serves. Error says why it does not; empty if it does, or was not tried yet.
type Status struct {
	Listen  string
	Serving bool
	Error   string
}

// NewServer checks cfg and starts nothing.
func NewServer(cfg ServerConfig) (*Server, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("check configuration of the metrics server: %v", err)
	}
	if cfg.Retry == 0 {
		cfg.Retry = 10 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	handler, err := newHandler(cfg)
	if err != nil {
		return nil, err
	}
	return &Server{cfg: cfg, handler: handler, state: Status{Listen: cfg.Listen}}, nil
}

func (c ServerConfig) validate() error {
	var errs []error
	if c.Listen == "" {
		errs = append(errs, errors.New("Listen: there is none"))
	}
	if c.Collector == nil {
		errs = append(errs, errors.New("Collector: there is none"))
	}
	if c.Prober == nil {
		errs = append(errs, errors.New("Prober: there is none"))
	}
	if c.Retry < 0 {
		errs = append(errs, fmt.Errorf("Retry: %v is negative", c.Retry))
	}
	return errors.Join(errs...)
}

func newHandler(cfg ServerConfig) (http.Handler, error) {
	registry := prometheus.NewRegistry()
	for _, c := range []prometheus.Collector{
		cfg.Collector, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %v", err)
		}
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(cfg.Log.Handler(), slog.LevelError), MaxRequestsInFlight: maxScrapes,
	}))
	mux.HandleFunc("GET /healthz", health(cfg.Prober.Alive))
	mux.HandleFunc("GET /readyz", health(cfg.Prober.Ready))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "there are /metrics, /healthz and /readyz", http.StatusNotFound)
	})
	if cfg.PProf {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	return mux, nil
}

// Run serves until ctx ends, and then returns nil. If it cannot, it says so and tries again.
func (s *Server) Run(ctx context.Context) error {
	s.cfg.Collector.Start(ctx)
	for {
		err := s.serve(ctx)
		if ctx.Err() != nil {
			s.set(false, nil)
			return nil
		}
		s.set(false, err)
		s.cfg.Log.Error("metrics not served", "listen", s.cfg.Listen, "error", err, "retry_in", s.cfg.Retry)
		retry := time.NewTimer(s.cfg.Retry)
		select {
		case <-ctx.Done():
		case <-retry.C:
		}
		retry.Stop()
	}
}

// Status is whether it serves now.
func (s *Server) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

func (s *Server) set(serving bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Serving, s.state.Error = serving, ""
	if err != nil {
		s.state.Error = err.Error()
	}
}

// serve serves until ctx ends or something is wrong.
func (s *Server) serve(ctx context.Context) error {
	listener, err := listen(ctx, s.cfg.Listen)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      time.Minute, // a profile takes half of it
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(netutil.LimitListener(listener, maxConnections)) }()
	s.set(true, nil)
	s.cfg.Log.Info("metrics served", "listen", listener.Addr().String())
	select {
	case err := <-served:
		server.Close()
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	if server.Shutdown(grace) != nil { // somebody is slow
		server.Close()
	}
	<-served
	return nil
}

// isPath tells whether a place to listen is a unix socket.
func isPath(place string) bool { return strings.HasPrefix(place, "/") }

// listen listens at ADDRESS:PORT or the path of a unix socket.
func listen(ctx context.Context, place string) (net.Listener, error) {
	var lc net.ListenConfig
	if !isPath(place) {
		return lc.Listen(ctx, "tcp", place)
	}
	if err := removeAbandoned(ctx, place); err != nil {
		return nil, err
	}
	l, err := lc.Listen(ctx, "unix", place)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(place, 0o660); err != nil {
		l.Close()
		return nil, fmt.Errorf("set mode of socket: %v", err)
	}
	return l, nil
}

// removeAbandoned removes a socket that nobody serves, as a daemon that was killed leaves it.
func removeAbandoned(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("look at socket: %v", err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there and is no socket", path)
	}
	var d net.Dialer
	if c, err := d.DialContext(ctx, "unix", path); err == nil {
		c.Close()
		return fmt.Errorf("%s is served by another process", path)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove abandoned socket: %v", err)
	}
	return nil
}
