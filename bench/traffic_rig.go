// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// lane is one way of traffic: a generator's thread with the interface that it sends on. In a lab, the other
// end of the pair has the program under test.
type lane struct {
	cpu               int // of the generator
	generator, tested side
	device            string // the generator's
	napi              []int  // thread ids of the program's polls, if it has threads of its own
}

// rig is the interfaces of a traffic measurement and the sink on them. One goroutine uses it; close it.
type rig struct {
	lanes []lane
	// placement says which CPUs do what.
	placement string
	sink      *sink
	links     []link.Link
	balancer  loaded
	// namespaces are the lab's; without names, so that the kernel removes them with the process.
	generators, tested side
	// listening are the interfaces whose counters are read.
	listening []port
	notes     []string
}

// port is an interface in its namespace, and what it is called in reports.
type port struct {
	side        *side
	name, label string
}

// LabMTU leaves room for outer headers in front of the longest packets.
const LabMTU = 2000

// openLabRig makes a pair of interfaces for each thread, and puts the target on one end of each.
func openLabRig(o TrafficOptions) (_ *rig, err error) {
	r := &rig{placement: placementName(o.Across)}
	defer func() { err = r.closeAfter(err) }()
	if err := errors.Join(r.generators.openUnnamed(), r.tested.openUnnamed()); err != nil {
		return r, err
	}
	if r.balancer, err = o.Target.load(); err != nil {
		return r, err
	}
	if r.sink, err = openSink(); err != nil {
		return r, err
	}
	cpus, err := allowedCPUs()
	if err != nil {
		return r, err
	}
	for i := range o.Threads {
		if err := r.addLane(i, o, cpus); err != nil {
			return r, err
		}
	}
	return r, nil
}

func placementName(across bool) string {
	if across {
		return "across CPUs"
	}
	return "one CPU a thread"
}

// addLane makes the pair of thread i. Across CPUs, every second one generates, and the next one polls.
func (r *rig) addLane(i int, o TrafficOptions, cpus []int) error {
	id := strconv.FormatInt(int64(os.Getpid()), 36)
	l := lane{cpu: cpus[i%len(cpus)], generator: r.generators, tested: r.tested}
	if o.Across {
		l.cpu = cpus[2*i%len(cpus)]
	}
	// The name of a NAPI thread is cut behind 15 characters.
	var dut string
	l.device, dut = fmt.Sprintf("g%d%s", i, id), fmt.Sprintf("t%d%s", i, id)
	if err := connectSides(&l.generator, &l.tested, l.device, dut); err != nil {
		return err
	}
	if err := errors.Join(l.generator.setMTU(LabMTU), l.tested.setMTU(LabMTU)); err != nil {
		return err
	}
	for _, end := range []struct {
		side    *side
		program *ebpf.Program
	}{{&l.tested, r.balancer.program}, {&l.generator, r.sink.program()}} {
		attached, err := end.side.attach(end.program)
		if err != nil {
			return fmt.Errorf("attach to the lab: %w", err)
		}
		r.links = append(r.links, attached)
	}
	if o.Across {
		polling := cpus[(2*i+1)%len(cpus)]
		var err error
		if l.napi, err = l.tested.pollOn(dut, polling, o.FIFO); err != nil {
			return err
		}
	}
	r.lanes = append(r.lanes, l)
	r.listening = append(r.listening,
		port{&r.lanes[i].generator, l.device, fmt.Sprintf("generator %d:", i)}, port{&r.lanes[i].tested, dut, fmt.Sprintf("program %d:", i)})
	return nil
}

// openInterfaceRig puts the sink on interfaces of this machine: the balancer is somewhere behind them.
func openInterfaceRig(o TrafficOptions) (_ *rig, err error) {
	r := &rig{placement: "interfaces"}
	defer func() { err = r.closeAfter(err) }()
	if r.sink, err = openSink(); err != nil {
		return r, err
	}
	cpus, err := allowedCPUs()
	if err != nil {
		return r, err
	}
	if err := r.generators.openCurrent(); err != nil {
		return r, err
	}
	var out side
	for i, name := range interfacesOf(o) {
		s := r.generators
		if err := s.find(name, o.Force); err != nil {
			return r, err
		}
		if i == 0 {
			out = s
		}
		if err := r.attachSink(s, name); err != nil {
			return r, err
		}
		r.listening = append(r.listening, port{&s, name, name})
	}
	for i := range o.Threads {
		r.lanes = append(r.lanes, lane{cpu: cpus[i%len(cpus)], generator: out, device: o.TX})
	}
	return r, nil
}

// interfacesOf are the one that sends, and the one that receives if it is another.
func interfacesOf(o TrafficOptions) []string {
	if o.RX == "" || o.RX == o.TX {
		return []string{o.TX}
	}
	return []string{o.TX, o.RX}
}

// attachSink attaches in the driver, where the driver can, as redirecting into it needs that.
func (r *rig) attachSink(s side, name string) error {
	attached, err := s.attach(r.sink.program())
	if err != nil {
		native := err
		attached, err = link.AttachXDP(link.XDPOptions{Program: r.sink.program(), Interface: s.index, Flags: link.XDPGenericMode})
		if err != nil {
			return fmt.Errorf("attach sink to %q: %w", name, errors.Join(native, err))
		}
		r.notes = append(r.notes, fmt.Sprintf("the sink on %s runs in generic mode, which is slow and may lose packets: %v", name, native))
	}
	r.links = append(r.links, attached)
	return nil
}

