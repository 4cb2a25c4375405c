// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/config"
	"github.com/remora-lb/remora/lb/discovery"
	"github.com/remora-lb/remora/lb/discovery/consul"
)

// asked is what Consul says of a service at one moment.
type asked struct {
	backends []lb.Backend
	// refused are the instances that cannot be used.
	refused []discovery.Refusal
	// problem says why there is no answer that counts; empty if there is one.
	problem string
}

// askConsulTime is how long check waits for Consul.
const askConsulTime = 5 * time.Second

// askConsul asks once for all services of the file that have their backends from Consul.
func askConsul(ctx context.Context, c *config.Config) (map[string]asked, error) {
	r := discovery.ConsulConfig(c, slog.New(slog.DiscardHandler))
	r.Claims, r.Overlay, r.Definitions = nil, "", ""
	source, err := consul.New(r)
	if err != nil {
		return nil, fmt.Errorf("prepare to read Consul: %v", err)
	}
	answers, rules := make(map[string]asked), discovery.ConsulRules(c)
	if len(r.Watches) == 0 {
		return answers, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askConsulTime)
	defer cancel()
	err = source.Run(ctx, func(u consul.Update) { // one after the other
		answers[u.Answer.Name] = askedOf(u.Answer, rules[u.Answer.Name])
		if complete(answers, c) {
			cancel()
		}
	})
	for name := range c.Sources {
		if _, ok := answers[name]; !ok {
			answers[name] = asked{problem: fmt.Sprintf("no answer within %v", askConsulTime)}
		}
	}
	return answers, err
}

func askedOf(a *consul.Answer, r consul.Rules) asked {
	if problem := a.Problem(); problem != "" {
		return asked{problem: problem}
	}
	backends, refused := discovery.Usable(consul.JudgeAll(a.Instances, r))
	return asked{backends: backends, refused: refused}
}

// complete tells whether there is an answer that counts about each service of the file.
func complete(answers map[string]asked, c *config.Config) bool {
	for name := range c.Sources {
		if a, ok := answers[name]; !ok || a.problem != "" {
			return false
		}
	}
	return true
}
