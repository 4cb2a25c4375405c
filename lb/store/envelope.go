// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// format is the version of the envelope; that of the payload is the header's Schema.
const format = 1

// errFormat says that a file has an envelope that this program does not know.
var errFormat = errors.New("format not known")

// header is what the envelope says of its payload.
type header struct {
	Format uint32 `json:"format"`
	Name   string `json:"name"`
	Schema uint32 `json:"schema"`
	// Written is a time as in RFC 3339. It stays text, as the checksum is over the text.
	Written string `json:"written"`
	// SHA256 is the checksum over all of the above and the payload, in hexadecimal digits.
	SHA256 string `json:"sha256"`
}

// envelope is a whole file.
type envelope struct {
	header
	Payload json.RawMessage `json:"payload"`
}

func (h header) meta() Meta {
	written, _ := time.Parse(time.RFC3339Nano, h.Written) // decode has parsed it already
	return Meta{Version: h.Schema, Written: written}
}

func (h header) checksum(payload []byte) string {
	sum := sha256.New()
	fmt.Fprintf(sum, "%d %q %d %q\n", h.Format, h.Name, h.Schema, h.Written)
	sum.Write(payload)
	return hex.EncodeToString(sum.Sum(nil))
}

// encode is the file for a payload, which must be JSON as Marshal writes it: the checksum is over
// the bytes that stand in the file.
func encode(h header, payload []byte) ([]byte, error) {
	h.Format = format
	h.SHA256 = h.checksum(payload)
	text, err := json.Marshal(envelope{h, payload})
	if err != nil {
		return nil, err
	}
	if len(text) >= maxBytes {
		return nil, fmt.Errorf("%d bytes are too long: the limit is %d", len(text), maxBytes)
	}
	return append(text, '\n'), nil
}

// decode is the reverse of encode. With errFormat, only the header's Schema and Written may be
// there; any other error means that the file is damaged.
func decode(name string, text []byte) (header, []byte, error) {
	var e envelope
	if err := json.Unmarshal(text, &e); err != nil {
		return header{}, nil, err
	}
	if e.Format > format {
		return e.header, nil, fmt.Errorf("%w: format %d is saved, this program knows %d", errFormat, e.Format, format)
	}
	if e.Format != format {
		return header{}, nil, errors.New("there is no format")
	}
	if _, err := time.Parse(time.RFC3339Nano, e.Written); err != nil {
		return header{}, nil, fmt.Errorf("time of writing %q is no time", e.Written)
	}
	if e.Name != name {
		return header{}, nil, fmt.Errorf("it was saved as %q", e.Name)
	}
	if e.SHA256 != e.checksum(e.Payload) {
		return header{}, nil, errors.New("the checksum does not fit the content")
	}
	return e.header, e.Payload, nil
}

// decodePayload refuses fields that the program does not know: a payload that has them is of
// another version than it says.
func decodePayload(payload []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	return d.Decode(into)
}
