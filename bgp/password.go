// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
)

// maxPassword is the longest TCP MD5 key that the kernel takes, in bytes.
const maxPassword = 80

// readPassword reads a key. There is no case in which the answer is empty without an error: an
// empty key would open a session without authentication.
func readPassword(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read password: %v", err)
	}
	password := strings.TrimRight(string(b), "\r\n")
	switch {
	case password == "":
		return "", fmt.Errorf("read password: %s is empty", path)
	case len(password) > maxPassword:
		return "", fmt.Errorf("read password: %s has %d bytes, more than %d", path, len(password), maxPassword)
	case strings.ContainsAny(password, "\x00\r\n"):
		return "", fmt.Errorf("read password: %s has more than one line, or a zero byte", path)
	}
	return password, nil
}

// readPasswords reads the keys of all peers that have one.
func readPasswords(peers []Peer) (map[netip.Addr]string, error) {
	passwords := make(map[netip.Addr]string)
	var errs []error
	for i, p := range peers {
		if p.PasswordFile == "" {
			continue
		}
		password, err := readPassword(p.PasswordFile)
		if err != nil {
			errs = append(errs, fmt.Errorf("Peers[%d].PasswordFile: %v", i, err))
		}
		passwords[p.Address] = password
	}
	return passwords, errors.Join(errs...)
}
