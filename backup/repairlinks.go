package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"

	"github.com/narvault/narvault/backup/disk"
	"github.com/narvault/narvault/backup/layout"
	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/storepath"
)

// maxMendedLog bounds the build logs that are taken from other caches, in bytes.
const maxMendedLog = 64 << 20

// mendLinks takes realisations, debuginfo and build logs that are to be
// quarantined from other caches instead, where these have sound ones.
func (r *repairer) mendLinks(ctx context.Context) error {
	var left []Misfit
	for _, m := range r.req.Misfits {
		if err := ctx.Err(); err != nil {
			return err
		}
		by, why, err := r.mendLink(ctx, m.File)
		if err != nil {
			return err
		}
		if by != "" {
			r.repaired(m.File, "", by)
			continue
		}
		m.Reason = strings.Join(append([]string{m.Reason}, why...), "; ")
		left = append(left, m)
	}
	r.req.Misfits = left
	return nil
}

// mendLink returns the cache that a file was taken from, "" if none has it, and
// what was wrong with those that have it.
func (r *repairer) mendLink(ctx context.Context, file string) (by string, why []string, err error) {
	name, inCache := strings.CutPrefix(file, layout.CacheDir+"/")
	if !inCache || !r.isMisfit(file) {
		return "", nil, nil
	}
	limit := int64(maxRealisation)
	switch dir, _, _ := strings.Cut(name, "/"); dir {
	case bincache.LogDir:
		limit = maxMendedLog
	case bincache.RealisationDir, bincache.BuildTraceDir, bincache.DebugInfoDir:
	default:
		return "", nil, nil
	}
	for _, from := range r.req.From {
		text, err := from.Cache.ReadFile(name, limit)
		if missing(err) {
			continue
		}
		if err == nil {
			err = r.sound(name, text)
		}
		if err != nil {
			why = append(why, fmt.Sprintf("%s: %v", from.dir, err))
			continue
		}
		return from.dir, nil, r.exclusively(ctx, func() error { return r.putLink(name, text) })
	}
	return "", why, nil
}

// putLink replaces a file. A directory in its place has to be moved away by hand.
func (r *repairer) putLink(name string, text []byte) error {
	target := r.b.cachePath(filepath.FromSlash(name))
	// Beside the narinfos: there, leftovers of a crash are looked for.
	temp, err := disk.WriteTemp(r.fsys, r.b.Cache.Dir(), text)
	if err != nil {
		return err
	}
	if err := r.fsys.Rename(temp, target); err != nil {
		return errors.Join(err, r.fsys.Remove(temp))
	}
	return r.fsys.SyncDir(filepath.Dir(target))
}

// sound says why a file of another cache is no good here.
func (r *repairer) sound(name string, text []byte) error {
	if st, err := r.b.Cache.Lstat(name); err == nil && st.IsDir() {
		return errors.New("has it, but a directory is in its place: move that away")
	}
	switch dir, _, _ := strings.Cut(name, "/"); dir {
	case bincache.RealisationDir, bincache.BuildTraceDir:
		return r.soundRealisation(name, text)
	case bincache.DebugInfoDir:
		url, err := bincache.DebugInfoNAR(text)
		if err == nil {
			err = bincache.CheckURL(url)
		}
		if err == nil {
			_, err = r.b.Cache.Lstat(url)
		}
		return err
	}
	return nil
}

// soundRealisation accepts what is known to be right: nothing else in the backup
// says what a derivation was built to.
func (r *repairer) soundRealisation(name string, text []byte) error {
	p, err := bincache.RealisationPath(text)
	if err != nil {
		return err
	}
	if has, err := r.b.Cache.Has(p.Hash()); err != nil {
		return err
	} else if !has {
		return fmt.Errorf("leads to %s, which is not in the backup", p)
	}
	signed, sigs, err := realisationFingerprint(name, text, p)
	if err != nil || r.req.NoCheckSigs {
		return err
	}
	for _, text := range sigs {
		sig, err := signature.ParseSignature(text)
		if err == nil && slices.ContainsFunc(r.req.TrustedKeys, func(k signature.PublicKey) bool { return k.Verify(signed, sig) }) {
			return nil
		}
	}
	return errors.New("has it, but no trusted key has signed it: give --trusted-key or --no-check-sigs")
}

// realisationFingerprint returns the text that the signatures of a realisation
// sign, and these (Realisation::fingerprint in Nix's src/libstore/realisation.cc).
func realisationFingerprint(name string, text []byte, p storepath.Path) (signed string, sigs []string, err error) {
	base := strings.TrimSuffix(path.Base(name), bincache.RealisationExt)
	if strings.HasPrefix(name, bincache.BuildTraceDir) {
		return buildTraceFingerprint(path.Base(path.Dir(name)), base, text, p)
	}
	fields := make(map[string]json.RawMessage)
	var of struct {
		ID         string
		Signatures []string
	}
	if err := errors.Join(json.Unmarshal(text, &fields), json.Unmarshal(text, &of)); err != nil {
		return "", nil, err
	}
	if of.ID != base {
		return "", nil, fmt.Errorf("is the realisation of %q", of.ID)
	}
	delete(fields, "signatures")
	all, err := json.Marshal(fields) // sorted, as Nix does it
	return string(all), of.Signatures, err
}

// buildTraceFingerprint is realisationFingerprint since Nix 2.35.
func buildTraceFingerprint(drv, output string, text []byte, p storepath.Path) (signed string, sigs []string, err error) {
	var of struct {
		Signatures []struct{ KeyName, Sig string }
	}
	if err := json.Unmarshal(text, &of); err != nil {
		return "", nil, err
	}
	for _, sig := range of.Signatures {
		sigs = append(sigs, sig.KeyName+":"+sig.Sig)
	}
	var trace struct {
		Key struct {
			DrvPath    string `json:"drvPath"`
			OutputName string `json:"outputName"`
		} `json:"key"`
		Value struct {
			OutPath string `json:"outPath"`
		} `json:"value"`
	}
	trace.Key.DrvPath, trace.Key.OutputName, trace.Value.OutPath = drv, output, string(p)
	all, err := json.Marshal(trace)
	return string(all), sigs, err
}
