package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"
	"github.com/spf13/cobra"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/backup/check"
	"github.com/narvault/narvault/backup/lock"
	"github.com/narvault/narvault/backup/nixstore"
	"github.com/narvault/narvault/backup/repair"
	"github.com/narvault/narvault/index/bincache"
)

// repairCommand is "narvault repair".
type repairCommand struct {
	s           streams
	from        []string
	store       string
	noStore     bool
	keys        []string
	noCheckSigs bool
	findings    string
	dryRun      bool
	json        bool
	quiet       bool
	lock        lockFlags
}

func (c *repairCommand) cobra(s streams) *cobra.Command {
	c.s = s
	cmd := &cobra.Command{
		Use:   "repair BACKUP [--from CACHE-DIR]...",
		Short: "Mend what is damaged in a backup",
		Long: `Checks a backup as "narvault check --read-data" does, and mends what that finds: out
of the local Nix store, other backups and binary caches (--from), and the backup
itself, which may have the same content twice. Nothing gets in that was not
verified: a NAR is taken only with the NarHash that the backup knows. Of a store
path of which it knows nothing any more, the local store is believed, and a cache
only what a --trusted-key has signed, or with --no-check-sigs.

What has no source is quarantined, so that Nix is not offered it: its narinfo goes
to BACKUP/trash, where it can be put back from with mv. A later repair with a
source mends that, too. What stays damaged is named, with the releases that it
hurts.

Exit codes: 0 when all is whole again, 4 when damage is left, 1 when something
could not be read.`,
		Args: argRange(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.run(cmd.Context(), args[0])
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&c.from, "from", nil, "take what is missing from another backup or binary cache, the `CACHE-DIR` (may be repeated)")
	f.StringVar(&c.store, "store", "", "the Nix store to ask, as Nix's --store `URL`")
	f.BoolVar(&c.noStore, "no-store", false, "do not ask the local Nix store")
	f.StringArrayVar(&c.keys, "trusted-key", nil, "believe what this public `KEY`, as in Nix's trusted-public-keys, has signed")
	f.BoolVar(&c.noCheckSigs, "no-check-sigs", false, "believe the caches of --from about store paths of which the backup knows nothing any more")
	f.StringVar(&c.findings, "findings", "", "do not check, but look at what the check found whose --json output is in `FILE`")
	f.BoolVarP(&c.dryRun, "dry-run", "n", false, "only say what would be done")
	f.BoolVar(&c.json, "json", false, "write the report as JSON")
	f.BoolVarP(&c.quiet, "quiet", "q", false, "no progress and no summary")
	c.lock.add(f)
	return cmd
}

func (c *repairCommand) run(ctx context.Context, dir string) error {
	o, err := c.options()
	if err != nil {
		return err
	}
	for _, from := range c.from {
		b, lock, err := c.openFrom(ctx, dir, from, o.Request.Lock)
		if err != nil {
			return err
		}
		defer b.Close()
		defer lock.Close()
		o.Request.From = append(o.Request.From, b)
	}
	store, err := c.openStore(ctx)
	if err != nil {
		return err
	}
	if store != nil {
		defer store.Close()
		o.Request.Store = store
	}
	r, err := c.repair(ctx, dir, o)
	if r == nil || r.RepairResult == nil {
		return err
	}
	list(c.s.err, "warning: ", r.Warnings)
	if c.json {
		err = errors.Join(err, printJSON(c.s.out, r))
	} else {
		err = errors.Join(err, c.print(r, err == nil))
	}
	return errors.Join(err, remaining(r))
}

// options checks the flags.
func (c *repairCommand) options() (o repair.Options, err error) {
	if c.noStore && c.store != "" {
		return o, usageErrorf("give --store or --no-store, not both")
	}
	for _, text := range c.keys {
		key, err := signature.ParsePublicKey(text)
		if err != nil {
			return o, usageErrorf("--trusted-key: %v", err)
		}
		o.Request.TrustedKeys = append(o.Request.TrustedKeys, key)
	}
	cache := cacheOptions(c.s.err)
	cache.Warn = nil // what is odd is said by the check
	o.Check = check.Options{ReadData: check.Selection{All: true}, TrustedKeys: o.Request.TrustedKeys, Cache: cache}
	o.Request.Cache, o.Request.NoCheckSigs, o.Request.DryRun = cache, c.noCheckSigs, c.dryRun
	if o.Request.Lock, err = c.lock.options(c.s, "repair"); err != nil || c.findings == "" {
		return o, err
	}
	o.Findings, err = readFindings(c.findings)
	return o, err
}

// readFindings reads what "narvault check --json" wrote.
func readFindings(name string) ([]check.Finding, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var r check.Report
	if err := json.Unmarshal(text, &r); err != nil || r.Version != backup.FormatVersion || r.Findings == nil {
		return nil, fmt.Errorf("read findings: %s is not what \"narvault check --json\" writes (%v)", name, err)
	}
	return r.Findings, nil
}

// openFrom opens another cache, and keeps what is in it there.
func (c *repairCommand) openFrom(ctx context.Context, dir, from string, o lock.Options) (*backup.Backup, io.Closer, error) {
	if err := apart(from, dir); err != nil {
		return nil, nil, err
	}
	b, err := backup.Open(from, bincache.Options{SpoolDir: spoolDir()})
	if err != nil {
		return nil, nil, err
	}
	lock, err := b.Lock(ctx, o)
	if err != nil {
		b.Close()
		return nil, nil, err
	}
	return b, lock, nil
}

// openStore opens the local Nix store; nil if there is none, or it is not wanted.
func (c *repairCommand) openStore(ctx context.Context) (*nixstore.Store, error) {
	if c.noStore {
		return nil, nil
	}
	store, err := nixstore.Open(ctx, nixstore.Options{URL: c.store})
	switch {
	case err == nil:
		return store, nil
	case c.store != "" || ctx.Err() != nil:
		return nil, err
	case !errors.Is(err, exec.ErrNotFound):
		fmt.Fprintf(c.s.err, "narvault: warning: the local Nix store is not asked: %s\n", message(err.Error()))
	}
	return nil, nil
}

// repair does it, and shows how far it is: first the check, then the repair.
func (c *repairCommand) repair(ctx context.Context, dir string, o repair.Options) (*repair.Report, error) {
	quiet := c.quiet || c.json && !terminal(c.s.err)
	checking, mending := newProgress(c.s.err, quiet), newProgress(c.s.err, quiet)
	defer mending.stop()
	defer checking.stop() // when the check fails
	o.Check.Progress = checking.checkHooks()
	o.Checked = func(*check.Report) { checking.stop() }
	o.Request.Progress = mending.hooks()
	return repair.Run(ctx, dir, o)
}

// remaining is the error that makes the exit code.
func remaining(r *repair.Report) error {
	damaged, unreadable := 0, 0
	for _, f := range r.Remaining {
		if f.Severity == check.Damage {
			damaged++
		} else {
			unreadable++
		}
	}
	switch {
	case damaged > 0:
		return fmt.Errorf("%w: %s left", errDamage, count(damaged, "finding"))
	case unreadable > 0:
		return fmt.Errorf("%s could not be read, and may be damaged or not", count(unreadable, "file"))
	}
	return nil
}

// print says what was done; complete is false when an error ended it early.
func (c *repairCommand) print(r *repair.Report, complete bool) error {
	out := bufio.NewWriter(c.s.out)
	would := ""
	if r.DryRun {
		would = "would be "
	}
	for _, m := range r.Repaired {
		fmt.Fprintf(out, "%srepaired: %s from %s\n", would, nameInLine(m.File), message(m.From))
	}
	for _, q := range r.Quarantined {
		printQuarantined(out, would+"quarantined", q)
	}
	for _, l := range r.Lost {
		printQuarantined(out, "not repaired", l)
	}
	for i := range r.Remaining {
		if f := &r.Remaining[i]; !follows(r, f) {
			printFinding(out, f)
		}
	}
	switch {
	case c.quiet:
	case complete:
		c.summary(out, r)
	case len(r.Repaired) > 0:
		fmt.Fprintf(out, "%s: ended early, %s of %d damaged repaired; the same command goes on from there\n",
			message(r.Dir), count(len(r.Repaired), "file"), r.Found)
	}
	return out.Flush()
}

// follows reports whether a finding says no more than that a store path is not
// there that was named before.
func follows(r *repair.Report, f *check.Finding) bool {
	if f.Kind != check.Reference && f.Kind != check.ReleasePath {
		return false
	}
	return slices.ContainsFunc(slices.Concat(r.Quarantined, r.Lost), func(q backup.Quarantined) bool {
		return q.StorePath != "" && slices.Contains(f.StorePaths, q.StorePath)
	})
}

func printQuarantined(w io.Writer, what string, q backup.Quarantined) {
	fmt.Fprintf(w, "%s: %s: %s\n", what, nameInLine(q.File), message(q.Reason))
	if q.StorePath != "" {
		fmt.Fprintf(w, "  is %s\n", q.StorePath)
	}
	if len(q.Releases) > 0 {
		fmt.Fprintf(w, "  in %s\n", message(joined(q.Releases, backup.ReleaseID.String)))
	}
}

func (c *repairCommand) summary(w io.Writer, r *repair.Report) {
	would := ""
	if r.DryRun {
		would = "would be "
	}
	if r.Found == 0 && len(r.Repaired)+len(r.Quarantined) == 0 {
		fmt.Fprintf(w, "%s: nothing to repair\n", message(r.Dir))
		return
	}
	fmt.Fprintf(w, "%s: %d damaged; %s %srepaired, %d quarantined", message(r.Dir), r.Found, count(len(r.Repaired), "file"), would, len(r.Quarantined))
	if r.Trash != "" {
		fmt.Fprintf(w, " (in %s)", r.Trash)
	}
	if len(r.Remaining) == 0 {
		fmt.Fprint(w, "; all is whole")
	} else {
		fmt.Fprint(w, "\n  mend the rest with --from another backup or binary cache that has it, or back up again what is hurt")
	}
	fmt.Fprintln(w)
}
