package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/narvault/narvault/backup/nixstore"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// A RestoreRequest asks for store paths to be restored into a Nix store.
type RestoreRequest struct {
	Paths    []storepath.Path // each with all that it refers to
	Roots    []GCRoot         // made when all is there
	Progress RestoreProgress
}

// A GCRoot is a root of the garbage collector that a restore makes.
type GCRoot struct {
	Link string         `json:"link"`
	Path storepath.Path `json:"storePath"`
}

// A RestoreResult says what Restore did.
type RestoreResult struct {
	Version  int           `json:"version"`
	StoreDir string        `json:"storeDir"`
	Restored Amount        `json:"restored"`
	There    Amount        `json:"there"` // valid before
	Roots    []GCRoot      `json:"roots"`
	LeftOut  []LeftOutPath `json:"leftOut,omitempty"`
	Damaged  bool          `json:"damaged,omitempty"` // some are left out because of damage
	Seconds  float64       `json:"seconds"`
}

// A LeftOutPath is a store path that is not in the store as it is in the backup.
type LeftOutPath struct {
	Path   storepath.Path `json:"storePath"`
	Reason string         `json:"reason"`
}

// Restore adds store paths, and what they refer to, to a Nix store, references
// first: content, references, deriver, signatures and content address are what
// the backup has. What is valid in the store already is left alone; nothing is
// built. Each NAR is verified by us and by Nix. A path that is damaged is left
// out, with those that refer to it, and told in the result. In the end the store
// is asked whether it has all.
//
// Errors wrap *UntrustedError and nixstore.ErrNoRights where they apply.
// What was restored before one stays, and the next run goes on from there.
func (b *Backup) Restore(ctx context.Context, store *nixstore.Store, req RestoreRequest) (*RestoreResult, error) {
	start := time.Now()
	if store.Dir() != b.Cache.StoreDir() {
		return nil, fmt.Errorf("restore: the backup is of the store directory %s, this Nix store is %s: give --store, or --to DIR for plain files",
			b.Cache.StoreDir(), store.Dir())
	}
	r := &restoring{backup: b, store: store, req: &req, infos: make(map[storepath.Path]*narinfo.NarInfo), out: make(map[storepath.Path]bool)}
	r.result = RestoreResult{Version: FormatVersion, StoreDir: store.Dir(), Roots: []GCRoot{}}
	err := r.run(ctx)
	r.result.Seconds = time.Since(start).Seconds()
	return &r.result, err
}

// A restoring is one run of Restore.
type restoring struct {
	backup *Backup
	store  *nixstore.Store
	req    *RestoreRequest

	infos  map[storepath.Path]*narinfo.NarInfo
	order  []storepath.Path        // of infos, references first
	valid  []storepath.Path        // in the store before, sorted
	out    map[storepath.Path]bool // left out
	result RestoreResult
}

func (r *restoring) run(ctx context.Context) error {
	if err := r.plan(ctx); err != nil {
		return err
	}
	if err := r.add(ctx); err != nil {
		return err
	}
	if err := r.verify(ctx); err != nil {
		return err
	}
	return r.root(ctx)
}

// plan finds out what belongs to the request and what is there.
func (r *restoring) plan(ctx context.Context) error {
	r.closure()
	paths := sortedKeys(r.infos)
	var err error
	r.order, err = storepath.SortByReferences(paths, func(p storepath.Path) []storepath.Path { return r.infos[p].References })
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if r.valid, err = r.store.Reserve(ctx, paths); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	gone, err := r.store.Gone(r.valid)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	for _, p := range gone {
		r.leaveOut(p, "Nix has it as valid, but its files are gone: \"nix-store --verify --check-contents\" as root clears that up, then restore again")
	}
	var total Amount
	for _, p := range paths {
		if r.isValid(p) {
			r.result.There.add(r.infos[p].NarSize)
		} else {
			total.add(r.infos[p].NarSize)
		}
	}
	r.req.Progress.planned(total, freeSpace(filepath.Dir(r.store.RealPath("x"))))
	return nil
}

// closure reads the narinfos of all that is asked for and what that refers to.
// Those that are damaged or missing are left out.
func (r *restoring) closure() {
	todo := slices.Clone(r.req.Paths)
	for len(todo) > 0 {
		p := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if r.infos[p] != nil || r.out[p] {
			continue
		}
		info, err := r.backup.Cache.Lookup(p)
		if err != nil {
			r.damaged(p, r.backup.promised(p, err))
			continue
		}
		r.infos[p] = info
		todo = append(todo, info.References...)
	}
}

func (r *restoring) isValid(p storepath.Path) bool {
	_, found := slices.BinarySearch(r.valid, p)
	return found
}

func (r *restoring) leaveOut(p storepath.Path, reason string) {
	r.out[p] = true
	r.result.LeftOut = append(r.result.LeftOut, LeftOutPath{Path: p, Reason: reason})
}

func (r *restoring) damaged(p storepath.Path, err error) {
	r.leaveOut(p, err.Error())
	r.result.Damaged = true
}

// add adds what is missing.
func (r *restoring) add(ctx context.Context) error {
	importer := r.store.NewImporter()
	defer importer.Close()
	for _, p := range r.order {
		if r.isValid(p) || r.refersToLeftOut(p) {
			continue
		}
		err := r.addPath(ctx, importer, r.infos[p])
		switch {
		case isDamage(err):
			r.damaged(p, err)
		case err != nil:
			return fmt.Errorf("restore: %w", err)
		default:
			r.result.Restored.add(r.infos[p].NarSize)
			r.req.Progress.done(p)
		}
	}
	return importer.Close()
}

