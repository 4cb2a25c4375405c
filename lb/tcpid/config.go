// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package tcpid

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Config says which sockets, and what they do.
type Config struct {
	// Cgroup is the path of a cgroup of version 2. The sockets are those that processes open within it, or
	// below it. Required.
	Cgroup string
	// ServerID is what the sockets' server says; 0, the default, makes clients of them.
	ServerID uint32
}

// Validate reports all problems of the configuration, each with the name of its field.
func (c Config) Validate() error {
	if c.Cgroup == "" {
		return errors.New("Cgroup: empty: name a cgroup of version 2, such as /sys/fs/cgroup/web.slice")
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(c.Cgroup, &fs); err != nil {
		return fmt.Errorf("Cgroup: open %q: %v", c.Cgroup, err)
	}
	if fs.Type != unix.CGROUP2_SUPER_MAGIC {
		return fmt.Errorf("Cgroup: %q is not a cgroup of version 2", c.Cgroup)
	}
	return nil
}
