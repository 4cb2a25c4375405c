// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul

import (
	"errors"
	"fmt"
	"io"
	"net"
)

// freePorts finds ports at which nobody listens. They are held until all are found, so that they
// differ.
func freePorts(host string) (p ports, err error) {
	var held []io.Closer
	defer func() {
		for _, h := range held {
			err = errors.Join(err, h.Close())
		}
	}()
	for _, port := range []*int{&p.http, &p.https, &p.server, &p.serf} {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			return ports{}, fmt.Errorf("find a free port: %v", err)
		}
		held = append(held, l)
		*port = l.Addr().(*net.TCPAddr).Port
	}
	// Agents gossip over UDP, too, at the same port.
	u, err := net.ListenPacket("udp", net.JoinHostPort(host, fmt.Sprint(p.serf)))
	if err != nil {
		return ports{}, fmt.Errorf("find a free port: %v", err)
	}
	held = append(held, u)
	return p, nil
}
