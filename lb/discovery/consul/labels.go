// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul

import "strings"

// What an instance can say to remora. As a tag it is "remora.vip=VALUE"; as meta the key is
// "remora-vip", since Consul allows no dots there. Meta goes before tags, and of several tags with
// one key the least counts.
const (
	keyVIP      = "remora.vip"
	keyPort     = "remora.port"
	keyProtocol = "remora.protocol"
	keyWeight   = "remora.weight"
	keyServerID = "remora.server_id"
)

// claimTag marks services that claim VIPs by meta alone, which the list of services does not show.
const claimTag = "remora"

// label is what the instance says under a key.
func (i *Instance) label(key string) (value string, ok bool) {
	if value, ok = i.Service.Meta[strings.ReplaceAll(key, ".", "-")]; ok {
		return value, true
	}
	for _, tag := range i.Service.Tags {
		if v, has := strings.CutPrefix(tag, key+"="); has && (!ok || v < value) {
			value, ok = v, true
		}
	}
	return value, ok
}

// mayClaim tells from the tags of a service's instances whether some of them may claim a VIP.
func mayClaim(tags []string) bool {
	for _, tag := range tags {
		if tag == claimTag || strings.HasPrefix(tag, claimTag+".") {
			return true
		}
	}
	return false
}
