// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Web is an nginx that serves, on port 80 of all addresses of its node:
//
//	GET /           the node's name and a newline
//	GET /large      the file Large
//	PUT /upload/X   stored in Dir as X
//
// Every answer has the header X-Served-By with the node's name.
type Web struct {
	*Process
	// Dir is the directory of uploads, Large the path of the large file; the files of several
	// servers have the same content.
	Dir, Large string
}

const nginxConfig = `daemon off;
master_process off;
user root;
pid @DIR@/nginx.pid;
error_log stderr warn;
events { worker_connections 256; }
http {
	access_log off;
	client_body_temp_path @DIR@/body;
	proxy_temp_path @DIR@/proxy;
	fastcgi_temp_path @DIR@/fastcgi;
	uwsgi_temp_path @DIR@/uwsgi;
	scgi_temp_path @DIR@/scgi;
	client_max_body_size 0;
	server {
		listen 0.0.0.0:80;
		listen [::]:80 ipv6only=on;
		root @DIR@;
		default_type application/octet-stream;
		add_header X-Served-By @NAME@ always;
		location = / {
			default_type text/plain;
			return 200 "@NAME@\n";
		}
		location = /large { }
		location /upload/ { dav_methods PUT; }
	}
}
`

// startTimeout is how long a server's programs may take until they are ready.
const startTimeout = 5 * time.Second

// StartNginx starts nginx in the node, with a large file of size largeBytes, and waits until it
// accepts connections.
func (n *Node) StartNginx(ctx context.Context, largeBytes int64) (*Web, error) {
	if _, err := exec.LookPath("nginx"); err != nil {
		return nil, fmt.Errorf("start nginx: %v (on Debian: apt-get install nginx-light)", err)
	}
	dir := filepath.Join(n.lab.Dir, n.Name)
	web := &Web{Dir: filepath.Join(dir, "upload"), Large: filepath.Join(dir, "large")}
	if err := os.MkdirAll(web.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory: %v", err)
	}
	if err := writeRandom(web.Large, largeBytes); err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "nginx.conf")
	text := strings.NewReplacer("@DIR@", dir, "@NAME@", n.Name).Replace(nginxConfig)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("write nginx configuration: %v", err)
	}
	pid := filepath.Join(dir, "nginx.pid")
	if err := os.RemoveAll(pid); err != nil {
		return nil, fmt.Errorf("remove file: %v", err)
	}
	p, err := n.Start("nginx", "-p", dir, "-c", config, "-e", "stderr")
	if err != nil {
		return nil, err
	}
	web.Process = p
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return web, WaitFor(ctx, "nginx in "+n.Namespace, func() error {
		if err := p.Running(); err != nil {
			return err
		}
		// It is written when the sockets accept connections.
		_, err := os.Stat(pid)
		return err
	})
}

// writeRandom makes a file of random-looking bytes, always the same.
func writeRandom(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("make file: %v", err)
	}
	defer f.Close()
	if _, err := io.CopyN(f, rand.NewChaCha8([32]byte{}), size); err != nil {
		return fmt.Errorf("write file: %v", err)
	}
	return nil
}
