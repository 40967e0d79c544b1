package hydra

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// A Selection says which builds are a release. One of Evaluation, Jobset,
// Builds and Aggregate says it; if none does, Hydra's own tables do.
type Selection struct {
	Project     string
	Name        string // "": by Hydra's rule. A pattern: all releases of the project in Hydra's tables that match
	Description string // "": what Hydra says
	Method      string // of the backup, "" for the default

	Evaluation int64     // an evaluation's id
	Jobset     string    // of the project: its latest evaluation whose builds are all finished
	Jobs       []string  // of the evaluation's jobs, those that match one of these patterns
	Builds     []int64   // ids of builds
	Aggregate  Aggregate // a build, and its constituents

	Outputs []string // only these of each build, all if there are none; a build needs to have one of them
}

// An Aggregate names a build that has constituents: by its id, or by its job in
// the evaluation or the jobset.
type Aggregate struct {
	Build int64
	Job   string
}

func (a Aggregate) none() bool { return a == Aggregate{} }

// Check reports what in a selection contradicts itself. Find calls it.
func (sel *Selection) Check() error {
	count := 0
	for _, said := range []bool{sel.Evaluation != 0, sel.Jobset != "", sel.Builds != nil, sel.Aggregate.Build != 0} {
		if said {
			count++
		}
	}
	ofEvaluation := sel.Evaluation != 0 || sel.Jobset != ""
	switch {
	case sel.Project == "":
		return errors.New("has no project")
	case count > 1:
		return errors.New("has more than one of evaluation, jobset, builds and aggregate: one says what the release is")
	case sel.Jobs != nil && !ofEvaluation:
		return errors.New("has jobs, but no evaluation and no jobset to look for them in")
	case sel.Aggregate.Job != "" && !ofEvaluation:
		return fmt.Errorf("has the aggregate %q, but no evaluation and no jobset to look for it in: add one, or give the id of the build", sel.Aggregate.Job)
	case sel.Jobs != nil && !sel.Aggregate.none():
		return errors.New("has jobs and an aggregate: one of them says which builds")
	case sel.Name == "" && count == 0:
		return errors.New("has no name, and no evaluation, jobset, builds or aggregate to make one from")
	case isPattern(sel.Name) && count > 0:
		return fmt.Errorf("has the pattern %q as its name, which is for releases in Hydra's tables", sel.Name)
	}
	return checkPatterns(append(slices.Clone(sel.Jobs), sel.Name))
}

func checkPatterns(patterns []string) error {
	for _, p := range patterns {
		if _, err := path.Match(p, ""); err != nil {
			return fmt.Errorf("has the pattern %q, which is malformed", p)
		}
	}
	return nil
}

// Native reports whether Hydra's own tables say what the selection is.
func (sel *Selection) Native() bool {
	return sel.Evaluation == 0 && sel.Jobset == "" && sel.Builds == nil && sel.Aggregate.none()
}

// Matches reports whether the name of a release is the selection's, or matches
// it.
func (sel *Selection) Matches(name string) bool { return name == sel.Name || match(sel.Name, name) }

// match reports whether a name matches a pattern, which Check has seen. A slash
// is like any other character.
func match(pattern, name string) bool {
	noSlash := strings.NewReplacer("/", "\x00")
	ok, err := path.Match(noSlash.Replace(pattern), noSlash.Replace(name))
	return ok && err == nil
}

func isPattern(name string) bool { return strings.ContainsAny(name, "*?[") }

// A draft is a release of which the builds are known by id only.
type draft struct {
	name        string // "" until the rule gives it one
	description string
	evaluation  int64
	native      bool // from Hydra's tables
	builds      []int64
	aggregate   int64 // among builds; must have succeeded
	jobs        []string
}

// what names a release that is selected, for messages.
func (sel *Selection) what(name string) string {
	switch {
	case name != "":
		return fmt.Sprintf("release %s/%s", sel.Project, name)
	case sel.Evaluation != 0:
		return fmt.Sprintf("release of %s, evaluation %d", sel.Project, sel.Evaluation)
	case sel.Jobset != "":
		return fmt.Sprintf("release of %s, jobset %s", sel.Project, sel.Jobset)
	}
	return "release of " + sel.Project
}

