// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
)

// StandIn answers the health queries of a client as Consul does, and misbehaves when told so. Its
// methods may be called concurrently. Close ends it.
type StandIn struct {
	// Address is where it answers, as http://HOST:PORT.
	Address string

	server *httptest.Server
	closed chan struct{}

	mu sync.Mutex
	// index counts changes; it, and all below, is guarded by mu.
	index    uint64
	services map[string]*standInService
}

// standInService is one service of a stand-in.
type standInService struct {
	index uint64
	body  []byte
	// changed is closed at the next change.
	changed  chan struct{}
	script   []Step
	requests []url.Values
}

// Reply is what a stand-in is about to answer.
type Reply struct {
	Status      int
	Index       uint64
	KnownLeader bool
	ContentType string
	// Header has further headers.
	Header map[string]string
	Body   []byte
	// Hang keeps the client waiting until it goes away.
	Hang bool
}

// Step changes one reply, which is sent at once.
type Step func(*Reply)

// NewStandIn starts a stand-in on loopback that knows no service.
func NewStandIn() *StandIn {
	s := &StandIn{closed: make(chan struct{}), services: make(map[string]*standInService), index: 100}
	s.server = httptest.NewServer(s)
	s.Address = s.server.URL
	return s
}

// Close ends the stand-in and whatever waits for it.
func (s *StandIn) Close() {
	close(s.closed)
	s.server.CloseClientConnections()
	s.server.Close()
}

// Set makes these the instances of a service, and wakes the queries that wait for it.
func (s *StandIn) Set(service string, entries ...*api.ServiceEntry) error {
	if entries == nil {
		entries = []*api.ServiceEntry{}
	}
	body, err := json.Marshal(entries)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index++
	one := s.service(service)
	one.index, one.body = s.index, body
	close(one.changed)
	one.changed = make(chan struct{})
	return nil
}

// Script makes the next queries for a service get these replies, one each.
func (s *StandIn) Script(service string, steps ...Step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.service(service)
	one.script = append(one.script, steps...)
}

// Requests are the parameters of the queries for a service up to now.
func (s *StandIn) Requests(service string) []url.Values {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]url.Values(nil), s.service(service).requests...)
}

// service finds or makes a service; mu is held.
func (s *StandIn) service(name string) *standInService {
	one := s.services[name]
	if one == nil {
		one = &standInService{index: 1, body: []byte("[]"), changed: make(chan struct{})}
		s.services[name] = one
	}
	return one
}

// ServeHTTP implements http.Handler.
func (s *StandIn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, ok := strings.CutPrefix(r.URL.Path, "/v1/health/service/")
	if !ok {
		http.NotFound(w, r)
		return
	}
	step, reply, changed := s.begin(name, r.URL.Query())
	if step != nil {
		step(&reply)
	} else if asked, _ := strconv.ParseUint(r.URL.Query().Get("index"), 10, 64); asked >= reply.Index {
		s.await(r, changed)
		_, reply, _ = s.begin(name, nil)
	}
	if reply.Hang {
		s.await(r, nil)
		return
	}
	send(w, reply)
}

// begin takes a query down. Without one it only tells what there is.
func (s *StandIn) begin(name string, query url.Values) (step Step, reply Reply, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.service(name)
	if query != nil {
		one.requests = append(one.requests, query)
		if len(one.script) > 0 {
			step, one.script = one.script[0], one.script[1:]
		}
	}
	return step, Reply{
		Status: http.StatusOK, Index: one.index, KnownLeader: true, ContentType: "application/json", Header: map[string]string{}, Body: one.body,
	}, one.changed
}

// await waits for a change, for the wait that the client allows, or for the end.
func (s *StandIn) await(r *http.Request, changed <-chan struct{}) {
	wait, err := time.ParseDuration(r.URL.Query().Get("wait"))
	var over <-chan time.Time
	if err == nil && changed != nil {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-changed:
	case <-over:
	case <-r.Context().Done():
	case <-s.closed:
	}
}

func send(w http.ResponseWriter, r Reply) {
	h := w.Header()
	h.Set("Content-Type", r.ContentType)
	h.Set("X-Consul-Index", strconv.FormatUint(r.Index, 10))
	h.Set("X-Consul-Knownleader", strconv.FormatBool(r.KnownLeader))
	h.Set("X-Consul-Lastcontact", "0")
	for key, value := range r.Header {
		h.Set(key, value)
	}
	w.WriteHeader(r.Status)
	// An error means that the client is gone.
	_, _ = w.Write(r.Body)
}

// Fail answers with an error of this status.
func Fail(status int) Step {
	return func(r *Reply) { r.Status, r.Body, r.ContentType = status, []byte("scripted failure"), "text/plain" }
}

// TooManyRequests asks the client to come again after so many seconds.
func TooManyRequests(seconds int) Step {
	return func(r *Reply) {
		Fail(http.StatusTooManyRequests)(r)
		r.Header["Retry-After"] = strconv.Itoa(seconds)
	}
}

// Hang does not answer.
func Hang(r *Reply) { r.Hang = true }

// AtIndex answers truly, with this index.
func AtIndex(index uint64) Step { return func(r *Reply) { r.Index = index } }

// NoLeader answers with an empty list, as a server without a leader can.
func NoLeader(r *Reply) { r.KnownLeader, r.Body = false, []byte("[]") }

// Empty answers with a list that is whole and empty, at an index past the present one.
func Empty(r *Reply) { r.Index, r.Body = r.Index+1, []byte("[]") }

// Filtered answers with a list that the token's rights have emptied.
func Filtered(r *Reply) { r.Header["X-Consul-Results-Filtered-By-Acls"], r.Body = "true", []byte("[]") }

// HalfList cuts the list in the middle.
func HalfList(r *Reply) { r.Body = r.Body[:len(r.Body)/2] }

// Null answers with null in place of a list.
func Null(r *Reply) { r.Body = []byte("null") }

// WrongType answers with a page that is no JSON, as a proxy does.
func WrongType(r *Reply) { r.ContentType, r.Body = "text/html", []byte("<html>welcome</html>") }
