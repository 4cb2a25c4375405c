// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// text reads a file, without white space around it.
func (m *Machine) text(path string) (string, error) {
	data, err := fs.ReadFile(m.Files, strings.TrimPrefix(path, "/"))
	return strings.TrimSpace(string(data)), err
}

// number reads a file with a number.
func (m *Machine) number(path string) (int, error) {
	text, err := m.text(path)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("read %s: %q is no number", path, text)
	}
	return n, nil
}

// setting reads a kernel parameter of an interface: the greater of its own and that of all, which is
// how the kernel reads rp_filter, arp_ignore and arp_announce.
func (m *Machine) setting(iface, name string) (int, error) {
	all, allErr := m.number("/proc/sys/net/ipv4/conf/all/" + name)
	own, ownErr := m.number("/proc/sys/net/ipv4/conf/" + iface + "/" + name)
	return max(all, own), errors.Join(allErr, ownErr)
}

// sysctl is the command that sets a kernel parameter. The name of an interface may have dots.
func sysctl(iface, name string, value int) string {
	return fmt.Sprintf("sysctl -w net/ipv4/conf/%s/%s=%d", iface, name, value)
}

// fields reads lines of the form KEY SEPARATOR VALUE; of a key that is there several times, the
// values are joined by a blank.
func fields(text, separator string) map[string]string {
	values := make(map[string]string)
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(line, separator)
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		switch {
		case !ok || strings.HasPrefix(key, "#") || strings.HasPrefix(key, ";"):
		case values[key] != "":
			values[key] += " " + value
		default:
			values[key] = value
		}
	}
	return values
}
