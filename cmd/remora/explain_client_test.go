// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/remora-lb/remora/lb/control"
	"github.com/remora-lb/remora/lb/explain"
	"github.com/remora-lb/remora/test/require"
)

// Explain says of a frame what it was, and of a backend its address.
func (d *clientDaemon) Explain(_ context.Context, q control.Explanation) ([]byte, error) {
	if len(q.Frame) == 0 {
		if q.Backend != d.targets[0].Backend {
			return nil, &control.Error{Code: control.CodeNotFound, Problem: "no such backend"}
		}
		return json.Marshal(explain.RealReport{Address: q.Backend.String(), VIPs: []explain.RealOnIt{{RingSize: uint32(q.Examples)}}})
	}
	return json.Marshal(explain.Report{Packet: hex.EncodeToString(q.Frame), Why: "because"})
}

// explainText runs the command.
func explainText(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := newRootCommand()
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(append([]string{"explain"}, args...))
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestExplainRefusesWhatCannotBe(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"nothing":       {nil, "give one of"},
		"two":           {[]string{"--hex", "00", "--real", "10.0.0.1"}, "give one of"},
		"bad hex":       {[]string{"--hex", "0g"}, "read frame"},
		"bad packet":    {[]string{"tcp 1.2.3.4:5 => 1.2.3.4:80"}, `write it as "tcp`},
		"bad protocol":  {[]string{"sctp 1.2.3.4:5 -> 1.2.3.4:80"}, `"sctp" is not tcp or udp`},
		"two families":  {[]string{"tcp [::1]:5 -> 1.2.3.4:80"}, "two families"},
		"bad flag":      {[]string{"tcp 1.2.3.4:5 -> 1.2.3.4:80 sin"}, `"sin" is not known`},
		"flag of UDP":   {[]string{"udp 1.2.3.4:5 -> 1.2.3.4:80 syn"}, `"syn" is not known`},
		"too short":     {[]string{"tcp 1.2.3.4:5 -> 1.2.3.4:80 bytes=39"}, "bytes=40"},
		"VIP alone":     {[]string{"tcp 1.2.3.4:5 -> 1.2.3.4:80", "--vip", "1.2.3.4:80/tcp"}, "--vip goes with --real"},
		"check of real": {[]string{"--real", "10.0.0.1", "--check"}, "--check goes with a packet"},
		"bad real":      {[]string{"--real", "x"}, "read --real"},
		"examples":      {[]string{"--real", "10.0.0.1", "--examples", "1001"}, "not 0 to 1000"},
		"no capture":    {[]string{"--pcap", "/nonexistent.pcap:1"}, "read capture"},
		"output":        {[]string{"--hex", "00", "-o", "yaml"}, "not text or json"},
	} {
		t.Run(name, func(t *testing.T) {
			if out, err := explainText(t, c.args...); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want %q; output %q", err, c.says, out)
			}
		})
	}
}

func TestReadCapture(t *testing.T) {
	frames := [][]byte{{1, 2, 3, 4}, {5, 6, 7, 8, 9}}
	write := func(name string, packet func(gopacket.CaptureInfo, []byte) error) {
		for i, f := range frames {
			info := gopacket.CaptureInfo{Timestamp: time.Unix(int64(i), 0), CaptureLength: len(f), Length: len(f)}
			require.NoError(t, packet(info, f))
		}
	}
	for _, format := range []string{"pcap", "pcapng"} {
		t.Run(format, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "lost."+format)
			file, err := os.Create(path)
			require.NoError(t, err)
			defer file.Close()
			if format == "pcap" {
				w := pcapgo.NewWriter(file)
				require.NoError(t, w.WriteFileHeader(65535, layers.LinkTypeEthernet))
				write(path, w.WritePacket)
			} else {
				w, err := pcapgo.NewNgWriter(file, layers.LinkTypeEthernet)
				require.NoError(t, err)
				write(path, w.WritePacket)
				require.NoError(t, w.Flush())
			}
			for name, want := range map[string][]byte{path: frames[0], path + ":1": frames[0], path + ":2": frames[1]} {
				got, err := readCapture(name)
				require.NoError(t, err)
				if !bytes.Equal(got, want) {
					t.Errorf("%s: %x, want %x", name, got, want)
				}
			}
			_, err = readCapture(path + ":3")
			require.ErrorSays(t, err, "it has 2 frames")
			_, err = readCapture(path + ":0")
			require.ErrorSays(t, err, "count from 1")
		})
	}
	path := filepath.Join(t.TempDir(), "cooked.pcap")
	file, err := os.Create(path)
	require.NoError(t, err)
	defer file.Close()
	require.NoError(t, pcapgo.NewWriter(file).WriteFileHeader(65535, layers.LinkTypeLinuxSLL))
	_, err = readCapture(path)
	require.ErrorSays(t, err, "not Ethernet")
}

func TestParsedPacketsAreExplained(t *testing.T) {
	frame, err := explain.ParsePacket("TCP 198.51.100.7:50000 -> 192.0.2.10:80 [syn] bytes=60")
	require.NoError(t, err)
	if len(frame) != 74 {
		t.Errorf("a frame of %d bytes, want 74", len(frame))
	}
	r, err := (&explain.World{}).Packet(frame)
	require.NoError(t, err)
	if want := "tcp 198.51.100.7:50000 -> 192.0.2.10:80 syn, 60 bytes, TTL 64"; r.Packet != want || r.Reason != "not_vip" {
		t.Errorf("%q ends as %s, want %q", r.Packet, r.Reason, want)
	}
	got, err := explain.ParseHex("00:11 22\n33")
	require.NoError(t, err)
	if !bytes.Equal(got, []byte{0, 0x11, 0x22, 0x33}) {
		t.Errorf("read %x", got)
	}
}
