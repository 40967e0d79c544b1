package backup

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"

	"github.com/narvault/narvault/backup/nixstore"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// An account is what somebody says of a store path.
type account struct {
	by   string
	own  bool // this backup has or had it; else what it says of the NAR file means nothing
	info *narinfo.NarInfo
	text []byte
}

// textFor returns the narinfo with the NAR file that was found: if that is the
// one of the account, as it was, byte by byte.
func (a *account) textFor(c *content) []byte {
	if a.own && c.exact {
		return a.text
	}
	info := *a.info
	c.narFile.fill(&info)
	if a.own {
		return narinfo.SetFile(a.text, &info)
	}
	return info.Bytes()
}

// own returns what this backup knows of a store path, the best first: its
// narinfo, unless that is doubtful, what was indexed, and what was quarantined.
// What contradicts itself is left out, and why says so.
func (r *repairer) own(hash string, seen []byte, doubtful bool) (accounts []account, why []string) {
	var here, others []account
	if seen != nil {
		here = r.parse(&why, hash, "its narinfo", seen)
	}
	if p, text := r.indexed(hash); text != nil {
		r.name(p)
		others = append(others, r.parse(&why, hash, "the index", text)...)
	}
	if q, found := r.earlier[hash]; found {
		others = append(others, r.parse(&why, hash, "the quarantine", []byte(q.NarInfo))...)
	}
	if doubtful {
		return append(others, here...), why
	}
	return append(here, others...), why
}

// indexed returns the narinfo of a store path as it was indexed.
func (r *repairer) indexed(hash string) (storepath.Path, []byte) {
	if r.index == nil {
		return "", nil
	}
	e, found := r.index.ByHash(hash)
	if !found {
		return "", nil
	}
	record, err := r.index.Record(e.Path)
	if err != nil {
		return e.Path, nil
	}
	return e.Path, record.NarInfo
}

// parse makes an account of a narinfo, none if it cannot be believed.
func (r *repairer) parse(why *[]string, hash, by string, text []byte) []account {
	info, err := narinfo.Parse(text)
	if err == nil {
		r.name(info.StorePath)
		err = r.refuse(hash, info)
	}
	if err != nil {
		*why = append(*why, fmt.Sprintf("%s: %v", by, err))
		return nil
	}
	return []account{{by: by, own: true, info: info, text: text}}
}

// refuse says why a narinfo cannot be believed.
func (r *repairer) refuse(hash string, info *narinfo.NarInfo) error {
	if info.StorePath.Hash() != hash || info.StoreDir != r.b.Cache.StoreDir() {
		return fmt.Errorf("is of %s", info.StorePath.In(info.StoreDir))
	}
	if info.CA != "" {
		ca, err := narinfo.ParseCA(info.CA)
		if err != nil {
			return err
		}
		if p, known := ca.StorePath(info); known && p != info.StorePath {
			return fmt.Errorf("%s is the address of %s", info.CA, p)
		}
	}
	for _, ref := range info.References {
		if there, err := r.b.Cache.NarInfo(ref.Hash()); err == nil && there.StorePath != ref {
			return fmt.Errorf("refers to %s, but the store path with this hash is %s", ref, there.StorePath)
		}
	}
	if _, wrong := r.signed(info); wrong != "" {
		return fmt.Errorf("the signature of %s is wrong", wrong)
	}
	return nil
}

// signed reports whether a trusted key has signed what a narinfo says, and names
// one whose signature is wrong.
func (r *repairer) signed(info *narinfo.NarInfo) (good []string, wrong string) {
	for _, text := range info.Sigs {
		sig, err := signature.ParseSignature(text)
		if err != nil {
			continue
		}
		known := slices.ContainsFunc(r.req.TrustedKeys, func(k signature.PublicKey) bool { return k.Name == sig.Name })
		switch {
		case slices.ContainsFunc(r.req.TrustedKeys, func(k signature.PublicKey) bool { return k.Verify(info.Fingerprint(), sig) }):
			good = append(good, text)
		case known:
			wrong = sig.Name
		}
	}
	return good, wrong
}

