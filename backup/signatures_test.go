package backup

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"

	"github.com/narvault/narvault/backup/backuptest"
	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/narread/storepath"
)

// signUpstream lets somebody else sign a path of the store.
func signUpstream(t *testing.T, s *backuptest.Store, p storepath.Path, keys ...SignKey) {
	t.Helper()
	info := s.Valid[p]
	for _, key := range keys {
		sig, err := key.sign(narInfoOf(s.Top, &info).Fingerprint())
		if err != nil {
			t.Fatal(err)
		}
		info.Sigs = append(slices.Clip(info.Sigs), sig)
	}
	s.Valid[p] = info
}

func TestWellFormed(t *testing.T) {
	sum := strings.Repeat("A", 86) + "=="
	good := []string{"a:" + sum, "b:" + sum}
	bad := []string{
		"", "a", ":" + sum, "a:", "a:AAAA", "a:" + sum + "A", "a b:" + sum, "a\n:" + sum,
		"a:" + sum[:40] + "\n" + sum[40:], "a:" + sum + "\nCA: x", "a:" + strings.Repeat("A", 85) + "B==",
	}
	if got := wellFormed(slices.Concat(good[:1], bad, good, good)); !slices.Equal(got, good) {
		t.Errorf("got %q", got)
	}
}

// Signatures that others make of what is archived already come in with the next
// backup, and the one after that writes nothing.
func TestUpstreamSignatures(t *testing.T) {
	dir, store, top := backedUp(t, "zstd")
	name := filepath.Join(dir, layout.CacheDir, top.Hash()+".narinfo")
	before, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	first, second, ours := newKey(t, "first"), newKey(t, "second"), newKey(t, "ours")
	signUpstream(t, store, top, first)
	req := request("r", top)
	if r := mustRun(t, dir, store, req); r.Signed != 1 || r.Write.Paths != 0 {
		t.Errorf("got %+v", r)
	}
	after, err := os.ReadFile(name)
	if err != nil || !bytes.HasPrefix(after, before) {
		t.Errorf("before:\n%safter:\n%s, %v", before, after, err)
	}
	signUpstream(t, store, top, second)
	req.SignKeys = []SignKey{ours}
	if r := mustRun(t, dir, store, req); r.Signed != 3 {
		t.Errorf("with a key of our own: %+v", r)
	}
	if a, b, c := signedBy(t, dir, first), signedBy(t, dir, second), signedBy(t, dir, ours); a != 1 || b != 1 || c != 3 {
		t.Errorf("%d, %d and %d paths are signed", a, b, c)
	}
	st, _ := os.Stat(name)
	if r := mustRun(t, dir, store, req); r.Signed != 0 {
		t.Errorf("again: %+v", r)
	}
	if now, _ := os.Stat(name); !os.SameFile(st, now) {
		t.Error("the narinfo was written although nothing is new")
	}
	backuptest.CheckWhole(t, dir, "p/r")
}

// A signature of something else, and what is none, does not come in.
func TestForeignSignatures(t *testing.T) {
	dir, store, top := backedUp(t, "zstd")
	key := newKey(t, "key")
	right, other := store.Valid[top], store.Valid[top]
	other.References = nil
	store.Valid[top] = other
	signUpstream(t, store, top, key)
	if r := mustRun(t, dir, store, request("r", top)); r.Signed != 0 {
		t.Errorf("of other references: %+v", r)
	}
	right.Sigs = []string{"no signature", "a:AAAA", ""}
	store.Valid[top] = right
	if r := mustRun(t, dir, store, request("r", top)); r.Signed != 0 {
		t.Errorf("no signatures: %+v", r)
	}
	for range 2 * maxSigs {
		signUpstream(t, store, top, newKey(t, "key"))
	}
	mustRun(t, dir, store, request("r", top))
	if n := sigsOf(t, dir, top); n != maxSigs {
		t.Errorf("%d signatures", n)
	}
}

// New paths are archived without what is no signature.
func TestMalformedSignaturesAreLeftOut(t *testing.T) {
	store := backuptest.NewStore(t)
	p := store.Add("a", "content")
	info := store.Valid[p]
	info.Sigs = []string{"no signature"}
	store.Valid[p] = info
	signUpstream(t, store, p, newKey(t, "key"))
	dir := filepath.Join(t.TempDir(), "backup")
	mustRun(t, dir, store, request("r", p))
	if n := sigsOf(t, dir, p); n != 1 {
		t.Errorf("%d signatures", n)
	}
}

func sigsOf(t *testing.T, dir string, p storepath.Path) int {
	t.Helper()
	b := mustOpen(t, dir)
	info, err := b.Cache.Lookup(p)
	if err != nil {
		t.Fatal(err)
	}
	return len(info.Sigs)
}

