package backup

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/narvault/narvault/backup/backuptest"
	"github.com/narvault/narvault/backup/unpack"
	"github.com/narvault/narvault/index/bincache"
)

// unpackAll restores all paths of a backup into a directory.
func unpackAll(t *testing.T, dir, to string, below ...UnpackItem) (*UnpackResult, error) {
	t.Helper()
	b := mustOpen(t, dir)
	closure, err := b.Closure(ReleaseID{"p", "r"})
	if err != nil {
		t.Fatal(err)
	}
	items := below
	for _, p := range closure {
		items = append(items, UnpackItem{Path: p})
	}
	return b.Unpack(t.Context(), UnpackRequest{Dir: to, Items: items})
}

func states(r *UnpackResult) string {
	var s []string
	for _, it := range r.Items {
		s = append(s, it.StorePath.Name()+" "+string(it.State))
	}
	return strings.Join(s, ", ")
}

// Missing and damaged files of the backup cost exactly the paths that they are
// of.
func TestUnpackDamage(t *testing.T) {
	dir, store, top := backedUp(t, "zstd")
	lib := store.Valid[top].References
	b := mustOpen(t, dir)
	info, err := b.Cache.Lookup(top)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{info.URL, top.Hash() + ".narinfo"} {
		name := b.cachePath(file)
		if err := os.Rename(name, name+".away"); err != nil {
			t.Fatal(err)
		}
		to := t.TempDir()
		r, err := unpackAll(t, dir, to)
		if err != nil {
			t.Fatal(err)
		}
		for i, it := range r.Items {
			want := unpack.Restored
			if it.StorePath == top {
				want = unpack.Damaged
				var damage *bincache.DamageError
				if !errors.As(r.Items[i].Err(), &damage) {
					t.Errorf("without %s: %v", file, it.Err())
				}
			}
			if it.State != want {
				t.Errorf("without %s: %s", file, states(r))
			}
		}
		for _, p := range lib {
			if !backuptest.Exists(filepath.Join(to, string(p))) {
				t.Errorf("without %s: %s is not there", file, p)
			}
		}
		if err := os.Rename(name+".away", name); err != nil {
			t.Fatal(err)
		}
	}
}

// The receipt has what earlier runs restored, too.
func TestUnpackReceipt(t *testing.T) {
	dir, _, top := backedUp(t, "none")
	to := filepath.Join(t.TempDir(), "new")
	b := mustOpen(t, dir)
	for _, items := range [][]UnpackItem{{{Path: top, Below: "content"}}, {{Path: top}}, {{Path: top}, {Path: top}}} {
		if _, err := b.Unpack(t.Context(), UnpackRequest{Dir: to, Items: items}); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(filepath.Join(to, unpack.ReceiptFile))
	if err != nil {
		t.Fatal(err)
	}
	var r UnpackResult
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	if got := states(&r); got != "top kept, top restored" || r.Backup != b.Config().ID || r.Items[1].File != "content" {
		t.Errorf("%s: %s", got, text)
	}
}

func TestUnpackRefuses(t *testing.T) {
	dir, store, top := backedUp(t, "none")
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{dir, dir + "/cache", dir + "/cache/nar/new", link, link + "/new", dir + "/no/where", filepath.Join(store.RealPath(top), "content")} {
		if _, err := unpackAll(t, dir, to); err == nil {
			t.Errorf("restored into %s", to)
		}
	}
	other := UnpackItem{Path: store.Valid[top].References[0], Below: "content"}
	if _, err := unpackAll(t, dir, t.TempDir(), UnpackItem{Path: top, Below: "content"}, other); err == nil || !strings.Contains(err.Error(), "both be called content") {
		t.Errorf("two of one name: %v", err)
	}
}
