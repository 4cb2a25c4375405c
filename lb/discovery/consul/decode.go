// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
)

// decoder reads lists of instances, one after the other. Most of a list is as it was in the one
// before, and reading JSON is what takes the time: so the list is cut into its elements, and only
// those that were not in the last list are read. It belongs to one goroutine.
type decoder struct {
	seed maphash.Seed
	// known has the instances of the last list by the hash of their text.
	known map[uint64]*Instance
}

func newDecoder() *decoder { return &decoder{seed: maphash.MakeSeed()} }

// decode reads a list, of which it keeps nothing. The instances share memory with those of the lists before and after.
func (d *decoder) decode(body []byte) ([]Instance, error) {
	texts, err := elements(body)
	if err != nil {
		return nil, fmt.Errorf("read list of instances: %v", err)
	}
	list := make([]Instance, len(texts))
	known := make(map[uint64]*Instance, len(texts))
	for n, text := range texts {
		hash := maphash.Bytes(d.seed, text)
		if last := d.known[hash]; last != nil {
			list[n] = *last
		} else if err := json.Unmarshal(text, &list[n]); err != nil {
			return nil, fmt.Errorf("read instance %d of the list: %v", n+1, err)
		}
		known[hash] = &list[n]
	}
	d.known = known
	return list, nil
}

var errHalf = errors.New("the list ends too early")

// elements cuts a JSON list of objects. It looks at brackets and strings only: what is between them
// is checked when the elements are read.
func elements(body []byte) ([][]byte, error) {
	i := skipSpace(body, 0)
	if i == len(body) {
		return nil, errHalf
	}
	if body[i] != '[' {
		return nil, fmt.Errorf("%s in place of a list", quote(string(body[i:min(len(body), i+20)])))
	}
	var texts [][]byte
	if i = skipSpace(body, i+1); i < len(body) && body[i] == ']' {
		return texts, onlySpace(body[i+1:])
	}
	for {
		end, err := skipObject(body, i)
		if err != nil {
			return nil, err
		}
		texts = append(texts, body[i:end])
		i = skipSpace(body, end)
		switch {
		case i == len(body):
			return nil, errHalf
		case body[i] == ']':
			return texts, onlySpace(body[i+1:])
		case body[i] != ',':
			return nil, fmt.Errorf("%q between two elements", body[i])
		}
		i = skipSpace(body, i+1)
	}
}

func onlySpace(rest []byte) error {
	if i := skipSpace(rest, 0); i < len(rest) {
		return fmt.Errorf("%s after the list", quote(string(rest[i:min(len(rest), i+20)])))
	}
	return nil
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t') {
		i++
	}
	return i
}

// skipObject returns the end of the object that begins at i.
func skipObject(b []byte, i int) (end int, err error) {
	if i < len(b) && b[i] != '{' {
		return 0, fmt.Errorf("%q where an element should begin", b[i])
	}
	depth := 0
	for ; i < len(b); i++ {
		switch b[i] {
		case '"':
			i = skipString(b, i)
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1, nil
			}
		}
	}
	return 0, errHalf
}

// skipString returns the place of the quotation mark that ends the string that begins at i, or a
// place past the end.
func skipString(b []byte, i int) int {
	for {
		next := bytes.IndexByte(b[i+1:], '"')
		if next < 0 {
			return len(b)
		}
		i += 1 + next
		slashes := 0
		for b[i-1-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return i
		}
	}
}
