// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/osrg/gobgp/v3/pkg/server"
)

// apiTimeout is how long GoBGP may take to open its socket, and apiPoll how often it is looked
// for.
const (
	apiTimeout = 5 * time.Second
	apiPoll    = 5 * time.Millisecond
)

// privateLen is how much longer the socket's first name may be than that of the directory.
const privateLen = len("/.gobgp-") + 10 + len("/s")

// apiSocket is the unix socket of GoBGP's gRPC. GoBGP can only open it by name and with the
// rights of the day, so it does that in a directory that nobody else can enter; with the right
// permissions it then gets its name.
type apiSocket struct {
	// path is empty if no socket is wanted.
	path string
	dir  string
}

// newAPISocket makes the directory. A socket of an earlier process is no problem, one that
// answers is.
func newAPISocket(path string) (*apiSocket, error) {
	if path == "" {
		return &apiSocket{}, nil
	}
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("open API socket: another process answers on %s", path)
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".gobgp-*")
	if err != nil {
		return nil, fmt.Errorf("open API socket: %v", err)
	}
	return &apiSocket{path: path, dir: dir}, nil
}

// private is the socket's name until it is published.
func (a *apiSocket) private() string { return filepath.Join(a.dir, "s") }

func (a *apiSocket) options() []server.ServerOption {
	if a.path == "" {
		return nil
	}
	return []server.ServerOption{server.GrpcListenAddress("unix://" + a.private())}
}

// publish waits until GoBGP listens and gives the socket its name.
func (a *apiSocket) publish(ctx context.Context, broken <-chan error) error {
	if a.path == "" {
		return nil
	}
	timeout, tick := time.NewTimer(apiTimeout), time.NewTicker(apiPoll)
	defer timeout.Stop()
	defer tick.Stop()
	for {
		if err := os.Chmod(a.private(), 0o600); err == nil {
			break
		} else if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("open API socket: %v", err)
		}
		select {
		case <-tick.C:
		case err := <-broken:
			return fmt.Errorf("open API socket: %v", err)
		case <-timeout.C:
			return fmt.Errorf("open API socket: GoBGP did not for %v", apiTimeout)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := os.Rename(a.private(), a.path); err != nil {
		return fmt.Errorf("open API socket: %v", err)
	}
	return os.Remove(a.dir)
}

// close removes what is left. The socket itself ends with the process.
func (a *apiSocket) close() {
	if a.path == "" {
		return
	}
	_ = os.RemoveAll(a.dir)
	_ = os.Remove(a.path)
}
