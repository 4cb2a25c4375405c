// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package katran

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// document is a dump as it was written; what is absent is zero.
type document struct {
	Settings     settingsSection `json:"settings"`
	VIPs         []vipSection    `json:"vips"`
	ServerIDs    []idSection     `json:"quic_reals"`
	Routes       []routeSection  `json:"source_routes"`
	Destinations []probeSection  `json:"healthcheck_destinations"`
	Decap        *decapSection   `json:"inline_decapsulation"`
}

type settingsSection struct {
	Interface     string  `json:"interface"`
	DefaultMAC    string  `json:"default_mac"`
	MaxVIPs       *uint32 `json:"max_vips"`
	RingSize      *uint32 `json:"ring_size"`
	HashFunction  string  `json:"hash_function"`
	Encapsulation string  `json:"encapsulation"`
	GUEPort       *uint16 `json:"gue_port"`
	Source4       string  `json:"source4"`
	Source6       string  `json:"source6"`
	TCPServerIDs  bool    `json:"tcp_server_ids"`
}

type vipSection struct {
	Address      string        `json:"address"`
	Port         uint16        `json:"port"`
	Protocol     any           `json:"protocol"`
	Flags        any           `json:"flags"`
	HashFunction string        `json:"hash_function"`
	Reals        []realSection `json:"reals"`
}

type realSection struct {
	Address string `json:"address"`
	Weight  uint32 `json:"weight"`
	Flags   any    `json:"flags"`
}

type idSection struct {
	Address string `json:"address"`
	ID      uint32 `json:"id"`
}

type routeSection struct {
	Sources []string `json:"sources"`
	Real    string   `json:"real"`
}

type probeSection struct {
	Mark    uint32 `json:"somark"`
	Address string `json:"address"`
}

type decapSection struct {
	Destinations []decapDestinationSection `json:"destinations"`
	Strict       bool                      `json:"strict"`
}

type decapDestinationSection struct {
	Address string `json:"address"`
	Egress  bool   `json:"egress"`
}

// maxDump is the longest dump that is read, in bytes.
const maxDump = 64 << 20

// decode reads the one JSON value of a dump. It refuses fields that it does not know, that are there
// twice, or that are spelled otherwise.
func decode(r io.Reader) (*document, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxDump+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxDump {
		return nil, fmt.Errorf("more than %d bytes", maxDump)
	}
	var doc document
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	d.UseNumber()
	if err := d.Decode(&doc); err != nil {
		return nil, explain(err, data, d.InputOffset())
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("line %d: more follows the dump: expected one JSON object", lineAt(data, d.InputOffset()))
	}
	keys := json.NewDecoder(bytes.NewReader(data))
	if first, err := keys.Token(); err != nil || first != json.Delim('{') {
		return nil, errors.New("expected a JSON object")
	}
	if err := checkKeys(keys); err != nil {
		return nil, fmt.Errorf("line %d: %v", lineAt(data, keys.InputOffset()), err)
	}
	return &doc, nil
}

// explain says where JSON is wrong, and of a wrong type which field has it.
func explain(err error, data []byte, offset int64) error {
	var syntax *json.SyntaxError
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the dump is cut off, or empty")
	case errors.As(err, &syntax):
		return fmt.Errorf("line %d: %v", lineAt(data, syntax.Offset), err)
	case errors.As(err, &wrong):
		return fmt.Errorf("line %d: field %q: a JSON %s does not fit: expected %s", lineAt(data, wrong.Offset), wrong.Field, wrong.Value, wrong.Type)
	}
	return fmt.Errorf("line %d or after: %v", lineAt(data, offset), err)
}

func lineAt(data []byte, offset int64) int {
	return 1 + bytes.Count(data[:min(int(offset), len(data))], []byte{'\n'})
}

// checkKeys reads the rest of an object whose brace was read. The JSON decoder itself takes any
// spelling of a name, and of two equal ones the last.
func checkKeys(d *json.Decoder) error {
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		key, _ := t.(string) // of an object that is well formed
		if !plainKey(key) {
			return fmt.Errorf("unknown field %q: names are in lower case", key)
		}
		if seen[key] {
			return fmt.Errorf("field %q is there twice", key)
		}
		seen[key] = true
		if err := checkValue(d); err != nil {
			return err
		}
	}
	_, err := d.Token()
	return err
}

func checkValue(d *json.Decoder) error {
	t, err := d.Token()
	if err != nil {
		return err
	}
	switch t {
	case json.Delim('{'):
		return checkKeys(d)
	case json.Delim('['):
		for d.More() {
			if err := checkValue(d); err != nil {
				return err
			}
		}
		_, err = d.Token()
	}
	return err
}

func plainKey(key string) bool {
	for i := range len(key) {
		c := key[i]
		if c != '_' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}
