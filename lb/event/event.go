// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package event is the record of changes of state: what changed, from what, to what, and why. Whoever
// changes something emits an Event into a Sink; the daemon's is a Log, which keeps the latest, hands
// them to those who follow, and writes each as a line of the log.
package event

import (
	"cmp"
	"context"
	"log/slog"
	"net/netip"
	"time"

	"github.com/remora-lb/remora/lb"
)

// Kind is what kind of object changed. The names are stable.
type Kind string

// The kinds.
const (
	// KindVIP is a VIP of the data plane: none, present, gone.
	KindVIP Kind = "vip"
	// KindBackend is a backend of one VIP in the data plane: none, active, draining, retired, gone.
	KindBackend Kind = "backend"
	// KindRing is a VIP's ring: stable, or changing while slots are not stable.
	KindRing Kind = "ring"
	// KindDrain is an operator's drain of a backend of one VIP: none, running, done, expired, ended by the
	// operator, gone with the backend.
	KindDrain Kind = "drain"
	// KindDataPlane is the data plane as a whole: as wanted, failing; adopted, settled; wanted, changed, for
	// changes that are too many to be told one by one.
	KindDataPlane Kind = "data_plane"
	// KindAttachment is the packet program on an interface: detached, attached, or its mode.
	KindAttachment Kind = "attachment"
	// KindNextHop is the link address of a backend: unresolved, resolved, stale; known, changed, for changes that
	// are too many to be told one by one.
	KindNextHop Kind = "next_hop"
	// KindHealth is what the checks say of a backend of one VIP: unknown, up, down.
	KindHealth Kind = "health"
	// KindHealthGroup is whether the checks of a VIP's backends are believed: believed, fail open.
	KindHealthGroup Kind = "health_group"
	// KindHold is what the governor does with a change or an answer: passed, held, refused; then how that ended.
	KindHold Kind = "hold"
	// KindAnnouncement is a VIP as routers are told of it: none, withdrawn, waiting, announced, degraded, draining.
	KindAnnouncement Kind = "announcement"
	// KindSession is a session with a router, KindBFD its BFD session.
	KindSession Kind = "session"
	KindBFD     Kind = "bfd"
	// KindConfiguration is the configuration file: in force, reloaded, or "not reloaded, the present one stays".
	KindConfiguration Kind = "configuration"
)

// Kinds are all kinds, in the order above.
func Kinds() []Kind {
	return []Kind{
		KindVIP, KindBackend, KindRing, KindDrain, KindDataPlane, KindAttachment, KindNextHop,
		KindHealth, KindHealthGroup, KindHold, KindAnnouncement, KindSession, KindBFD, KindConfiguration,
	}
}

// Event is one change of state. The fields that name the object are zero where they do not apply.
type Event struct {
	// Number is the event's place among those of the daemon, from 1, without gaps. A Log sets it.
	Number uint64
	// At is when it happened; a Log sets it if it is zero.
	At   time.Time
	Kind Kind
	// Level is slog.LevelWarn for what an operator should look at, else slog.LevelInfo, the zero value.
	Level slog.Level

	Service   string
	VIP       lb.VIP
	Real      netip.Addr
	Source    string
	Peer      netip.Addr
	Interface string

	// From and To are states, in the words of the kind. Cause says why, for people; it may be empty. A Log
	// keeps MaxText bytes of each text.
	From, To, Cause string
	// Detail is the cause at full length, for the line of the log, if Cause is short for it. A Log does not
	// keep it.
	Detail string
}

// Object is the object's name in text, for people.
func (e Event) Object() string {
	var text string
	for _, a := range e.object() {
		if text != "" {
			text += " "
		}
		text += a.Value.String()
	}
	return text
}

// object is the fields that name the object, by their keys in the log.
func (e Event) object() []slog.Attr {
	var attrs []slog.Attr
	add := func(key, value string, given bool) {
		if given {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	add("service", e.Service, e.Service != "")
	add("vip", e.VIP.String(), e.VIP != lb.VIP{})
	add("real", e.Real.String(), e.Real.IsValid())
	add("source", e.Source, e.Source != "")
	add("peer", e.Peer.String(), e.Peer.IsValid())
	add("interface", e.Interface, e.Interface != "")
	return attrs
}

// write writes the event as a line of the log.
func (e Event) write(log *slog.Logger) {
	attrs := append(e.object(), slog.String("from", e.From), slog.String("to", e.To))
	if cause := cmp.Or(e.Detail, e.Cause); cause != "" {
		attrs = append(attrs, slog.String("cause", cause))
	}
	attrs = append(attrs, slog.String("event", string(e.Kind)))
	log.LogAttrs(context.Background(), e.Level, e.message(), attrs...)
}

// message is what the line begins with: "real is down".
func (e Event) message() string {
	noun := map[Kind]string{
		KindVIP: "VIP", KindDataPlane: "data plane", KindAttachment: "packet program", KindNextHop: "next hop",
		KindHealth: "real", KindHealthGroup: "health of the VIP", KindHold: "change", KindAnnouncement: "VIP",
		KindBFD: "BFD session",
	}[e.Kind]
	if noun == "" {
		noun = string(e.Kind)
	}
	return noun + " is " + e.To
}

// Sink takes events. It may be used from several goroutines, and does not block for long.
type Sink interface {
	Emit(Event)
}

// ToLog is a Sink that only writes lines: for components that nobody gave another. A nil log discards
// them.
func ToLog(log *slog.Logger) Sink {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return logSink{log}
}

type logSink struct{ log *slog.Logger }

func (s logSink) Emit(e Event) { e.write(s.log) }