// openCurrent makes the side one of the present namespace.
func (s *side) openCurrent() (err error) {
	if s.ns, err = netns.Get(); err != nil {
		return fmt.Errorf("open namespace: %w", err)
	}
	if s.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return errors.Join(fmt.Errorf("open netlink: %w", err), s.ns.Close())
	}
	return nil
}

// find makes an interface that is there the side's, but for one that carries the default route: a flood
// on it takes the machine off its network.
func (s *side) find(name string, force bool) error {
	dl, err := s.handle.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find interface %q: %w", name, err)
	}
	s.index = dl.Attrs().Index
	if dl.Attrs().Flags&net.FlagUp == 0 {
		return fmt.Errorf("interface %q is down", name)
	}
	routes, err := s.handle.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("read routes: %w", err)
	}
	for _, route := range routes {
		if !force && isDefault(route) && routesOver(route, s.index) {
			return fmt.Errorf("interface %q carries the default route; --force uses it all the same", name)
		}
	}
	return nil
}

func isDefault(r netlink.Route) bool {
	if r.Dst == nil {
		return true
	}
	ones, _ := r.Dst.Mask.Size()
	return ones == 0
}

func routesOver(r netlink.Route, index int) bool {
	for _, hop := range r.MultiPath {
		if hop.LinkIndex == index {
			return true
		}
	}
	return r.LinkIndex == index
}

func (s *side) setMTU(mtu int) error {
	dl, err := s.handle.LinkByIndex(s.index)
	if err != nil {
		return fmt.Errorf("find device: %v", err)
	}
	if err := s.handle.LinkSetMTU(dl, mtu); err != nil {
		return fmt.Errorf("set MTU of %s: %v", dl.Attrs().Name, err)
	}
	return nil
}

// pollOn gives the device's polls threads of their own, and those a CPU. Returned are their ids.
func (s *side) pollOn(dev string, cpu int, fifo bool) ([]int, error) {
	err := onThread(func() error { return s.setThreaded(dev) })
	if err != nil {
		return nil, fmt.Errorf("give %s a thread: %w", dev, err)
	}
	threads, err := napiThreads(dev)
	if err != nil {
		return nil, err
	}
	var set unix.CPUSet
	set.Set(cpu)
	for _, id := range threads {
		if err := unix.SchedSetaffinity(id, &set); err != nil {
			return nil, fmt.Errorf("pin thread of %s to CPU %d: %w", dev, cpu, err)
		}
		if fifo {
			// Refused, the figures are noisier, no more.
			_ = unix.SchedSetAttr(id, &unix.SchedAttr{Policy: unix.SCHED_FIFO, Priority: fifoPriority}, 0)
		}
	}
	return threads, nil
}

// setThreaded writes to sysfs, which shows the devices of the namespace in which it was mounted. So
// the calling thread, which the caller gives up, gets a view of files of its own.
func (s *side) setThreaded(dev string) error {
	if err := netns.Set(s.ns); err != nil {
		return fmt.Errorf("enter namespace: %w", err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare mounts: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return fmt.Errorf("mount sysfs: %w", err)
	}
	return os.WriteFile(filepath.Join("/sys/class/net", dev, "threaded"), []byte("1"), 0)
}

// napiThreads finds the kernel's threads of a device by their names.
func napiThreads(dev string) (ids []int, err error) {
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return nil, fmt.Errorf("find threads of %s: %w", dev, err)
	}
	for _, file := range names {
		if strings.HasPrefix(readLine(file), "napi/"+dev+"-") {
			id, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			if err == nil {
				ids = append(ids, id)
			}
		}
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("find threads of %s: there are none", dev)
	}
	return ids, nil
}

// pollSeconds is the CPU time of the polls' threads.
func (r *rig) pollSeconds() float64 {
	var sum float64
	for _, l := range r.lanes {
		for _, id := range l.napi {
			word, _, _ := strings.Cut(readLine(fmt.Sprintf("/proc/%d/schedstat", id)), " ")
			if ns, err := strconv.ParseFloat(word, 64); err == nil {
				sum += ns / 1e9
			}
		}
	}
	return sum
}

// counters are those of the drivers, by interface and name.
func (r *rig) counters() map[string]uint64 {
	all := map[string]uint64{}
	for _, p := range r.listening {
		// A driver without counters is no error: there is nothing to be told.
		_ = onThread(func() error {
			if err := netns.Set(p.side.ns); err != nil {
				return err
			}
			e, err := ethtool.NewEthtool()
			if err != nil {
				return err
			}
			defer e.Close()
			stats, err := e.Stats(p.name)
			for name, n := range stats {
				all[p.label+" "+name] = n
			}
			return err
		})
	}
	return all
}

// close ends everything that the rig has made.
func (r *rig) close() error {
	var errs []error
	for _, l := range r.links {
		errs = append(errs, l.Close())
	}
	if r.sink != nil {
		r.sink.close()
	}
	errs = append(errs, r.balancer.close())
	return errors.Join(append(errs, r.generators.closeUnnamed(), r.tested.closeUnnamed())...)
}

// closeAfter closes the rig if err tells that it is not complete.
func (r *rig) closeAfter(err error) error {
	if err == nil {
		return nil
	}
	return errors.Join(fmt.Errorf("make traffic rig: %w", err), r.close())
}

// allowedCPUs are the CPUs of this process.
func allowedCPUs() (cpus []int, err error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("read allowed CPUs: %w", err)
	}
	for i, left := 0, set.Count(); left > 0; i++ {
		if set.IsSet(i) {
			cpus = append(cpus, i)
			left--
		}
	}
	return cpus, nil
}
