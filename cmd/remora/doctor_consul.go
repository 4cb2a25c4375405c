// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/remora-lb/remora/lb/config"
	"github.com/remora-lb/remora/lb/discovery"
	"github.com/remora-lb/remora/lb/discovery/consul"
	"github.com/remora-lb/remora/lb/doctor"
)

// consulTime is how long Consul may take for the first answers.
const consulTime = 5 * time.Second

// readConsulOnce reads everything that the configuration says, once, just as the daemon does.
func readConsulOnce(ctx context.Context, c *config.Config) []doctor.ConsulRead {
	want := wantedReads(c)
	if len(want) == 0 {
		return nil
	}
	cfg := discovery.ConsulConfig(c, nil)
	cfg.Claims = nil // their readers tell nothing of a list that is not whole
	source, err := consul.New(cfg)
	if err != nil {
		return failedReads(want, err)
	}
	ctx, cancel := context.WithTimeout(ctx, consulTime)
	defer cancel()
	// Of several agents, the next is asked when one fails.
	single := len(cfg.Client.Addresses) < 2
	got := make(map[string]doctor.ConsulRead)
	err = source.Run(ctx, func(u consul.Update) {
		read := doctorRead(u)
		got[readName(read)] = read
		if len(got) == len(want) && (single || !anyUnanswered(got)) {
			cancel()
		}
	})
	if err == nil {
		err = context.DeadlineExceeded // of what did not answer
	}
	for i, w := range want {
		if read, ok := got[readName(w)]; ok {
			want[i] = read
		} else {
			want[i].Err = err
		}
	}
	return want
}

// anyUnanswered tells whether there is a read without an answer.
func anyUnanswered(reads map[string]doctor.ConsulRead) bool {
	for _, r := range reads {
		if r.Err != nil {
			return true
		}
	}
	return false
}

// wantedReads are what the configuration has the daemon read, each once.
func wantedReads(c *config.Config) (list []doctor.ConsulRead) {
	for _, s := range c.Sources {
		list = append(list, doctor.ConsulRead{Service: s.Service})
	}
	if c.Consul.Overlay != "" && c.ReadsConsul() {
		list = append(list, doctor.ConsulRead{Folder: c.Consul.Overlay})
	}
	slices.SortFunc(list, func(a, b doctor.ConsulRead) int { return cmp.Compare(readName(a), readName(b)) })
	return slices.CompactFunc(list, func(a, b doctor.ConsulRead) bool { return readName(a) == readName(b) })
}

// readName tells reads apart: no service has a slash in its name.
func readName(r doctor.ConsulRead) string { return r.Service + "/" + r.Folder }

func failedReads(list []doctor.ConsulRead, err error) []doctor.ConsulRead {
	for i := range list {
		list[i].Err = err
	}
	return list
}

func doctorRead(u consul.Update) doctor.ConsulRead {
	var r doctor.ConsulRead
	var facts consul.Facts
	if a := u.Answer; a != nil {
		r.Service, r.Instances, r.Err, facts = a.Service, len(a.Instances), a.Err, a.Facts
	} else {
		r.Folder, r.Err, facts = u.Overlay.Prefix, u.Overlay.Err, u.Overlay.Facts
	}
	r.Status = facts.Status
	if r.Err == nil {
		r.NoLeader, r.Filtered, r.Anonymous = !facts.KnownLeader, facts.FilteredByACLs, facts.Anonymous
	}
	return r
}
