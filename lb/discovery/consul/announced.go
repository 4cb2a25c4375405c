// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/remora-lb/remora/lb"
)

// MetaInstance is the key of the meta by which a balancer knows its own registration again.
const MetaInstance = "remora-instance"

// announcesPart stands between a balancer's id and a VIP in the id of the check that says that the
// balancer announces the VIP. The check is there as long as that is so, and fails with the balancer.
const announcesPart = "-announces-"

// vipText is a VIP as ids of checks have it: without a slash, which is a path's in the agent's API.
func vipText(v lb.VIP) string {
	addr := v.Addr.String()
	if v.IsPrefix() {
		addr += "_" + strconv.Itoa(v.Prefix().Bits())
	}
	return addr + "-" + strconv.Itoa(int(v.Port)) + "-" + v.Protocol.String()
}

// parseVIPText reads what vipText writes.
func parseVIPText(s string) (lb.VIP, error) {
	parts := strings.Split(s, "-")
	if len(parts) != 3 {
		return lb.VIP{}, fmt.Errorf("%s is not ADDRESS-PORT-PROTOCOL", quote(s))
	}
	addr := strings.Replace(parts[0], "_", "/", 1)
	if strings.Contains(addr, ":") {
		addr = "[" + addr + "]"
	}
	return lb.ParseVIP(addr + ":" + parts[1] + "/" + parts[2])
}

// Fleet is what balancers say of themselves in Consul.
type Fleet struct {
	// Self tells that this balancer is among them.
	Self bool
	// Others are the VIPs that others announce.
	Others map[lb.VIP]bool
}

// Announced reads the instances of the service as which balancers are registered. Self is the value
// that this balancer's own MetaInstance has. A balancer that has a failing check of its own, or of its
// node, announces nothing.
func Announced(instances []Instance, self string) Fleet {
	f := Fleet{Others: make(map[lb.VIP]bool)}
	for i := range instances {
		one := &instances[i]
		if one.Service.Meta[MetaInstance] == self {
			f.Self = true
			continue
		}
		if one.lives() {
			one.announces(f.Others)
		}
	}
	return f
}

// lives tells whether neither the node nor the check by which a balancer says that it lives fails.
func (i *Instance) lives() bool {
	for _, c := range i.Checks {
		if (c.ServiceID == "" || c.CheckID == i.Service.ID) && c.Status != statusPassing && c.Status != statusWarning {
			return false
		}
	}
	return true
}

// announces adds the VIPs that the balancer announces.
func (i *Instance) announces(vips map[lb.VIP]bool) {
	for _, c := range i.Checks {
		text, ok := strings.CutPrefix(c.CheckID, i.Service.ID+announcesPart)
		if !ok || c.Status != statusPassing {
			continue
		}
		if vip, err := parseVIPText(text); err == nil {
			vips[vip] = true
		}
	}
}
