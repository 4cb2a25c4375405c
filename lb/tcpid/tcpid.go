// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package tcpid

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"

	"github.com/remora-lb/remora/lb/attach"
)

// programName is the program's in the kernel.
const programName = "remora_tcp_id"

// TCPID owns the loaded program, its maps and its attachment, which end with it or with the process
// unless they were pinned. Close must be called. Its methods must not be called concurrently.
type TCPID struct {
	cfg     Config
	objects tcpidObjects
	link    link.Link
}

// New checks the configuration and the capabilities of the calling thread, and loads the program. It
// attaches nothing.
func New(cfg Config) (*TCPID, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	privileges, err := attach.CurrentPrivileges()
	if err != nil {
		return nil, err
	}
	if err := privileges.Check(); err != nil {
		return nil, err
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("raise RLIMIT_MEMLOCK, which kernels before 5.11 charge maps to: %v", err)
	}
	spec, err := loadTcpid()
	if err != nil {
		return nil, fmt.Errorf("read the built-in program: %v", err)
	}
	if err := spec.Variables["setting_server_id"].Set(cfg.ServerID); err != nil {
		return nil, fmt.Errorf("set constants of the built-in program: %v", err)
	}
	t := &TCPID{cfg: cfg}
	if err := spec.LoadAndAssign(&t.objects, nil); err != nil {
		return nil, loadError(err)
	}
	return t, nil
}

// loadError adds the verifier's whole log, if it is that which refused.
func loadError(err error) error {
	var ve *ebpf.VerifierError
	if errors.As(err, &ve) {
		return fmt.Errorf("load program, which needs Linux 5.10: the kernel's verifier refused it: %+v", ve)
	}
	return fmt.Errorf("load program and maps: %v", err)
}

// Attach puts the program on the cgroup. Only one can be there: two would say two ids. Connections that
// there are already stay as they are, and those of listening sockets that there are already are told
// no id. What a client learned ends with its program: the next one names nobody on those connections.
func (t *TCPID) Attach() error {
	if err := t.checkAlone(); err != nil {
		return err
	}
	l, err := link.AttachCgroup(link.CgroupOptions{Path: t.cfg.Cgroup, Attach: ebpf.AttachCGroupSockOps, Program: t.objects.RemoraTcpId})
	if err != nil {
		return fmt.Errorf("attach to cgroup %q: %v", t.cfg.Cgroup, err)
	}
	t.link = l
	return nil
}

// checkAlone looks for another program like this on the cgroup itself.
func (t *TCPID) checkAlone() error {
	dir, err := os.Open(t.cfg.Cgroup)
	if err != nil {
		return fmt.Errorf("open cgroup: %v", err)
	}
	defer dir.Close()
	there, err := link.QueryPrograms(link.QueryOptions{Target: int(dir.Fd()), Attach: ebpf.AttachCGroupSockOps})
	if err != nil {
		return fmt.Errorf("list programs of cgroup %q: %v", t.cfg.Cgroup, err)
	}
	for _, p := range there.Programs {
		name, err := nameOf(p.ID)
		if err != nil {
			return err
		}
		if name == programName {
			return fmt.Errorf("attach to cgroup %q: program %d there says ids already: detach it first", t.cfg.Cgroup, p.ID)
		}
	}
	return nil
}

// nameOf is a program's name; empty if the program has gone meanwhile.
func nameOf(id ebpf.ProgramID) (string, error) {
	p, err := ebpf.NewProgramFromID(id)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("open program %d: %v", id, err)
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return "", fmt.Errorf("read name of program %d: %v", id, err)
	}
	return info.Name, nil
}

// Counters reads the counters of all CPUs.
func (t *TCPID) Counters() (Counters, error) { return readCounters(t.objects.Counters) }

// Detach takes the program off the cgroup, unless it is pinned. Connections go on without options. The
// counters stay until Close.
func (t *TCPID) Detach() error {
	if t.link == nil {
		return nil
	}
	err := t.link.Close()
	t.link = nil
	if err != nil {
		return fmt.Errorf("detach from cgroup %q: %v", t.cfg.Cgroup, err)
	}
	return nil
}

// Close detaches, and gives up program and maps.
func (t *TCPID) Close() error { return errors.Join(t.Detach(), t.objects.Close()) }
