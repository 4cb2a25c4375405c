// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul

import (
	"cmp"
	"slices"
	"strings"
)

// Instance is one registration of a service, with its node and the checks of both. The types here
// hold the part of Consul's answer that is used, and are read from its JSON; the client's own types
// hold all of it and take several times as long to read. An instance is not changed.
type Instance struct {
	Node    Node
	Service Service
	Checks  []Check
}

// Node is a machine in the catalogue.
type Node struct {
	Name            string `json:"Node"`
	Address         string
	TaggedAddresses map[string]string
}

// Service is one instance as its definition says.
type Service struct {
	// ID is unique on the node.
	ID string
	// Name is that of all instances.
	Name string `json:"Service"`
	// Address is empty if it is the node's.
	Address string
	// Port is 0 if the definition has none.
	Port            int
	TaggedAddresses map[string]TaggedAddress
	Tags            []string
	Meta            map[string]string
	Weights         Weights
}

// TaggedAddress is a further address of an instance.
type TaggedAddress struct {
	Address string
	Port    int
}

// Weights are an instance's shares, by its health.
type Weights struct {
	Passing, Warning int
}

// Check is the state of one check of a node or of an instance.
type Check struct {
	CheckID string
	Status  string
	// ServiceID is empty if it is the node's check.
	ServiceID string
}

// ID identifies an instance in its datacenter.
type ID struct {
	Node, Service string
}

func (id ID) String() string { return id.Node + "/" + id.Service }

// Compare orders by node, then service id.
func (id ID) Compare(other ID) int {
	return cmp.Or(strings.Compare(id.Node, other.Node), strings.Compare(id.Service, other.Service))
}

// ID identifies the instance.
func (i *Instance) ID() ID { return ID{i.Node.Name, i.Service.ID} }

// The statuses of checks, and the checks that Consul makes for a maintenance.
const (
	statusPassing  = "passing"
	statusWarning  = "warning"
	statusCritical = "critical"

	nodeMaintenance    = "_node_maintenance"
	serviceMaintenance = "_service_maintenance:"
)

// health is the worst that the checks of an instance say, with the check that says it. A
// maintenance is reported beside it, as it is somebody's wish and no finding.
func (i *Instance) health() (status, why, maintenance string) {
	status = statusPassing
	for _, c := range i.sortedChecks() {
		switch {
		case c.CheckID == nodeMaintenance:
			maintenance = "node in maintenance"
		case strings.HasPrefix(c.CheckID, serviceMaintenance):
			maintenance = cmp.Or(maintenance, "service in maintenance")
		case c.Status == statusPassing:
		case c.Status == statusWarning:
			if status == statusPassing {
				status, why = statusWarning, c.describe()
			}
		default: // critical, or something that this version does not know
			if status != statusCritical {
				status, why = statusCritical, c.describe()
			}
		}
	}
	return status, why, maintenance
}

// sortedChecks has the checks in an order of their own, so that the reason given does not depend on
// Consul's.
func (i *Instance) sortedChecks() []Check {
	return slices.SortedFunc(slices.Values(i.Checks), func(a, b Check) int { return strings.Compare(a.CheckID, b.CheckID) })
}

func (c Check) describe() string {
	of := "check "
	if c.ServiceID == "" {
		of = "node check "
	}
	return of + quote(c.CheckID) + " is " + quote(c.Status)
}
