// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// offload is a feature of an interface that ethtool can switch.
type offload struct {
	name     string
	get, set uint32
}

// offloads returns what a cable must not do. A virtual cable otherwise carries packets whose
// checksum a card would complete at the end, and segments that a card would cut; a program that
// encapsulates them sends them on as they are, and the receiver finds a wrong checksum.
func offloads() []offload {
	return []offload{
		{"tx-checksumming", unix.ETHTOOL_GTXCSUM, unix.ETHTOOL_STXCSUM},
		{"tcp-segmentation-offload", unix.ETHTOOL_GTSO, unix.ETHTOOL_STSO},
		{"generic-segmentation-offload", unix.ETHTOOL_GGSO, unix.ETHTOOL_SGSO},
		{"generic-receive-offload", unix.ETHTOOL_GGRO, unix.ETHTOOL_SGRO},
	}
}

// disableOffloads switches the offloads of an interface off.
func (n *Node) disableOffloads(link string) error {
	return n.Do(func() error {
		for _, o := range offloads() {
			if _, err := ethtool(link, o.set, 0); err != nil {
				return fmt.Errorf("switch %s of %s in %s off: %v", o.name, link, n.Namespace, err)
			}
		}
		return nil
	})
}

// Offloads returns the names (as ethtool -k writes them) of the checksum and segmentation
// offloads of an interface that are on.
func (n *Node) Offloads(link string) (on []string, err error) {
	err = n.Do(func() error {
		for _, o := range offloads() {
			value, err := ethtool(link, o.get, 0)
			if err != nil {
				return fmt.Errorf("read %s of %s in %s: %v", o.name, link, n.Namespace, err)
			}
			if value != 0 {
				on = append(on, o.name)
			}
		}
		return nil
	})
	return on, err
}

// ethtool gives one command with a value, in the calling thread's namespace, and returns the value
// that comes back. See struct ifreq (linux/if.h) and struct ethtool_value (linux/ethtool.h).
func ethtool(link string, command, value uint32) (uint32, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	data := struct{ command, value uint32 }{command, value}
	req := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&data)}
	if len(link) >= len(req.name) {
		return 0, unix.ENAMETOOLONG
	}
	copy(req.name[:], link)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return 0, errno
	}
	return data.value, nil
}
