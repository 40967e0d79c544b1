package fusefs

import (
	"context"
	"fmt"
	"os/exec"
	"testing"
	"time"

	"github.com/narvault/narvault/narread/nar"
)

// benchMount mounts b and returns its mountpoint. It is unmounted by stop.
func benchMount(b *testing.B, backup Backup) (dir string, stop func()) {
	b.Helper()
	s, err := Mount(backup, b.TempDir(), Options{Logf: b.Logf})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	return s.Mountpoint(), func() {
		cancel()
		if err := s.Wait(ctx); err != nil {
			b.Error(err)
		}
	}
}

// benchBackup has paths of 1000 entries, 100 in each of ten directories.
func benchBackup(b *testing.B, paths int, size int64) *memBackup {
	backup := newMemBackup()
	entries := []nar.Header{{Type: nar.Directory}}
	for d := range 10 {
		entries = append(entries, nar.Header{Depth: 1, Name: fmt.Sprintf("d%d", d), Type: nar.Directory})
		for f := range 99 {
			entries = append(entries, nar.Header{Depth: 2, Name: fmt.Sprintf("file-%03d", f), Type: nar.Regular, Size: size})
		}
	}
	backup.pack(b, path(0, "x"), entries...)
	for i := range paths {
		backup.nars[path(i, "x")] = backup.nars[path(0, "x")]
	}
	return backup
}

// benchCommand times a command on fresh mounts and, where warm, once more on
// each.
func benchCommand(b *testing.B, backup Backup, perRun float64, unit string, warm bool, command string) {
	var took time.Duration
	for range b.N {
		dir, stop := benchMount(b, backup)
		run := func() time.Duration {
			start := time.Now()
			if out, err := exec.Command("sh", "-c", command, "sh", dir).CombinedOutput(); err != nil {
				b.Errorf("%v: %s", err, out)
			}
			return time.Since(start)
		}
		d := run()
		if warm {
			d = run()
		}
		took += d
		stop()
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(perRun*float64(b.N)/took.Seconds(), unit)
}

func BenchmarkFindCold(b *testing.B) {
	benchCommand(b, benchBackup(b, 200, 0), 200_000, "entries/s", false, `find "$1/store" > /dev/null`)
}

func BenchmarkFindWarm(b *testing.B) {
	benchCommand(b, benchBackup(b, 200, 0), 200_000, "entries/s", true, `find "$1/store" > /dev/null`)
}

func BenchmarkListStore(b *testing.B) {
	backup := newMemBackup()
	for i := range 100_000 {
		backup.nars[path(i, "x")] = nil
	}
	benchCommand(b, backup, 100_000, "paths/s", false, `ls -f "$1/store" > /dev/null`)
}

func BenchmarkReadSmallCold(b *testing.B) {
	benchCommand(b, benchBackup(b, 10, 4000), 10_000, "files/s", false, `cat "$1"/store/*/*/* > /dev/null`)
}

func BenchmarkReadSmallWarm(b *testing.B) {
	benchCommand(b, benchBackup(b, 10, 4000), 10_000, "files/s", true, `cat "$1"/store/*/*/* > /dev/null`)
}

func BenchmarkReadLargeCold(b *testing.B) {
	backup := newMemBackup()
	backup.pack(b, path(0, "x"), nar.Header{Type: nar.Regular, Size: 256 << 20})
	benchCommand(b, backup, 256*1.048576, "MB/s", false, `cat "$1"/store/* > /dev/null`)
}

// BenchmarkReadDirPlus is our part of find: no kernel.
func BenchmarkReadDirPlus(b *testing.B) {
	backup, _ := sample(b)
	f := testFS(b, backup, Options{})
	n, _ := f.walk(b, "store/"+string(manyPath))
	b.ReportAllocs()
	for b.Loop() {
		f.testList(b, n, 32<<10, true)
	}
	b.ReportMetric(float64(b.N)*manyEntries/b.Elapsed().Seconds(), "entries/s")
}
