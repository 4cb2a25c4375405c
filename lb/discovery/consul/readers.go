// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul

import "context"

// readerKind is what a reader reads.
type readerKind uint8

const (
	serviceReader readerKind = iota
	claimReader
	catalogueReader
	folderReader
)

// readerKey identifies a reader: readers with equal keys read the same.
type readerKey struct {
	kind  readerKind
	watch Watch
}

// readers are the goroutines that read. They belong to the goroutine of Source.Run.
type readers struct {
	running map[readerKey]*running
}

// running is one reader. Done is closed when it has ended.
type running struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// replace makes these the readers that run. Those that are no longer wanted have ended when it
// returns.
func (r *readers) replace(ctx context.Context, wanted map[readerKey]func(context.Context)) {
	r.stop(func(k readerKey) bool { return wanted[k] == nil })
	for key, read := range wanted {
		if r.running[key] != nil {
			continue
		}
		own, cancel := context.WithCancel(ctx)
		one := &running{cancel, make(chan struct{})}
		r.running[key] = one
		go func() {
			defer close(one.done)
			read(own)
		}()
	}
}

func (r *readers) stopAll() { r.stop(func(readerKey) bool { return true }) }

// stop ends the readers that are chosen and waits until they have ended.
func (r *readers) stop(chosen func(readerKey) bool) {
	var ending []*running
	for key, one := range r.running {
		if chosen(key) {
			one.cancel()
			ending = append(ending, one)
			delete(r.running, key)
		}
	}
	for _, one := range ending {
		<-one.done
	}
}
