// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul

import (
	"testing"
	"time"
)

func TestWatching(t *testing.T) {
	at := func(sec int) time.Time { return time.Date(2026, 1, 1, 0, 0, sec, 0, time.UTC) }
	s := &Source{connections: new(connections)}
	w := &s.watching
	web := &WatchStatus{Kind: WatchService, Name: "web"}
	endWeb := w.begin(web)
	endFolder := w.begin(&WatchStatus{Kind: WatchFolder, Name: "remora/"})
	defer endFolder()

	for _, tc := range []struct {
		name  string
		facts Facts
		whole bool
		want  WatchStatus
	}{
		{"a failure first", Facts{At: at(1)}, false, WatchStatus{Errors: 1, Failing: true}},
		{"an answer", Facts{At: at(2), Index: 7}, true, WatchStatus{Index: 7, Changed: at(2), Answered: at(2), Errors: 1}},
		{"the same", Facts{At: at(3), Index: 7}, true, WatchStatus{Index: 7, Changed: at(2), Answered: at(3), Errors: 1}},
		{"a failure", Facts{At: at(4)}, false, WatchStatus{Index: 7, Changed: at(2), Answered: at(3), Errors: 2, Failing: true}},
		{"another", Facts{At: at(5), Index: 3}, true, WatchStatus{Index: 3, Changed: at(5), Answered: at(5), Errors: 2}},
	} {
		w.note(web, tc.facts, tc.whole)
		tc.want.Kind, tc.want.Name = WatchService, "web"
		list := s.Watches()
		if len(list) != 2 || list[0].Kind != WatchFolder || list[1] != tc.want {
			t.Errorf("%s: watches %+v, want the folder and %+v", tc.name, list, tc.want)
		}
	}
	endWeb()
	if list := s.Watches(); len(list) != 1 {
		t.Errorf("after its end: %+v", list)
	}
}
