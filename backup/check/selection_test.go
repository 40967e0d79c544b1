package check

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// What was verified longest ago is read first, and remembered.
func TestOldestFirst(t *testing.T) {
	s := newScene(t)
	seen := make(map[string]bool)
	for range 3 {
		r := s.check(Options{ReadData: Selection{Percent: 0.001}})
		if r.ReadData.NarFiles != 1 || r.ReadData.Left != 2 {
			t.Fatalf("%+v", r.ReadData)
		}
		for url := range readMemory(s.path(memoryFile)) {
			seen[url] = true
		}
	}
	if len(seen) != 3 {
		t.Errorf("three checks of one file each read %v", seen)
	}
	// The oldest of all is the next.
	text := memoryHeader + "\n"
	for i, url := range slices.Sorted(maps.Keys(seen)) {
		text += fmt.Sprintf("%d %s\n", 1000-i, url)
	}
	s.write(memoryFile, text)
	oldest := slices.Max(slices.Collect(maps.Keys(seen)))
	r := s.check(Options{ReadData: Selection{Percent: 1}})
	if got := readMemory(s.path(memoryFile))[oldest]; time.Since(got) > time.Minute {
		t.Errorf("%s was not read, but verified last at %v", oldest, got)
	}
	if r.ReadData.Oldest == nil || r.ReadData.Oldest.Unix() != 999 {
		t.Errorf("oldest is %v", r.ReadData.Oldest)
	}
}

// The memory may hold anything: it is then as if there were none.
func TestBadMemory(t *testing.T) {
	s := newScene(t)
	for _, text := range []string{"", "x", memoryHeader + "\nx\n\n1\n-5 nar/x\n99999999999 nar/y", strings.Repeat("x", 1<<17)} {
		s.write(memoryFile, text)
		if r := s.check(all); r.ReadData.NarFiles != 3 || r.Counts[Damage]+r.Counts[Note] > 0 {
			t.Errorf("%.20q: %+v", text, r)
		}
		if got := len(readMemory(s.path(memoryFile))); got != 3 {
			t.Errorf("%.20q: %d files remembered", text, got)
		}
	}
	s.remove(memoryFile)
	must(t, os.Symlink("/dev/zero", s.path(memoryFile)))
	s.check(all).want(t)
}

func TestSelection(t *testing.T) {
	for text, want := range map[string]Selection{
		"": {All: true}, "all": {All: true}, "10%": {Percent: 10}, "0.5%": {Percent: 0.5}, "2/7": {Part: 2, Parts: 7}, "30m": {Budget: 30 * time.Minute},
	} {
		if got, err := ParseSelection(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, bad := range []string{"x", "0%", "101%", "-1%", "NaN%", "%", "0/7", "8/7", "1/", "/", "1/x", "0s", "-1m", "30"} {
		if got, err := ParseSelection(bad); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
	// The parts together are all, and no file is in two.
	var nars []*narFile
	for i := range 1000 {
		nars = append(nars, &narFile{url: fmt.Sprint("nar/", i), size: int64(i)})
	}
	count := 0
	for part := 1; part <= 7; part++ {
		n := len(Selection{Part: part, Parts: 7}.choose(nars, nil))
		if n < 100 || n > 190 {
			t.Errorf("part %d has %d of 1000 files", part, n)
		}
		count += n
	}
	if count != 1000 {
		t.Errorf("all parts have %d of 1000 files", count)
	}
	var size int64
	for _, n := range (Selection{Percent: 10}).choose(nars, nil) {
		size += n.size
	}
	if size < 49950 || size > 51000 {
		t.Errorf("10%% are %d of 499500 bytes", size)
	}
}

// When the time is up, no NAR file is begun.
func TestBudget(t *testing.T) {
	s := newScene(t)
	r := s.check(Options{ReadData: Selection{Budget: time.Nanosecond}})
	r.want(t)
	if r.ReadData.NarFiles > 1 || r.ReadData.NarFiles+r.ReadData.Left != 3 {
		t.Errorf("%+v", r.ReadData)
	}
	if r = s.check(Options{ReadData: Selection{Budget: time.Hour}}); r.ReadData.NarFiles != 3 {
		t.Errorf("%+v", r.ReadData)
	}
}
