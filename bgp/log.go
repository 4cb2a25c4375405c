// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"

	gobgplog "github.com/osrg/gobgp/v3/pkg/log"
)

// logger is what GoBGP logs to. GoBGP tells only there why a session ended, so what it says about
// a peer is kept as the peer's last error. It is called from GoBGP's goroutines, at times with
// locks held: it calls nothing of GoBGP.
type logger struct {
	log      *slog.Logger
	sessions *sessions
	// broken receives the first of the errors after which GoBGP would end the process.
	broken chan error
	// synced receives something when GoBGP takes a restart for finished, see Speaker.startPeers.
	synced chan struct{}
	// unprotected receives peers whose MD5 key could not be set, which GoBGP only logs.
	unprotected chan error
}

func newLogger(log *slog.Logger, s *sessions) *logger {
	return &logger{
		log:         log,
		sessions:    s,
		broken:      make(chan error, 1),
		synced:      make(chan struct{}, 1),
		unprotected: make(chan error, 1),
	}
}

// Panic and Fatal stand for faults within GoBGP and for a gRPC socket that cannot be opened. They
// end the speaker, not the process: the data plane goes on.
func (l *logger) Panic(msg string, f gobgplog.Fields) { l.Fatal(msg, f) }

func (l *logger) Fatal(msg string, f gobgplog.Fields) { offer(l.broken, text(msg, f)) }

func (l *logger) Error(msg string, f gobgplog.Fields) { l.write(slog.LevelError, msg, f) }

func (l *logger) Warn(msg string, f gobgplog.Fields) {
	if msg == "failed to set md5" {
		offer(l.unprotected, text(msg, f))
	}
	l.write(slog.LevelWarn, msg, f)
}

// Info is for steps here: the speaker itself logs changes of sessions.
func (l *logger) Info(msg string, f gobgplog.Fields) {
	if msg == "sync finished" {
		offer(l.synced, struct{}{})
	}
	l.write(slog.LevelDebug, msg, f)
}

func (l *logger) Debug(msg string, f gobgplog.Fields) {
	if msg == "deferral timer expired" {
		offer(l.synced, struct{}{})
	}
	l.write(slog.LevelDebug, msg, f)
}

// SetLevel does nothing: the level is that of the slog.Logger.
func (l *logger) SetLevel(gobgplog.LogLevel) {}

// GetLevel asks for everything: that a peer cannot be reached is a message of the lowest level.
func (l *logger) GetLevel() gobgplog.LogLevel { return gobgplog.DebugLevel }

func (l *logger) write(level slog.Level, msg string, f gobgplog.Fields) {
	peer, _ := netip.ParseAddr(fmt.Sprint(f["Key"]))
	if peer.IsValid() && isProblem(msg) {
		l.sessions.setError(peer, text(msg, f).Error())
	}
	if !l.log.Enabled(context.Background(), level) {
		return
	}
	args := make([]any, 0, 2*len(f))
	for k, v := range f {
		if k == "Key" && peer.IsValid() {
			k = "peer"
		}
		args = append(args, strings.ToLower(k), v)
	}
	l.log.Log(context.Background(), level, "gobgp: "+msg, args...)
}

// isProblem tells whether a message says why a session cannot be, or ended. The levels do not tell:
// what cannot connect is debugging to GoBGP, and what it need not do is a warning.
func isProblem(msg string) bool {
	switch msg {
	case "Peer Down", "failed to connect", "failed to resolve local address", "Mismatched local address",
		"sent notification", "received notification", "hold timer expired", "graceful restart timer expired",
		"failed to set md5", "cannot set TTL for peer", "failed to send", "failed to serialize":
		return true
	}
	return false
}

// text is a message with those of its fields that say why.
func text(msg string, f gobgplog.Fields) error {
	parts := []string{msg}
	for _, key := range []string{"Reason", "Code", "Subcode", "Communicated-Reason", "Error", "Err", "Data"} {
		v, ok := f[key]
		if s := fmt.Sprint(v); ok && s != "" && s != "[]" {
			parts = append(parts, strings.ToLower(key)+" "+s)
		}
	}
	return fmt.Errorf("gobgp: %s", strings.Join(parts, ", "))
}

// offer sends something unless as much as the receiver wants is waiting already.
func offer[T any](to chan T, what T) {
	select {
	case to <- what:
	default:
	}
}