// others returns what the local store and other caches say of a store path of
// which the backup knows nothing: the store, and what is proven.
func (r *repairer) others(ctx context.Context, hash string) (accounts []account, err error) {
	if p := r.req.Names[hash]; p != "" && r.req.Store != nil {
		acc, err := r.inStore(ctx, p)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err == nil && r.refuse(hash, acc.info) == nil {
			accounts = append(accounts, *acc)
		}
	}
	for _, from := range r.req.From {
		info, err := from.Cache.NarInfo(hash)
		if err != nil || r.refuse(hash, info) != nil || !r.proven(info) {
			continue
		}
		if p := r.req.Names[hash]; p != "" && p != info.StorePath {
			continue
		}
		accounts = append(accounts, account{by: from.dir, info: info})
	}
	r.mergeSigs(accounts)
	return accounts, nil
}

// proven reports whether what a foreign narinfo says is to be believed.
func (r *repairer) proven(info *narinfo.NarInfo) bool {
	if r.req.NoCheckSigs {
		return true
	}
	if good, _ := r.signed(info); len(good) > 0 {
		return true
	}
	// The address has the references in it as well.
	ca, err := narinfo.ParseCA(info.CA)
	if info.CA == "" || err != nil || ca.Method != narinfo.CANar || ca.Digest.Algorithm != "sha256" {
		return false
	}
	p, known := ca.StorePath(info)
	return known && p == info.StorePath && ca.Digest.Sum == string(info.NarHash[:])
}

// mergeSigs gives each account the signatures that others have of the same.
func (r *repairer) mergeSigs(accounts []account) {
	for i := range accounts {
		info := *accounts[i].info
		info.Sigs = slices.Clone(info.Sigs)
		for j := range accounts {
			if accounts[j].info.Fingerprint() == info.Fingerprint() {
				info.Sigs = append(info.Sigs, subtractStrings(accounts[j].info.Sigs, info.Sigs)...)
			}
		}
		accounts[i].info = &info
	}
}

// addSigs returns the text of a narinfo with the signatures that the local store
// and other caches have of just what it says, and the last who had one: "" if
// nobody had.
func (r *repairer) addSigs(ctx context.Context, text []byte, info *narinfo.NarInfo) (_ []byte, from string) {
	with := *info
	for _, acc := range r.claims(ctx, info.StorePath) {
		for _, sig := range missingSigs(&with, acc.info) {
			with.Sigs = append(slices.Clip(with.Sigs), sig)
			text, from = narinfo.AppendSig(text, sig), acc.by
		}
	}
	return text, from
}

// claims are what the local store and other caches say of a store path,
// unless it cannot be true.
func (r *repairer) claims(ctx context.Context, p storepath.Path) (accounts []account) {
	if r.req.Store != nil && r.req.Store.Dir() == r.b.Cache.StoreDir() {
		if acc, err := r.inStore(ctx, p); err == nil {
			accounts = append(accounts, *acc)
		}
	}
	for _, from := range r.req.From {
		if info, err := from.Cache.Lookup(p); err == nil {
			accounts = append(accounts, account{by: from.dir, info: info})
		}
	}
	return slices.DeleteFunc(accounts, func(a account) bool { return r.refuse(p.Hash(), a.info) != nil })
}

func subtractStrings(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
}

// inStore returns what the local store says of a store path. The error is
// *nixstore.InvalidPathsError when it has not got it.
func (r *repairer) inStore(ctx context.Context, p storepath.Path) (*account, error) {
	err := r.req.Store.Lock(ctx, []storepath.Path{p})
	var infos []nixstore.PathInfo
	if err == nil {
		infos, err = r.req.Store.Infos(ctx, []storepath.Path{p})
	}
	if err != nil {
		return nil, err
	}
	return &account{by: "the Nix store", info: narInfoOf(r.req.Store.Dir(), &infos[0])}, nil
}

// joinReasons makes one sentence of why nothing was found.
func joinReasons(why []string) string {
	slices.Sort(why)
	return strings.Join(slices.Compact(why), "; ")
}
