// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package katran

import (
	"bytes"
	"fmt"

	"go.yaml.in/yaml/v4"
)

// file is remora's configuration as far as a dump says it.
type file struct {
	Interface     string             `yaml:"interface"`
	Encapsulation encapsulation      `yaml:"encapsulation"`
	NextHop       *nextHop           `yaml:"next_hop,omitempty"`
	SourceRoutes  []sourceRoutes     `yaml:"source_routes,omitempty"`
	Decapsulation *fileDecapsulation `yaml:"decapsulation,omitempty"`
	Services      []service          `yaml:"services"`
}

type encapsulation struct {
	Type string `yaml:"type"`
	GUE  *gue   `yaml:"gue,omitempty"`
}

type gue struct {
	Source4  string `yaml:"source4,omitempty"`
	Source6  string `yaml:"source6,omitempty"`
	Port     uint16 `yaml:"port"`
	Checksum string `yaml:"checksum"`
}

type nextHop struct {
	MAC string `yaml:"mac"`
}

type sourceRoutes struct {
	Prefixes []string `yaml:"prefixes,flow"`
	Backend  string   `yaml:"backend"`
}

type fileDecapsulation struct {
	GUEPort      uint16             `yaml:"gue_port,omitempty"`
	Destinations []decapDestination `yaml:"destinations,omitempty"`
	Others       string             `yaml:"others"`
}

type decapDestination struct {
	Address string `yaml:"address"`
	Action  string `yaml:"action"`
}

type service struct {
	Name          string    `yaml:"name"`
	VIPs          []string  `yaml:"vips"`
	Ring          ring      `yaml:"ring"`
	Flows         *flows    `yaml:"flows,omitempty"`
	Hash          []string  `yaml:"hash,omitempty,flow"`
	ConnectionIDs string    `yaml:"connection_ids,omitempty"`
	TCPIDs        bool      `yaml:"tcp_ids,omitempty"`
	UDPIDs        bool      `yaml:"udp_ids,omitempty"`
	SourceRoutes  bool      `yaml:"source_routes,omitempty"`
	Backends      []backend `yaml:"backends"`
}

type ring struct {
	Size uint32 `yaml:"size"`
	Hash string `yaml:"hash"`
}

type flows struct {
	TCP    string `yaml:"tcp,omitempty"`
	UDP    string `yaml:"udp,omitempty"`
	OnDown string `yaml:"on_down,omitempty"`
}

type backend struct {
	Address  string `yaml:"address"`
	Weight   uint32 `yaml:"weight"`
	ServerID uint32 `yaml:"server_id,omitempty"`
	Local    bool   `yaml:"local,omitempty"`
}

// write makes YAML of the file, with the notes in front of it as comments.
func (f file) write(notes []Note) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("# Made of a dump of Katran's configuration by remora import katran.\n")
	if len(notes) > 0 {
		b.WriteString("#\n# What is not as it was:\n")
	}
	for _, n := range notes {
		fmt.Fprintf(&b, "# - %s\n", n)
	}
	b.WriteByte('\n')
	text, err := yaml.Dump(f, yaml.WithV4Defaults())
	if err != nil {
		return nil, fmt.Errorf("write YAML: %v", err)
	}
	b.Write(text)
	return b.Bytes(), nil
}
