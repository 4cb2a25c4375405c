// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// maxQuoteLen is how much of a value a message shows, in bytes.
const maxQuoteLen = 80

// quote is text from the file as messages show it: quoted, in one line, cut off if long.
func quote(s string) string {
	if len(s) > maxQuoteLen {
		return strconv.Quote(s[:maxQuoteLen]) + "..."
	}
	return strconv.Quote(s)
}

// showName is a field's name as paths show it: as it is if nothing in it can mislead.
func showName(s string) string {
	if isMadeOf(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") && len(s) <= maxQuoteLen {
		return s
	}
	return quote(s)
}

// describe says what a value is.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!null":
		return "no value"
	case "!!str":
		return "the text " + quote(n.Value)
	case "!!int", "!!float":
		return "the number " + quote(n.Value)
	case "!!bool":
		return "the truth value " + quote(n.Value)
	case "!!timestamp":
		return "the date " + quote(n.Value)
	}
	return "the value " + quote(n.Value) + " with the tag " + quote(n.ShortTag())
}

// enumerate joins words as in "a, b and c".
func enumerate(words []string, conjunction string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " " + conjunction + " " + words[last]
}

// remedy says what to do about an unknown field.
func remedy(name string, known []string) string {
	if near := nearest(name, known); near != "" {
		return "did you mean " + near + "?"
	}
	s := "expected " + enumerate(known, "or")
	if strings.Contains(name, ":") {
		s += ": " + quotesHint
	}
	return s
}

// nearest is the known word that a misspelt one most probably stands for; empty if none is near.
func nearest(word string, known []string) string {
	word = strings.ReplaceAll(strings.ToLower(word), "-", "_")
	best, bestDistance := "", len(word)
	for _, k := range known {
		if len(word) >= 3 && strings.HasPrefix(k, word) {
			return k
		}
		limit := max(1, len(k)/3)
		if len(word) > len(k)+limit {
			continue
		}
		if n := distance(word, k); n <= limit && n < bestDistance {
			best, bestDistance = k, n
		}
	}
	return best
}

// distance is the number of bytes to insert, delete or replace to make b of a (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitute := diagonal
			if a[i] != b[j] {
				substitute++
			}
			diagonal = row[j+1]
			row[j+1] = min(substitute, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

// isDecimal tells whether s is a whole number as everybody reads it: digits, no leading zero.
func isDecimal(s string) bool {
	digits := strings.TrimPrefix(s, "-")
	return digits != "" && isMadeOf(digits, "0123456789") && (digits == "0" || digits[0] != '0')
}

// isMadeOf tells whether s consists of bytes of the alphabet.
func isMadeOf(s, alphabet string) bool {
	return !slices.ContainsFunc([]byte(s), func(c byte) bool { return strings.IndexByte(alphabet, c) < 0 })
}
