// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/user"
	"slices"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// peer is who is at the other end of a connection, as the kernel knew when it was made.
type peer struct {
	pid      int32
	uid, gid uint32
	groups   []uint32 // beside gid
}

// String is for people.
func (p peer) String() string {
	id := strconv.FormatUint(uint64(p.uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return fmt.Sprintf("user %s (%s)", id, u.Username)
	}
	return "user " + id
}

// peerOf asks the kernel.
func peerOf(conn *net.UnixConn) (p peer, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return peer{}, err
	}
	if controlErr := raw.Control(func(fd uintptr) { p, err = peerOfFD(int(fd)) }); controlErr != nil {
		return peer{}, controlErr
	}
	return p, err
}

func peerOfFD(fd int) (peer, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return peer{}, os.NewSyscallError("getsockopt SO_PEERCRED", err)
	}
	groups, err := peerGroups(fd)
	if err != nil {
		return peer{}, os.NewSyscallError("getsockopt SO_PEERGROUPS", err)
	}
	return peer{pid: cred.Pid, uid: cred.Uid, gid: cred.Gid, groups: groups}, nil
}

// maxGroups is the kernel's NGROUPS_MAX (include/uapi/linux/limits.h).
const maxGroups = 65536

// peerGroups are the peer's supplementary groups. x/sys has no function for this option.
func peerGroups(fd int) ([]uint32, error) {
	const gidBytes = 4
	for buf := make([]byte, 64*gidBytes); ; buf = make([]byte, maxGroups*gidBytes) {
		length := uint32(len(buf))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&length)), 0)
		if errno == unix.ERANGE && len(buf) < maxGroups*gidBytes {
			continue
		}
		if errno != 0 {
			return nil, errno
		}
		groups := make([]uint32, length/gidBytes)
		for i := range groups {
			groups[i] = binary.NativeEndian.Uint32(buf[i*gidBytes:])
		}
		return groups, nil
	}
}

// access is who may use the API, beside root.
type access struct {
	uid   uint32
	group string // as configured; empty: none
	gid   uint32 // group's
}

func (a access) allows(p peer) bool {
	if p.uid == 0 || p.uid == a.uid {
		return true
	}
	return a.group != "" && (p.gid == a.gid || slices.Contains(p.groups, a.gid))
}

// refusal says to a peer why it is not allowed.
func (a access) refusal(p peer) *Error {
	e := &Error{
		Code:    CodeDenied,
		Object:  p.String(),
		Problem: fmt.Sprintf("%s may not use the control API", p),
		Cure:    "use sudo",
	}
	if a.group != "" {
		e.Cure += fmt.Sprintf(", or become a member of the group %s", a.group)
	}
	return e
}

// lookupGroup is the id of a group that is named or numbered.
func lookupGroup(name string) (uint32, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		var numberErr error
		if g, numberErr = user.LookupGroupId(name); numberErr != nil {
			return 0, fmt.Errorf("there is no group %q", name)
		}
	}
	id, err := strconv.ParseUint(g.Gid, 10, 32)
	return uint32(id), err
}
