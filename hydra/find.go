package hydra

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// evaluation returns the builds of an evaluation that the selection asks for.
func (s *Snapshot) evaluation(ctx context.Context, sel *Selection, id int64) (draft, error) {
	d := draft{evaluation: id, jobs: sel.Jobs}
	join, project, jobset := s.schema.jobsetOf("jobsetevals")
	var inProject, ofJobset string
	err := s.tx.QueryRow(ctx, fmt.Sprintf("select %s, %s from jobsetevals x %s where x.id = $1::bigint", project, jobset, join), id).Scan(&inProject, &ofJobset)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return d, noEvaluation(id)
	case err != nil:
		return d, err
	case inProject != sel.Project:
		return d, fmt.Errorf("evaluation %d is of project %q (jobset %q), not of %q", id, inProject, ofJobset, sel.Project)
	}
	if sel.Aggregate.Job != "" {
		return s.aggregateIn(ctx, id, sel.Aggregate.Job)
	}
	d.builds, err = column[int64](ctx, s, "select build::bigint from jobsetevalmembers where eval = $1::bigint order by build", id)
	return d, err
}

func noEvaluation(id int64) error {
	return fmt.Errorf("there is no evaluation %d: \"narvault hydra evaluations\" lists them", id)
}

// latest returns the builds of a jobset's latest evaluation that has builds, all
// of them finished.
func (s *Snapshot) latest(ctx context.Context, sel *Selection) (draft, error) {
	jobsets, err := column[string](ctx, s, "select name from jobsets where project = $1 order by name", sel.Project)
	if err != nil {
		return draft{}, err
	}
	join, project, jobset := s.schema.jobsetOf("jobsetevals")
	var id int64
	err = s.tx.QueryRow(ctx, fmt.Sprintf(`
		select x.id::bigint from jobsetevals x %s
		where %s = $1 and %s = $2 and x.hasnewbuilds = 1
		  and exists (select from jobsetevalmembers m where m.eval = x.id)
		  and not exists (select from jobsetevalmembers m join builds b on b.id = m.build where m.eval = x.id and b.finished = 0)
		order by x.id desc limit 1`, join, project, jobset), sel.Project, sel.Jobset).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		if !slices.Contains(jobsets, sel.Jobset) {
			return draft{}, fmt.Errorf("project %q has no jobset %q%s", sel.Project, sel.Jobset, suggest(sel.Jobset, jobsets))
		}
		return draft{}, fmt.Errorf("jobset %s:%s has no evaluation whose builds are all finished: %w", sel.Project, sel.Jobset, ErrNoBuilds)
	}
	if err != nil {
		return draft{}, err
	}
	return s.evaluation(ctx, sel, id)
}

// aggregateIn returns an aggregate of an evaluation, and its constituents.
func (s *Snapshot) aggregateIn(ctx context.Context, evaluation int64, job string) (draft, error) {
	ids, err := column[int64](ctx, s, `
		select b.id::bigint from jobsetevalmembers m join builds b on b.id = m.build
		where m.eval = $1::bigint and b.job = $2 order by b.id`, evaluation, job)
	if err != nil {
		return draft{}, err
	}
	if len(ids) == 0 {
		return draft{}, fmt.Errorf("evaluation %d has no job %q", evaluation, job)
	}
	d, err := s.aggregate(ctx, ids[0])
	d.evaluation = evaluation
	return d, err
}

// aggregate returns a build and its constituents.
func (s *Snapshot) aggregate(ctx context.Context, id int64) (draft, error) {
	d := draft{aggregate: id}
	if !s.schema.has("aggregateconstituents", "aggregate") {
		return d, errors.New("this Hydra is too old to have aggregates")
	}
	ids, err := column[int64](ctx, s, "select constituent::bigint from aggregateconstituents where aggregate = $1::bigint order by constituent", id)
	if err == nil && len(ids) == 0 {
		err = fmt.Errorf("build %d is not an aggregate: it has no constituents", id)
	}
	d.builds = append(ids, id)
	return d, err
}

// native returns the releases in Hydra's tables whose name is the selection's,
// or matches it.
func (s *Snapshot) native(ctx context.Context, sel *Selection) ([]draft, error) {
	if !s.schema.hasReleases() {
		return nil, fmt.Errorf("this Hydra (schema version %d) has no releases, as none has since 2020: "+
			"say what the release is by \"evaluation\", \"jobset\", \"builds\" or \"aggregate\", or with \"narvault hydra create-release\"", s.schema.version)
	}
	names, err := column[string](ctx, s, "select name from releases where project = $1 order by name", sel.Project)
	if err != nil {
		return nil, err
	}
	var drafts []draft
	for _, name := range names {
		if sel.Matches(name) {
			d := draft{name: name, native: true}
			if err := s.members(ctx, sel.Project, &d); err != nil {
				return nil, err
			}
			drafts = append(drafts, d)
		}
	}
	if drafts == nil {
		return nil, fmt.Errorf("project %q has no release %q%s", sel.Project, sel.Name, suggest(sel.Name, names))
	}
	return drafts, nil
}

// members reads the description and the builds of a release in Hydra's tables.
func (s *Snapshot) members(ctx context.Context, project string, d *draft) error {
	err := s.tx.QueryRow(ctx, "select coalesce(description, '') from releases where project = $1 and name = $2", project, d.name).Scan(&d.description)
	if err != nil {
		return err
	}
	d.builds, err = column[int64](ctx, s, "select build::bigint from releasemembers where project = $1 and release_ = $2 order by build", project, d.name)
	return err
}

// column returns the one column of a query.
func column[T any](ctx context.Context, s *Snapshot, sql string, args ...any) ([]T, error) {
	rows, err := s.tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[T])
}
