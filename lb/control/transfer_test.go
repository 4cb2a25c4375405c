// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"github.com/remora-lb/remora/test/require"
)

// randomBytes are the same for one length.
func randomBytes(n int) []byte {
	text := make([]byte, n)
	random := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range text {
		text[i] = byte(random.Uint32())
	}
	return text
}

// TestTransfer: what is imported is what is exported, of any length.
func TestTransfer(t *testing.T) {
	d := &fakeDaemon{}
	c := serve(t, d).client(t)
	for _, n := range []int{0, 1, partBytes - 1, partBytes, partBytes + 1, 3<<20 + 7} {
		want := randomBytes(n)
		res, err := c.ImportState(t.Context(), bytes.NewReader(want))
		require.NoError(t, err)
		if res.Rings != 2 || res.RingsSkipped != 1 || int(res.Flows) != n || res.FlowsSkipped != 3 {
			t.Errorf("%d bytes: %v", n, res)
		}
		var got bytes.Buffer
		require.NoError(t, c.ExportState(t.Context(), &got))
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%d bytes imported, %d others exported", n, got.Len())
		}
	}
}

func TestTransferFaults(t *testing.T) {
	document := randomBytes(5 * partBytes)
	t.Run("reader fails", func(t *testing.T) {
		imported := make(chan error, 1)
		d := &fakeDaemon{load: func(_ context.Context, r io.Reader) (Imported, error) {
			_, err := io.ReadAll(r)
			imported <- err
			return Imported{}, err
		}}
		c := serve(t, d).client(t)
		broken := errors.New("disk is gone")
		_, err := c.ImportState(t.Context(), io.MultiReader(bytes.NewReader(document), iotest.ErrReader(broken)))
		if err != broken {
			t.Errorf("it returns %v", err)
		}
		require.ErrorSays(t, <-imported, "the document broke off after")
	})
	t.Run("daemon refuses at once", func(t *testing.T) {
		d := &fakeDaemon{load: func(context.Context, io.Reader) (Imported, error) {
			return Imported{}, &Error{Code: CodeInvalid, Problem: "version 9 is not known"}
		}}
		_, err := serve(t, d).client(t).ImportState(t.Context(), bytes.NewReader(randomBytes(20*partBytes)))
		require.ErrorSays(t, err, "version 9 is not known")
	})
	t.Run("export fails half way", func(t *testing.T) {
		d := &fakeDaemon{export: func(_ context.Context, w io.Writer) error {
			_, err := w.Write(document)
			return errors.Join(err, errors.New("map is gone"))
		}}
		err := serve(t, d).client(t).ExportState(t.Context(), io.Discard)
		require.ErrorSays(t, err, "map is gone")
	})
	t.Run("caller's writer fails", func(t *testing.T) {
		exported := make(chan error, 1)
		d := &fakeDaemon{export: func(_ context.Context, w io.Writer) (err error) {
			for err == nil {
				_, err = w.Write(document)
			}
			exported <- err
			return err
		}}
		full := errors.New("disk is full")
		err := serve(t, d).client(t).ExportState(t.Context(), writerFunc(func([]byte) (int, error) { return 0, full }))
		if err != full {
			t.Errorf("it returns %v", err)
		}
		if <-exported == nil {
			t.Error("the daemon is not told")
		}
	})
	t.Run("two at a time", func(t *testing.T) {
		begun, end := make(chan struct{}), make(chan struct{})
		d := &fakeDaemon{export: func(context.Context, io.Writer) error {
			close(begun)
			<-end
			return nil
		}}
		c := serve(t, d).client(t)
		first := make(chan error, 1)
		go func() { first <- c.ExportState(t.Context(), io.Discard) }()
		<-begun
		_, err := c.ImportState(t.Context(), bytes.NewReader(document))
		require.ErrorSays(t, err, "another export or import is under way; try again")
		close(end)
		require.NoError(t, <-first)
		_, err = c.ImportState(t.Context(), bytes.NewReader(document))
		require.NoError(t, err)
	})
	t.Run("server stops", func(t *testing.T) {
		begun := make(chan struct{})
		d := &fakeDaemon{export: func(ctx context.Context, _ io.Writer) error {
			close(begun)
			<-ctx.Done()
			return ctx.Err()
		}}
		s := serve(t, d)
		c := s.client(t)
		failed := make(chan error, 1)
		go func() { failed <- c.ExportState(t.Context(), io.Discard) }()
		<-begun
		s.stop()
		require.ErrorSays(t, <-failed, "ExportState was given up")
	})
}

// TestLongDocument: what is too long is refused while it comes.
func TestLongDocument(t *testing.T) {
	d := &fakeDaemon{load: func(_ context.Context, r io.Reader) (Imported, error) {
		_, err := io.Copy(io.Discard, r)
		return Imported{}, err
	}}
	c := serve(t, d, func(_ *Config, b *bounds) { b.document = 1 << 20 }).client(t)
	_, err := c.ImportState(t.Context(), io.LimitReader(zeros{}, 1<<20))
	require.NoError(t, err)
	_, err = c.ImportState(t.Context(), zeros{}) // without an end
	require.ErrorSays(t, err, "the document has more than 1048576 bytes")
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
