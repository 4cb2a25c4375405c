// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/remora-lb/remora/lb"
	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
	"github.com/remora-lb/remora/lb/attach"
	"github.com/remora-lb/remora/lb/config"
	"github.com/remora-lb/remora/lb/control"
	"github.com/remora-lb/remora/lb/dataplane"
	"github.com/remora-lb/remora/lb/doctor"
)

// This file tells the doctor what the configuration, the data plane and the daemon say.

func (f *doctorFlags) balancer(ctx context.Context, m *doctor.Machine) *doctor.Balancer {
	b := &doctor.Balancer{
		Machine: m,
		Places: doctor.Places{
			File: f.file, BPFFS: f.bpffs, Pins: filepath.Join(f.bpffs, "remora", strings.ReplaceAll(f.instance, ".", ":")),
			StateDir: f.stateDir, Socket: f.socketPath(), Instance: f.instance,
		},
	}
	c, err := config.Load(f.file)
	if err != nil {
		b.Setup.Problem = err.Error()
	} else {
		b.Setup = doctorSetup(c)
		b.Consul = readConsulOnce(ctx, c)
	}
	b.Plane = doctorPlane(f.instanceFlags)
	// Members of the socket's group may ask the daemon, and not look at what is pinned.
	if b.Plane.Writer != 0 || errors.Is(b.Plane.Err, fs.ErrPermission) {
		b.Daemon = doctorDaemon(ctx, b.Places.Socket)
	}
	return b
}

func doctorSetup(c *config.Config) doctor.Setup {
	s := doctor.Setup{
		Interface: c.Interface, Mode: string(c.Mode), FixedNextHop: c.NextHop != nil,
		Claims: len(c.Consul.Claims) > 0, Registers: c.Consul.Register != nil,
	}
	for _, service := range c.Services {
		health, checked := c.Health[service.Name]
		for _, v := range service.VIPs {
			s.VIPs = append(s.VIPs, v.VIP)
			if checked && !health.Direct && health.Kind != config.KindExec {
				s.Probes = append(s.Probes, v.VIP)
			}
			for _, backend := range c.Backends[service.Name] {
				// What cannot be tunnelled to, config has refused.
				if t, err := v.TunnelTo(backend); err == nil {
					s.Reals = append(s.Reals, lb.Real{VIP: v.VIP, Backend: backend, Tunnel: t})
				}
			}
		}
	}
	if c.BGP != nil {
		s.BGP = true
		for _, p := range c.BGP.Peers {
			s.Peers = append(s.Peers, doctor.Peer{
				Address: p.Address, Source: p.Source, Port: p.Port, Passive: p.Passive, MD5: p.PasswordFile != "", KeyFile: p.PasswordFile,
			})
		}
	}
	return s
}

func doctorPlane(f instanceFlags) doctor.Plane {
	p := doctor.Plane{Writer: dataplane.Writer(f.bpffs, f.instance)}
	snap, err := dataplane.ReadSnapshot(f.bpffs, f.instance)
	switch {
	case errors.Is(err, dataplane.ErrNoInstance):
		return p
	case err != nil:
		p.Err = err
		if privileges, capErr := attach.CurrentPrivileges(); capErr == nil && privileges.Check() != nil {
			p.Err = fmt.Errorf("what is pinned cannot be read: %w", fs.ErrPermission)
		}
		return p
	}
	p.There, p.Interface, p.Generic, p.ModeReason = true, snap.Interface, snap.Mode == attach.Generic, snap.ModeReason
	p.Reasons = snap.Reasons
	for _, v := range snap.VIPs {
		p.VIPs = append(p.VIPs, v.VIP)
	}
	for _, r := range snap.Reals {
		p.Reals = append(p.Reals, r.Real)
	}
	return p
}

// doctorDaemon asks the daemon. What it does not answer in time is an error like others.
func doctorDaemon(ctx context.Context, socket string) (d doctor.Daemon) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	c, err := control.Dial(ctx, socket)
	if err != nil {
		return doctorUnanswered(err)
	}
	defer c.Close()
	status, err := c.Status(ctx)
	if err != nil {
		return doctorUnanswered(err)
	}
	held, err := c.Held(ctx)
	if err != nil {
		return doctorUnanswered(err)
	}
	d.Answers, d.LastError = true, status.LastError
	for _, p := range status.Problems {
		d.Conflicts = append(d.Conflicts, strings.TrimSpace(strings.Join([]string{p.Service, p.Vip, p.Backend}, " "))+": "+p.Text)
	}
	for _, h := range held.Holds {
		d.Held = append(d.Held, doctor.Held{Service: h.Service, Rule: h.Rule, Sentence: h.Sentence, Release: h.Release})
	}
	for _, s := range status.Services {
		for _, v := range s.Vips {
			if v.Health != nil {
				d.Health = append(d.Health, doctorHealth(v))
			}
		}
	}
	d.Sessions, d.Announcements = doctorBGP(status.Bgp)
	return d
}

func doctorUnanswered(err error) doctor.Daemon {
	d := doctor.Daemon{Err: err}
	var said *control.Error
	if errors.As(err, &said) {
		d.Err, d.Cure = errors.New(said.Problem), said.Cure
		if said.Code == control.CodeDenied {
			d.Err = fmt.Errorf("%s: %w", said.Problem, fs.ErrPermission)
		}
	}
	return d
}

func doctorHealth(v *remorav1.VIP) doctor.Health {
	h := doctor.Health{Checked: int(v.Health.Checked), Healthy: int(v.Health.Healthy), FailOpen: v.Health.FailOpen}
	h.VIP, _ = lb.ParseVIP(v.Vip) // the daemon's own, which is one
	for _, r := range v.Reals {
		if r.Health == nil {
			continue
		}
		s := doctor.Sick{
			Down:   r.Health.Local == remorav1.HealthState_HEALTH_STATE_DOWN || r.Health.Outside == remorav1.HealthState_HEALTH_STATE_DOWN,
			Reason: r.Health.Reason, Fault: r.Health.Fault, Detail: r.Health.Detail,
		}
		if r.Health.FaultDetail != "" {
			s.Detail = r.Health.FaultDetail
		}
		s.Backend, _ = netip.ParseAddr(r.Backend) // likewise
		if s.Down || s.Fault != "" {
			h.Down = append(h.Down, s)
		}
	}
	return h
}

func doctorBGP(b *remorav1.BGP) (sessions []doctor.Session, vips []doctor.Announcement) {
	if b == nil {
		return nil, nil
	}
	for _, s := range b.Sessions {
		peer, _ := netip.ParseAddr(s.Peer) // the daemon's own
		sessions = append(sessions, doctor.Session{Peer: peer, State: s.State, LastError: s.LastError})
	}
	for _, a := range b.Vips {
		vip, _ := lb.ParseVIP(a.Vip) // likewise
		vips = append(vips, doctor.Announcement{VIP: vip, Announced: a.Announced, Reason: a.Reason})
	}
	return sessions, vips
}