// Wherever a backup is stopped that adds signatures, every narinfo is the old one
// or the new one, and the next backup completes it.
func TestUpstreamSignaturesCrashAnywhere(t *testing.T) {
	key := newKey(t, "one")
	signCrashAnywhere(t, key, func() (string, func(disk.FS) error) {
		dir, store, top := backedUp(t, "none")
		for p := range store.Valid {
			signUpstream(t, store, p, key)
		}
		return dir, func(fs disk.FS) error {
			_, err := run(t.Context(), fs, dir, store, request("r", top))
			return err
		}
	})
}

// Several that bring signatures at once, and one who signs, lose none.
func TestUpstreamSignaturesConcurrently(t *testing.T) {
	dir, store, top := backedUp(t, "none")
	keys := []SignKey{newKey(t, "a"), newKey(t, "b"), newKey(t, "c"), newKey(t, "d")}
	var wg sync.WaitGroup
	for i, key := range keys {
		// What each has seen of upstream is another signature.
		one := backuptest.NewStore(t)
		one.Top, one.Valid = store.Top, maps.Clone(store.Valid)
		for p := range store.Valid {
			signUpstream(t, one, p, key)
		}
		wg.Go(func() {
			if i == 0 {
				if _, damage, err := sign(t.Context(), backuptest.Memory{}, dir, SignRequest{Keys: []SignKey{key}}); damage != nil || err != nil {
					t.Errorf("%v, %v", damage, err)
				}
			} else if _, err := run(t.Context(), backuptest.Memory{}, dir, one, request("r", top)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	allSignedBy(t, dir, keys)
}

// A copy brings the signatures that the other backup has got since.
func TestCopyBringsSignatures(t *testing.T) {
	dir, _, _ := backedUp(t, "none")
	second := filepath.Join(t.TempDir(), "second")
	id := ReleaseID{"p", "r"}
	copyTo := func() *Result {
		t.Helper()
		from := mustOpen(t, dir)
		r, err := Copy(t.Context(), second, FromCache(from, false), id, Request{})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	copyTo()
	key := newKey(t, "key")
	mustSign(t, dir, SignRequest{Keys: []SignKey{key}})
	if r := copyTo(); r.Signed != 3 || r.Write.Paths != 0 {
		t.Errorf("got %+v", r)
	}
	if n := signedBy(t, second, key); n != 3 {
		t.Errorf("%d paths are signed", n)
	}
}

// Repair adds the signatures of its sources to what it mends, whether the narinfo
// was damaged or the NAR alone, and none that a trusted key shows to be wrong.
func TestRepairBringsSignatures(t *testing.T) {
	key, wrong := newKey(t, "key"), newKey(t, "key")
	for _, from := range []string{"the Nix store", "another backup"} {
		dir, store, top := backedUp(t, "zstd")
		second := filepath.Join(t.TempDir(), "second")
		signUpstream(t, store, top, key)
		mustRun(t, second, store, request("r", top))
		b := mustOpen(t, second)
		info, err := b.Cache.Lookup(top)
		if err != nil {
			t.Fatal(err)
		}
		harmed, err := os.ReadFile(filepath.Join(dir, layout.CacheDir, info.URL))
		if err != nil {
			t.Fatal(err)
		}
		harmed[len(harmed)/2] ^= 1
		if err := os.WriteFile(filepath.Join(dir, layout.CacheDir, info.URL), harmed, 0o644); err != nil {
			t.Fatal(err)
		}
		req := RepairRequest{Suspects: Suspects{NARs: []string{top.Hash()}}}
		if from == "the Nix store" {
			req.Store = store
		} else {
			req.From = []*Backup{b}
		}
		r, err := repair(t.Context(), backuptest.Memory{}, dir, req)
		if err != nil || len(r.Repaired) != 2 {
			t.Fatalf("from %s: %+v, %v", from, r, err)
		}
		if n := signedBy(t, dir, key); n != 1 {
			t.Errorf("from %s: %d paths are signed", from, n)
		}
		if r, err = repair(t.Context(), backuptest.Memory{}, dir, req); err != nil || len(r.Repaired) != 0 {
			t.Errorf("from %s, again: %+v, %v", from, r, err)
		}
		signUpstream(t, store, top, wrong)
		req.Store, req.From = store, nil
		req.TrustedKeys = []signature.PublicKey{key.secret.ToPublicKey()}
		if r, err = repair(t.Context(), backuptest.Memory{}, dir, req); err != nil || len(r.Repaired) != 0 || sigsOf(t, dir, top) != 1 {
			t.Errorf("a wrong signature: %+v, %v", r, err)
		}
		backuptest.CheckWhole(t, dir, "p/r")
	}
}
