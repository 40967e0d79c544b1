package backup

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"

	"github.com/narvault/narvault/backup/backuptest"
	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/layout"
)

func newKey(t *testing.T, name string) SignKey {
	t.Helper()
	key, err := MakeKey(name, filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func mustSign(t *testing.T, dir string, req SignRequest) *SignResult {
	t.Helper()
	r, damage, err := sign(t.Context(), backuptest.Memory{}, dir, req)
	if err := errors.Join(damage, err); err != nil {
		t.Fatal(err)
	}
	return r
}

// signedBy returns how many store paths of a backup a key has signed rightly; a
// signature of its name that is wrong is an error.
func signedBy(t *testing.T, dir string, key SignKey) int {
	t.Helper()
	b := mustOpen(t, dir)
	paths, damage, err := b.Paths(t.Context())
	if err := errors.Join(damage, err); err != nil {
		t.Fatal(err)
	}
	public, err := signature.ParsePublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, p := range paths {
		info, err := b.Cache.Lookup(p)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range info.Sigs {
			sig, err := signature.ParseSignature(text)
			if err != nil {
				t.Fatal(err)
			}
			if sig.Name != public.Name {
				continue
			}
			n++
			if !public.Verify(info.Fingerprint(), sig) {
				t.Errorf("the signature of %s is wrong", p)
			}
		}
	}
	return n
}

// Signatures are added once, to what is asked for, and change nothing else.
func TestSign(t *testing.T) {
	dir, store, top := backedUp(t, "zstd")
	other := store.Add("other", "other")
	mustRun(t, dir, store, request("other", other))
	name := filepath.Join(dir, layout.CacheDir, top.Hash()+".narinfo")
	before, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	before = append(before, "Unknown: field\nSig: upstream:"+strings.Repeat("A", 86)+"==\n"...)
	if err := os.WriteFile(name, before, 0o644); err != nil {
		t.Fatal(err)
	}
	key, second := newKey(t, "one"), newKey(t, "two")
	if r := mustSign(t, dir, SignRequest{Keys: []SignKey{key}, Releases: []ReleaseID{{"p", "r"}}}); r.Signed != 3 || r.Paths != 3 {
		t.Errorf("got %+v", r)
	}
	if n := signedBy(t, dir, key); n != 3 {
		t.Errorf("%d paths are signed", n)
	}
	if after, err := os.ReadFile(name); err != nil || !bytes.HasPrefix(after, before) {
		t.Errorf("before:\n%safter:\n%s, %v", before, after, err)
	}
	if r := mustSign(t, dir, SignRequest{Keys: []SignKey{key, second}}); r.Signed != 4 || r.Paths != 4 {
		t.Errorf("got %+v", r)
	}
	if r := mustSign(t, dir, SignRequest{Keys: []SignKey{key, second}}); r.Signed != 0 {
		t.Errorf("the second time: %+v", r)
	}
	if a, b := signedBy(t, dir, key), signedBy(t, dir, second); a != 4 || b != 4 {
		t.Errorf("%d and %d paths are signed", a, b)
	}
	readme, err := os.ReadFile(filepath.Join(dir, layout.ReadmeFile))
	if err != nil || strings.Count(string(readme), key.Public()) != 1 || strings.Count(string(readme), second.Public()) != 1 || strings.Count(string(readme), readmeKeys) != 1 {
		t.Errorf("README.txt:\n%s", readme)
	}
}

// A backup with a key signs all of its release, what was there as well.
func TestBackupSigns(t *testing.T) {
	store := backuptest.NewStore(t)
	a := store.Add("a", "content")
	b := store.Add("b", "content", a)
	dir := filepath.Join(t.TempDir(), "backup")
	mustRun(t, dir, store, request("one", a))
	key := newKey(t, "one")
	req := request("two", b)
	req.SignKeys = []SignKey{key}
	if r := mustRun(t, dir, store, req); r.Signed != 1 {
		t.Errorf("got %+v", r)
	}
	if n := signedBy(t, dir, key); n != 2 {
		t.Errorf("%d paths are signed", n)
	}
	backuptest.CheckWhole(t, dir, "p/one", "p/two")
}

// Wherever signing is stopped, every narinfo is the old one or the new one, and
// signing again completes it.
func TestSignCrashAnywhere(t *testing.T) {
	key := newKey(t, "one")
	req := SignRequest{Keys: []SignKey{key}}
	signCrashAnywhere(t, key, func() (string, func(disk.FS) error) {
		dir, _, _ := backedUp(t, "none")
		return dir, func(fs disk.FS) error {
			_, damage, err := sign(t.Context(), fs, dir, req)
			return errors.Join(damage, err)
		}
	})
}

// signCrashAnywhere cuts the power at each operation of what is to bring a key's
// signatures into a new backup of three paths, and does it again then.
func signCrashAnywhere(t *testing.T, key SignKey, scene func() (dir string, do func(disk.FS) error)) {
	t.Helper()
	for op := 1; ; op++ {
		dir, do := scene()
		fs := backuptest.NewPowerFS(t, op, backuptest.ErrPower, uint64(op))
		err := do(fs)
		if fs.Ops < op {
			if n := signedBy(t, dir, key); err != nil || n != 3 || op < 8 {
				t.Errorf("without a fault, after %d operations: %d signed, %v", fs.Ops, n, err)
			}
			return
		}
		if !errors.Is(err, backuptest.ErrPower) {
			t.Fatalf("operation %d: %v", op, err)
		}
		fs.Crash()
		backuptest.CheckWhole(t, dir, "p/r")
		signedBy(t, dir, key)
		if err := do(backuptest.Memory{}); err != nil {
			t.Errorf("operation %d: once more: %v", op, err)
		}
		if n := signedBy(t, dir, key); n != 3 {
			t.Errorf("operation %d: %d paths are signed", op, n)
		}
	}
}

// allSignedBy checks that each key has signed the three paths of a backup.
func allSignedBy(t *testing.T, dir string, keys []SignKey) {
	t.Helper()
	for _, key := range keys {
		if n := signedBy(t, dir, key); n != 3 {
			t.Errorf("%d paths are signed by %s", n, key.Public())
		}
	}
}

// Several that sign at once lose nobody's signature.
func TestSignConcurrently(t *testing.T) {
	dir, _, _ := backedUp(t, "none")
	keys := []SignKey{newKey(t, "a"), newKey(t, "b"), newKey(t, "c"), newKey(t, "d")}
	var wg sync.WaitGroup
	for _, key := range keys {
		wg.Go(func() {
			if _, damage, err := sign(t.Context(), backuptest.Memory{}, dir, SignRequest{Keys: []SignKey{key}}); damage != nil || err != nil {
				t.Errorf("%v, %v", damage, err)
			}
		})
	}
	wg.Wait()
	allSignedBy(t, dir, keys)
}

// A damaged narinfo is named, and the others are signed.
func TestSignDamage(t *testing.T) {
	dir, _, top := backedUp(t, "none")
	if err := os.WriteFile(filepath.Join(dir, layout.CacheDir, top.Hash()+".narinfo"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, releases := range [][]ReleaseID{nil, {{"p", "r"}}} {
		_, damage, err := sign(t.Context(), backuptest.Memory{}, dir, SignRequest{Keys: []SignKey{newKey(t, "one")}, Releases: releases})
		if err != nil || !isDamage(damage) || !strings.Contains(damage.Error(), top.Hash()) {
			t.Errorf("%v, %v", damage, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := Sign(ctx, dir, SignRequest{Keys: []SignKey{newKey(t, "one")}}); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	if _, _, err := sign(t.Context(), backuptest.Memory{}, filepath.Join(dir, layout.CacheDir), SignRequest{Keys: []SignKey{newKey(t, "one")}}); err == nil {
		t.Error("a foreign cache was signed")
	}
}

func TestKeys(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "key")
	key, err := MakeKey("name-1", file)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(file); err != nil || st.Mode() != 0o600 {
		t.Errorf("the secret key: %v, %v", st.Mode(), err)
	}
	again, err := LoadKey(file)
	if err != nil || again.Public() != key.Public() || !strings.HasPrefix(key.Public(), "name-1:") {
		t.Errorf("got %s, %v", again.Public(), err)
	}
	if public, err := os.ReadFile(file + ".pub"); err != nil || string(public) != key.Public()+"\n" {
		t.Errorf("the public key: %s, %v", public, err)
	}
	if _, err := MakeKey("name-2", file); !errors.Is(err, os.ErrExist) {
		t.Errorf("over a file: %v", err)
	}
	for _, name := range []string{"", "a:b", "a b", "a\n"} {
		if _, err := MakeKey(name, filepath.Join(dir, "new")); err == nil {
			t.Errorf("a key called %q", name)
		}
	}
	bad := filepath.Join(dir, "bad")
	secret, _ := os.ReadFile(file)
	for _, text := range []string{"", "name", "name:", "name:AAAA", ":" + strings.TrimPrefix(string(secret), "name-1:"), key.Public()} {
		if err := os.WriteFile(bad, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadKey(bad); err == nil || text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
