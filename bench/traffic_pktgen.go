// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// pktgenFolder is where the kernel's packet generator takes commands for this namespace.
const pktgenFolder = "/proc/thread-self/net/pktgen"

// hasPktgen tells whether this kernel has the packet generator, as a part or as a loaded module.
func hasPktgen() bool {
	_, err := os.Stat("/proc/net/pktgen/pgctrl")
	return err == nil
}

// pktgenDevice is what one thread of pktgen sends.
type pktgenDevice struct {
	thread int // the number of kpktgend, which is that of its CPU
	link   string
	queue  int
	// firstSource is the number of its first source.
	firstSource int
}

// name is that of the device's file: one link may be given to several threads.
func (d pktgenDevice) name() string { return fmt.Sprintf("%s@%d", d.link, d.thread) }

// pktgen writes commands to the kernel's generator. It has no process of its own: what is started goes
// on until it is stopped, so close it. One goroutine uses it.
type pktgen struct {
	folder string
	// inside runs a function in the network namespace of the devices: that of the thread that writes
	// counts, and not the file's (net/core/pktgen.c, pgctrl_write).
	inside  func(func() error) error
	load    load
	devices []pktgenDevice
}

// newPktgen gives the devices to their threads. Whatever else was given to these threads is taken away.
func newPktgen(folder string, inside func(func() error) error, l load, devices []pktgenDevice) (*pktgen, error) {
	g := &pktgen{folder: folder, inside: inside, load: l, devices: devices}
	for _, d := range devices {
		thread := fmt.Sprintf("kpktgend_%d", d.thread)
		err := g.write(thread, "rem_device_all")
		if err == nil {
			err = g.write(thread, "add_device "+d.name())
		}
		for _, command := range l.pktgenCommands(d) {
			if err == nil {
				err = g.write(d.name(), command)
			}
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("set up pktgen: %w", err), g.close())
		}
	}
	return g, nil
}

// pktgenCommands are what a device is told before its first run. IPv6 flows differ by ports only:
// pktgen varies no IPv6 source.
func (l load) pktgenCommands(d pktgenDevice) []string {
	mac := l.mac
	commands := []string{
		"clone_skb 0",
		fmt.Sprintf("dst_mac %02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]),
		fmt.Sprintf("udp_dst_min %d", l.destination.Port), fmt.Sprintf("udp_dst_max %d", l.destination.Port),
		fmt.Sprintf("udp_src_min %d", firstPort), fmt.Sprintf("udp_src_max %d", firstPort+l.ports-1),
		fmt.Sprintf("queue_map_min %d", d.queue), fmt.Sprintf("queue_map_max %d", d.queue),
	}
	if l.ports > 1 {
		commands = append(commands, "flag UDPSRC_RND")
	}
	commands = append(commands, l.pktgenSize()...)
	addr := l.destination.Addr
	if l.ipv6() {
		return append(commands, "dst6 "+addr.String(), "src6 "+addresses().client6.String(), "flag UDPCSUM")
	}
	commands = append(commands,
		"dst_min "+addr.String(), "dst_max "+addr.String(),
		"src_min "+sourceAddr(d.firstSource).String(), "src_max "+sourceAddr(d.firstSource+l.sources-1).String())
	if l.sources > 1 {
		commands = append(commands, "flag IPSRC_RND")
	}
	return commands
}

// sourceAddr is the address of a source's number.
func sourceAddr(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
}

// pktgenSize are the commands for the lengths, which are without the checksum of Ethernet there, too.
func (l load) pktgenSize() []string {
	if len(l.size.Pattern) == 1 {
		return []string{fmt.Sprintf("pkt_size %d", l.size.Pattern[0])}
	}
	var entries []string
	count, order := map[int]int{}, []int{}
	for _, n := range l.size.Pattern {
		if count[n]++; count[n] == 1 {
			order = append(order, n)
		}
	}
	for _, n := range order {
		entries = append(entries, fmt.Sprintf("%d,%d", n, count[n]))
	}
	return []string{"imix_weights " + strings.Join(entries, " ")}
}

func (g *pktgen) name() string { return "pktgen" }

// close stops what runs and takes the devices from the threads.
func (g *pktgen) close() error {
	errs := []error{g.write("pgctrl", "stop")}
	for _, d := range g.devices {
		errs = append(errs, g.write(fmt.Sprintf("kpktgend_%d", d.thread), "rem_device_all"))
	}
	return errors.Join(errs...)
}

// send starts all threads and stops them when the time is over; a write of start returns then.
func (g *pktgen) send(ctx context.Context, rate float64, d time.Duration) (sentLoad, error) {
	for _, dev := range g.devices {
		command := "delay 0"
		if rate > 0 {
			command = fmt.Sprintf("ratep %d", max(int(rate/float64(len(g.devices))), 1))
		}
		if err := errors.Join(g.write(dev.name(), command), g.write(dev.name(), "count 0")); err != nil {
			return sentLoad{}, fmt.Errorf("start pktgen: %w", err)
		}
	}
	done := make(chan error, 1)
	start := time.Now()
	go func() { done <- g.write("pgctrl", "start") }()
	over := time.NewTimer(d)
	defer over.Stop()
	var err error
	select {
	case err = <-done: // at once only if it fails
	case <-over.C:
		err = g.stop(done)
	case <-ctx.Done():
		err = g.stop(done)
	}
	if err != nil {
		return sentLoad{}, fmt.Errorf("run pktgen: %w", err)
	}
	return g.result(time.Since(start).Seconds())
}

func (g *pktgen) stop(done <-chan error) error {
	if err := g.write("pgctrl", "stop"); err != nil {
		return err
	}
	return <-done
}

// result adds up what the devices have sent.
func (g *pktgen) result(seconds float64) (sentLoad, error) {
	s := sentLoad{seconds: seconds}
	for _, d := range g.devices {
		var b []byte
		err := g.inside(func() (err error) {
			b, err = os.ReadFile(filepath.Join(g.folder, d.name()))
			return err
		})
		if err != nil {
			return s, fmt.Errorf("read result of pktgen: %w", err)
		}
		n, err := parsePktgen(string(b))
		if err != nil {
			return s, fmt.Errorf("read result of pktgen, device %s: %w", d.name(), err)
		}
		s.packets += n
	}
	return s, nil
}

// parsePktgen reads the packets sent from a device's file.
func parsePktgen(text string) (uint64, error) {
	_, counters, found := strings.Cut(text, "pkts-sofar: ")
	if !found {
		return 0, errors.New("it has no pkts-sofar")
	}
	word, _, _ := strings.Cut(counters, " ")
	n, err := strconv.ParseUint(strings.TrimSpace(word), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("pkts-sofar %q is not a number", word)
	}
	_, result, found := strings.Cut(text, "Result: ")
	if line, _, _ := strings.Cut(result, "\n"); found && !strings.HasPrefix(line, "OK") && !strings.HasPrefix(line, "Idle") {
		return 0, fmt.Errorf("result %q", line)
	}
	return n, nil
}

func (g *pktgen) write(file, command string) error {
	return g.inside(func() error { return writeCommand(g.folder, file, command) })
}

func writeCommand(folder, file, command string) error {
	f, err := os.OpenFile(filepath.Join(folder, file), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return fmt.Errorf("open pktgen: %w", err)
	}
	_, err = f.WriteString(command + "\n")
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("tell pktgen's %s %q: %w", file, command, err)
	}
	return nil
}
