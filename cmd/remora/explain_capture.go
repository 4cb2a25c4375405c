// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// captureReader reads the frames of a capture one after the other.
type captureReader interface {
	ReadPacketData() ([]byte, gopacket.CaptureInfo, error)
	LinkType() layers.LinkType
}

// readCapture reads a frame of a pcap or pcapng file, named FILE or FILE:N with N from 1.
func readCapture(name string) ([]byte, error) {
	path, n := name, 1
	if cut := strings.LastIndexByte(name, ':'); cut > 0 {
		if number, err := strconv.Atoi(name[cut+1:]); err == nil {
			path, n = name[:cut], number
		}
	}
	if n < 1 {
		return nil, fmt.Errorf("read capture %q: frames count from 1", name)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read capture: %v", err)
	}
	defer file.Close()
	frame, err := readFrame(file, n)
	if err != nil {
		return nil, fmt.Errorf("read frame %d of %q: %v", n, path, err)
	}
	return frame, nil
}

// readFrame reads the nth frame.
func readFrame(in io.Reader, n int) ([]byte, error) {
	r, err := newCaptureReader(in)
	if err != nil {
		return nil, err
	}
	if kind := r.LinkType(); kind != layers.LinkTypeEthernet {
		return nil, fmt.Errorf("its link type is %s, not Ethernet", kind)
	}
	for i := 1; ; i++ {
		frame, info, err := r.ReadPacketData()
		switch {
		case errors.Is(err, io.EOF):
			return nil, fmt.Errorf("it has %d frames", i-1)
		case err != nil:
			return nil, err
		case i == n && info.CaptureLength < info.Length:
			return nil, fmt.Errorf("only %d of its %d bytes were captured", info.CaptureLength, info.Length)
		case i == n:
			return frame, nil
		}
	}
}

// newCaptureReader tells the two formats apart by their first bytes: pcapng begins with a block of type
// 0x0a0d0d0a.
func newCaptureReader(in io.Reader) (captureReader, error) {
	buffered := bufio.NewReader(in)
	magic, err := buffered.Peek(4)
	if err != nil {
		return nil, errors.New("it is no capture: it is too short")
	}
	if string(magic) == "\n\r\r\n" {
		return pcapgo.NewNgReader(buffered, pcapgo.DefaultNgReaderOptions)
	}
	return pcapgo.NewReader(buffered)
}
