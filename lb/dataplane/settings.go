// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/remora-lb/remora/lb"
)

// features is what of the program is used, enum feature in bpf/types.h; the verifier removes the rest.
type features uint32

const (
	featureOptions features = 1 << iota
	featurePrefixes
	featureDecap
)

// names are those of the features that are on.
func (f features) names() (names []string) {
	for i, name := range []string{"options", "prefixes", "decap"} {
		if f>>i&1 != 0 {
			names = append(names, name)
		}
	}
	return names
}

// features are what the VIPs, and the configuration, need.
func (d *Dataplane) features(vips []lb.VIPEntry) (f features) {
	if d.cfg.Decap.Enabled() {
		f |= featureDecap
	}
	for _, v := range vips {
		if hasOptions(v.Options) {
			f |= featureOptions
		}
		if v.VIP.IsPrefix() {
			f |= featurePrefixes
		}
	}
	return f
}

// setVariables sets what the program is to know from its first packet on.
func setVariables(spec *ebpf.CollectionSpec, s sizes, cfg Config) error {
	jiffy, err := jiffy()
	if err != nil {
		return err
	}
	tick, shift := tickOf(jiffy)
	for name, value := range map[string]any{
		// Seeds that find buckets, all empty, within the tables.
		"vip_seeds": [2]uint64{seedWord(0, 0, s.bits4), seedWord(0, 0, s.bits6)},
		"flow_settings": nativeFlowSettings{
			BucketMask:   1<<s.flowBits - 1,
			TickShift:    shift,
			InsertLimit:  uint32(cfg.FlowInserts),
			UdpIdleTicks: uint32(cfg.UDPIdle.Round(tick) / tick),
		},
		"answer_settings": nativeAnswerSettings{Limit: uint32(cfg.AnswerLimit)},
		"load_settings": nativeLoadSettings{
			Features:     uint32(s.features),
			DecapGuePort: portWord(cfg.Decap.GUEPort),
			DecapOthers:  uint8(cfg.Decap.Others),
			QuicLbConfig: cfg.QUICLB.ConfigID,
			QuicLbBytes:  cfg.QUICLB.ServerIDBytes,
		},
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("set %s: %v", name, err)
		}
	}
	return nil
}

// setDecap fills the table of outer destinations.
func (g *generation) setDecap(c lb.Decap) error {
	for addr, action := range c.Destinations {
		if err := g.maps["decap_dsts"].Put(nativeVipAddr{Addr: addrKey(addr)}, uint32(action)); err != nil {
			return fmt.Errorf("set action on packets tunnelled to %v: %v", addr, err)
		}
	}
	return nil
}

// readFeatures reads what the program of a pinned generation was loaded for.
func (g *generation) readFeatures() error {
	m := g.maps[loadSettingsSection]
	if m == nil {
		return nil
	}
	var settings nativeLoadSettings
	if err := m.Lookup(uint32(0), &settings); err != nil {
		return fmt.Errorf("read settings of the program: %v", err)
	}
	g.features = features(settings.Features)
	return nil
}
