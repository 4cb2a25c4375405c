// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// quotesHint is for what YAML makes of addresses such as [2001:db8::10]:80/tcp and 2001:db8::
const quotesHint = `an address with brackets or a colon at its end goes in quotes, as in "[2001:db8::10]:80/tcp"`

// parseTree reads the one document of a file and returns its root. It returns nil, and has
// reported why, if there is none; a root and a problem if more follows the document.
func parseTree(data []byte, r *report) *yaml.Node {
	if !checkText(data, r) {
		return nil
	}
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		r.add(place{line: 1}, "cannot read YAML: %s", oneLine(err.Error()))
		return nil
	}
	var doc, second yaml.Node
	err = loader.Load(&doc)
	if err != nil && err != io.EOF {
		reportSyntax(err, data, r)
		return nil
	}
	if err == io.EOF || len(doc.Content) == 0 || isNull(doc.Content[0]) {
		r.add(place{line: 1}, "the file is empty: expected the fields interface and services")
		return nil
	}
	switch err := loader.Load(&second); {
	case err == io.EOF:
	case err != nil:
		reportSyntax(err, data, r)
	default:
		r.add(place{line: second.Line}, "a second document begins: expected one document in the file, without a line ---")
	}
	return doc.Content[0]
}

// checkText refuses what is no text, since the YAML reader says of that neither line nor help.
func checkText(data []byte, r *report) bool {
	line := 1
	for i := 0; i < len(data); {
		c, n := utf8.DecodeRune(data[i:])
		switch {
		case c == utf8.RuneError && n == 1:
			r.add(place{line: line}, "byte %#02x is not UTF-8: expected a text file in UTF-8", data[i])
			return false
		case c == '\n':
			line++
		case unicode.IsControl(c) && c != '\t' && c != '\r':
			r.add(place{line: line}, "there is a control character %U: expected a text file without", c)
			return false
		}
		i += n
	}
	return true
}

func reportSyntax(err error, data []byte, r *report) {
	at, text := place{line: 1}, err.Error()
	var e *yaml.LoadError
	if errors.As(err, &e) {
		at.line, text = e.Mark.Line, e.Message
		if e.ContextMsg != "" {
			text += " " + e.ContextMsg
		}
	}
	text = oneLine(text)
	switch line := lineOf(data, at.line); {
	case hasBracketAddr(line):
		text += ": " + quotesHint
	case strings.HasPrefix(strings.TrimLeft(line, " "), "\t"):
		text += ": indent with spaces, not tabs"
	}
	r.add(at, "not valid YAML: %s", text)
}

// lineOf is the line with the given number, from 1; empty if there is none.
func lineOf(data []byte, number int) string {
	for line := range strings.Lines(string(data)) {
		if number--; number == 0 {
			return line
		}
	}
	return ""
}

// hasBracketAddr tells whether a line has an IPv6 address in brackets and before a port, but not
// in quotes.
func hasBracketAddr(line string) bool {
	const maxAddrLen = 64 // no address is longer; without a limit, many brackets would take long
	before, rest, ok := strings.Cut(line, "[")
	for ok {
		inside, _, closed := strings.Cut(rest[:min(len(rest), maxAddrLen)], "]:")
		_, err := netip.ParseAddr(inside)
		if closed && err == nil && !strings.HasSuffix(before, `"`) && !strings.HasSuffix(before, "'") {
			return true
		}
		before, rest, ok = strings.Cut(rest, "[")
	}
	return false
}

// isNull tells whether a value is absent: nothing, ~ or null.
func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

// oneLine makes a message of a library safe to print.
func oneLine(s string) string {
	return strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return ' '
		}
		return c
	}, s)
}
