// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/remora-lb/remora/test/rig"
)

// requestsPerVIP is so many that each of three servers gets one but in 2 of 100 000 cases.
const requestsPerVIP = 30

// url is the address of a page of a VIP.
func url(vip netip.Addr, path string) string {
	return "http://" + strings.TrimSuffix(netip.AddrPortFrom(vip, 80).String(), ":80") + path
}

// requests sends requests to both VIPs and demands that these servers, all of them and no others,
// answer. One curl sends those to a VIP: to start one for each takes longer than all the rest.
func (d *demo) requests(ctx context.Context, what string, servers ...*rig.Node) error {
	for _, vip := range vips() {
		name := what + ", IPv4"
		if vip.Is6() {
			name = what + ", IPv6"
		}
		out, err := d.run(ctx, d.lab.Client, "curl", "-sS", "--max-time", "3", "--fail-early", "-H", "Connection: close",
			fmt.Sprintf("%s?[1-%d]", url(vip, "/"), requestsPerVIP))
		answers := make(map[string]int)
		for name := range strings.FieldsSeq(out) {
			answers[name]++
		}
		if err == nil {
			err = judge(answers, servers)
		}
		if err != nil {
			return d.fail(name, err)
		}
		d.pass(name, "%d of %d answered: %s", requestsPerVIP, requestsPerVIP, tally(answers, servers))
	}
	return nil
}

// judge demands answers from each of the servers, and from nobody else.
func judge(answers map[string]int, servers []*rig.Node) error {
	var errs []error
	expected := make(map[string]bool)
	for _, s := range servers {
		expected[s.Name] = true
		if answers[s.Name] == 0 {
			errs = append(errs, fmt.Errorf("no answer came from %s", s.Name))
		}
	}
	for name, n := range answers {
		if !expected[name] {
			errs = append(errs, fmt.Errorf("%d answers came from %q", n, name))
		}
	}
	return errors.Join(errs...)
}

// tally writes how often each server answered.
func tally(answers map[string]int, servers []*rig.Node) string {
	var parts []string
	for _, s := range servers {
		parts = append(parts, fmt.Sprintf("%s %d", s.Name, answers[s.Name]))
	}
	return strings.Join(parts, ", ")
}

// transferFile moves a large file both ways, so that packets are of full size.
func (d *demo) transferFile(ctx context.Context) error {
	d.say("Download and upload a file of %d bytes: with its outer headers, a full packet still fits.", largeBytes)
	copied := filepath.Join(d.lab.Dir, "download")
	vip := vips()[0]
	before, err := d.toBalancer()
	if err != nil {
		return err
	}
	if _, err := d.run(ctx, d.lab.Client, "curl", "-sS", "--max-time", "20", "-o", copied, url(vip, "/large")); err != nil {
		return d.fail("a large download", err)
	}
	after, err := d.toBalancer()
	if err != nil {
		return err
	}
	if err := d.sameAsLarge(copied); err != nil {
		return d.fail("a large download", err)
	}
	d.pass("a large download", "%d bytes are intact; only %d bytes went through the balancer: answers go past it", largeBytes, after-before)

	out, err := d.run(ctx, d.lab.Client, "curl", "-sS", "--max-time", "20", "-T", copied, "-o", "/dev/null", "-w", "%{http_code}", url(vip, "/upload/file"))
	if err != nil {
		return d.fail("a large upload", err)
	}
	if out != "201" {
		return d.fail("a large upload", fmt.Errorf("HTTP status %q instead of 201", out))
	}
	uploaded, err := filepath.Glob(filepath.Join(d.lab.Dir, "server*", "upload", "file"))
	if err != nil || len(uploaded) != 1 {
		return d.fail("a large upload", fmt.Errorf("%d servers have the file", len(uploaded)))
	}
	if err := d.sameAsLarge(uploaded[0]); err != nil {
		return d.fail("a large upload", err)
	}
	d.pass("a large upload", "%d bytes are intact on %s", largeBytes, filepath.Base(filepath.Dir(filepath.Dir(uploaded[0]))))
	return nil
}

// toBalancer is the number of bytes that the router has sent to the balancer.
func (d *demo) toBalancer() (uint64, error) {
	c, err := d.lab.Router.Counters("to-lb")
	return c.TxBytes, err
}

// sameAsLarge compares a file with the servers' large file.
func (d *demo) sameAsLarge(path string) error {
	got, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read file: %v", err)
	}
	want, err := os.ReadFile(filepath.Join(d.lab.Dir, d.lab.Servers[0].Name, "large"))
	if err != nil {
		return fmt.Errorf("read file: %v", err)
	}
	if string(got) != string(want) {
		return fmt.Errorf("%d bytes arrived that differ from the %d sent", len(got), len(want))
	}
	return nil
}