// refersToLeftOut leaves a path out without whose references it cannot be.
func (r *restoring) refersToLeftOut(p storepath.Path) bool {
	for _, ref := range r.infos[p].References {
		if r.out[ref] && !r.isValid(ref) {
			r.leaveOut(p, fmt.Sprintf("it refers to %s, which is not restored", ref))
			return true
		}
	}
	return false
}

func (r *restoring) addPath(ctx context.Context, importer *nixstore.Importer, info *narinfo.NarInfo) error {
	archive, err := r.backup.Cache.Archive(info)
	if err != nil {
		return err
	}
	defer archive.Close()
	err = importer.Add(ctx, nixstore.PathInfo{
		Path: info.StorePath, NarHash: info.NarHash, NarSize: info.NarSize,
		References: info.References, Deriver: info.Deriver, Sigs: info.Sigs, CA: info.CA,
	}, reported{archive, r.req.Progress.Read})
	if errors.Is(err, nixstore.ErrUntrusted) {
		return &UntrustedError{Keys: keyNames(info.Sigs), err: err}
	}
	return err
}

// An UntrustedError says that Nix did not take a store path from this user. It
// wraps nixstore.ErrUntrusted.
type UntrustedError struct {
	Keys []string // the names of the keys that have signed it, sorted
	err  error
}

func (e *UntrustedError) Error() string { return e.err.Error() }
func (e *UntrustedError) Unwrap() error { return e.err }

// keyNames returns the names of the keys that made signatures.
func keyNames(sigs []string) (names []string) {
	for _, sig := range wellFormed(sigs) {
		name, _, _ := strings.Cut(sig, ":")
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// reported tells how much of an archive was written.
type reported struct {
	io.WriterTo
	read func(int)
}

func (r reported) WriteTo(w io.Writer) (int64, error) {
	if r.read == nil {
		return r.WriterTo.WriteTo(w)
	}
	return r.WriterTo.WriteTo(writerFunc(func(p []byte) (int, error) {
		n, err := w.Write(p)
		r.read(n)
		return n, err
	}))
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// verify asks the store what it has now.
func (r *restoring) verify(ctx context.Context) error {
	var paths []storepath.Path
	for _, p := range r.order {
		if !r.out[p] {
			paths = append(paths, p)
		}
	}
	found, err := r.store.Infos(ctx, paths)
	if err != nil {
		return fmt.Errorf("restore: verify: %w", err)
	}
	for _, have := range found {
		want := r.infos[have.Path]
		switch {
		case have.NarHash != want.NarHash:
			r.leaveOut(have.Path, fmt.Sprintf("the store has another content: NAR hash %s, in the backup %s", have.NarHash, want.NarHash))
		case !slices.Equal(have.References, want.References):
			r.leaveOut(have.Path, "the store has other references for it than the backup")
		case !r.isValid(have.Path) && have.CA != want.CA:
			r.leaveOut(have.Path, fmt.Sprintf("its content address in the store is %q, in the backup %q", have.CA, want.CA))
		case !r.isValid(have.Path) && slices.ContainsFunc(want.Sigs, func(sig string) bool { return !slices.Contains(have.Sigs, sig) }):
			r.leaveOut(have.Path, "the store has not all of its signatures")
		}
	}
	return nil
}

// root makes the roots of those paths that are there.
func (r *restoring) root(ctx context.Context) error {
	for _, root := range r.req.Roots {
		if r.out[root.Path] && !r.isValid(root.Path) {
			continue
		}
		if err := r.store.AddRoot(ctx, root.Path, root.Link); err != nil {
			return fmt.Errorf("restore: all store paths are there, but: %w", err)
		}
		r.result.Roots = append(r.result.Roots, root)
	}
	return nil
}

// RootsIn returns the GC roots for a release: links in dir, called by the store
// path, to what the release was made for or, when it is not known what that was,
// to what nothing else in its closure refers to.
func (b *Backup) RootsIn(id ReleaseID, dir string) ([]GCRoot, error) {
	closure, err := b.Closure(id)
	if err != nil {
		return nil, err
	}
	release, err := b.Release(id)
	if err != nil {
		return nil, err
	}
	var paths []storepath.Path
	for _, root := range release.Roots {
		for _, p := range []storepath.Path{root.StorePath, root.DrvPath} {
			if _, found := slices.BinarySearch(closure, p); found {
				paths = append(paths, p)
			}
		}
	}
	if len(paths) == 0 {
		paths = b.unreferenced(closure)
	}
	slices.Sort(paths)
	var roots []GCRoot
	for _, p := range slices.Compact(paths) {
		roots = append(roots, GCRoot{Link: filepath.Join(dir, string(p)), Path: p})
	}
	return roots, nil
}

// unreferenced returns what no other path of a closure refers to. Paths whose
// narinfo cannot be read refer to nothing.
func (b *Backup) unreferenced(closure []storepath.Path) []storepath.Path {
	referenced := make(map[storepath.Path]bool)
	for _, p := range closure {
		info, err := b.Cache.Lookup(p)
		if err != nil {
			continue
		}
		for _, ref := range info.References {
			if ref != p {
				referenced[ref] = true
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(closure), func(p storepath.Path) bool { return referenced[p] })
}