// Find returns the releases that a selection stands for: one, or, where its
// name is a pattern, those of Hydra's tables that match, sorted by name. Store
// paths must be in storeDir. A release that cannot be had leaves an error, which
// names it, and does not keep the others from being found.
func (s *Snapshot) Find(ctx context.Context, sel *Selection, storeDir string) (releases []*Release, errs []error) {
	if err := sel.Check(); err != nil {
		return nil, []error{fmt.Errorf("%s: %w", sel.what(sel.Name), err)}
	}
	var drafts []draft
	err := s.apart(ctx, func() (err error) {
		drafts, err = s.drafts(ctx, sel)
		return err
	})
	if err != nil {
		return nil, []error{fmt.Errorf("%s: %w", sel.what(sel.Name), explain(err))}
	}
	for i := range drafts {
		var r *Release
		err := s.apart(ctx, func() (err error) {
			r, err = s.release(ctx, sel, &drafts[i], storeDir)
			return err
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", sel.what(drafts[i].name), explain(err)))
			continue
		}
		releases = append(releases, r)
	}
	return releases, errs
}

func (s *Snapshot) drafts(ctx context.Context, sel *Selection) ([]draft, error) {
	if err := s.checkProject(ctx, sel.Project); err != nil {
		return nil, err
	}
	var d draft
	var err error
	switch {
	case sel.Evaluation != 0:
		d, err = s.evaluation(ctx, sel, sel.Evaluation)
	case sel.Jobset != "":
		d, err = s.latest(ctx, sel)
	case sel.Builds != nil:
		d = draft{builds: sel.Builds}
	case sel.Aggregate.Build != 0:
		d, err = s.aggregate(ctx, sel.Aggregate.Build)
	default:
		return s.native(ctx, sel)
	}
	d.name = sel.Name
	return []draft{d}, err
}

// release reads what a draft stands for.
func (s *Snapshot) release(ctx context.Context, sel *Selection, d *draft, storeDir string) (*Release, error) {
	rows, err := s.buildRows(ctx, d.builds)
	if err != nil {
		return nil, err
	}
	if err := d.allThere(rows); err != nil {
		return nil, err
	}
	if rows, err = d.matching(rows); err != nil {
		return nil, err
	}
	r := &Release{Project: sel.Project, Description: cmp.Or(sel.Description, d.description), Evaluation: d.evaluation}
	good := rows[:0:0]
	for _, row := range rows {
		switch {
		case row.succeeded():
			good = append(good, row)
		case row.ID == d.aggregate || sel.Builds != nil:
			return nil, fmt.Errorf("%s %s", row.what(), statusText(row.ended, row.status))
		default:
			r.Skipped = append(r.Skipped, row.ID)
		}
	}
	if len(good) == 0 {
		return nil, noBuilds(len(rows))
	}
	if r.Name, err = d.nameFor(sel.Project, rows); err != nil {
		return nil, err
	}
	if r.Builds, err = s.complete(ctx, good, sel.Outputs, storeDir); err != nil {
		return nil, err
	}
	if r.Logs, err = s.logs(ctx, r.Builds, storeDir); err != nil {
		return nil, err
	}
	r.Rows, err = s.rows(ctx, r, d.native)
	return r, err
}

// ErrNoBuilds is wrapped by the error about a release without a build that
// succeeded.
var ErrNoBuilds = errors.New("there is nothing to back up")

func noBuilds(total int) error {
	if total == 0 {
		return fmt.Errorf("it has no builds: %w before Hydra adds some to it", ErrNoBuilds)
	}
	return fmt.Errorf("none of its builds (%d) succeeded: %w", total, ErrNoBuilds)
}

// allThere reports ids that Hydra has no build for. In Hydra's own tables there
// are none: they refer to builds.
func (d *draft) allThere(rows []buildRow) error {
	there := make(map[int64]bool, len(rows))
	for i := range rows {
		there[rows[i].ID] = true
	}
	var missing []string
	for _, id := range d.builds {
		if !there[id] {
			missing = append(missing, fmt.Sprintf("there is no build %d", id))
		}
	}
	if missing == nil {
		return nil
	}
	return &OutputError{missing}
}

// matching leaves the builds of jobs that match; each pattern must match one.
func (d *draft) matching(rows []buildRow) ([]buildRow, error) {
	if d.jobs == nil {
		return rows, nil
	}
	var matching []buildRow
	used := make([]bool, len(d.jobs))
	for _, row := range rows {
		belongs := false
		for i, pattern := range d.jobs {
			if match(pattern, row.Job) {
				used[i], belongs = true, true
			}
		}
		if belongs {
			matching = append(matching, row)
		}
	}
	for i, pattern := range d.jobs {
		if !used[i] {
			return nil, fmt.Errorf("evaluation %d has no job that matches %q", d.evaluation, pattern)
		}
	}
	return matching, nil
}

// nameFor names a release by Hydra's rule, if it has no name: as the first of
// its builds says that says it, whether it succeeded or not (Hydra:
// Controller/JobsetEval.pm, release), else the project and the evaluation.
func (d *draft) nameFor(project string, builds []buildRow) (string, error) {
	if d.name != "" {
		return d.name, nil
	}
	for i := range builds {
		if name := builds[i].ReleaseName; name != "" {
			return name, nil
		}
	}
	if d.evaluation == 0 {
		return "", errors.New("has no name: its builds give it none, so add \"name\"")
	}
	return fmt.Sprintf("%s-%d", project, d.evaluation), nil
}

// checkProject reports a project that Hydra has not.
func (s *Snapshot) checkProject(ctx context.Context, name string) error {
	names, err := column[string](ctx, s, "select name from projects order by name")
	if err != nil {
		return err
	}
	if !slices.Contains(names, name) {
		return fmt.Errorf("project %q is not in Hydra%s", name, suggest(name, names))
	}
	return nil
}
