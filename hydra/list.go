package hydra

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// Amounts say how much a release or an evaluation is.
type Amounts struct {
	Builds    int   `json:"builds"`
	Succeeded int   `json:"succeeded"`
	Queued    int   `json:"queued"` // not finished
	Size      int64 `json:"size"`   // bytes of the outputs of those that succeeded, as Hydra has measured them
}

// A ReleaseInfo is a release in Hydra's tables.
type ReleaseInfo struct {
	Project     string    `json:"project"`
	Name        string    `json:"name"`
	Description string    `json:"description"`
	Created     time.Time `json:"created"`
	Amounts
}

// An EvaluationInfo is an evaluation of a jobset that has builds.
type EvaluationInfo struct {
	ID      int64     `json:"id"`
	Project string    `json:"project"`
	Jobset  string    `json:"jobset"`
	Created time.Time `json:"created"`
	Amounts
}

// amounts are the columns of Amounts, over the builds b of each group.
const amounts = `count(b.id), count(case when b.finished = 1 and b.buildstatus = 0 then 1 end), count(case when b.finished = 0 then 1 end),
	coalesce(sum(case when b.finished = 1 and b.buildstatus = 0 then b.size end), 0)::bigint`

func (a *Amounts) columns() []any { return []any{&a.Builds, &a.Succeeded, &a.Queued, &a.Size} }

// Releases returns the releases in Hydra's tables, of one project or, with "",
// of all, by project and name. A Hydra that has no such tables has none.
func (s *Snapshot) Releases(ctx context.Context, project string) ([]ReleaseInfo, error) {
	list, err := s.releases(ctx, project)
	if err != nil {
		return nil, fmt.Errorf("list releases: %w", explain(err))
	}
	return list, nil
}

func (s *Snapshot) releases(ctx context.Context, project string) ([]ReleaseInfo, error) {
	if err := s.checkFilter(ctx, project, ""); err != nil || !s.schema.hasReleases() {
		return nil, err
	}
	rows, err := s.tx.Query(ctx, fmt.Sprintf(`
		select r.project, r.name, coalesce(r.description, ''), r."timestamp"::bigint, %s
		from releases r
		left join releasemembers m on m.project = r.project and m.release_ = r.name
		left join builds b on b.id = m.build
		where $1 = '' or r.project = $1
		group by r.project, r.name, r.description, r."timestamp" order by r.project, r.name`, amounts), project)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (r ReleaseInfo, err error) {
		var created int64
		err = row.Scan(append([]any{&r.Project, &r.Name, &r.Description, &created}, r.columns()...)...)
		r.Created = time.Unix(created, 0).UTC()
		return r, err
	})
}

// Evaluations returns the newest evaluations that have builds, at most limit if
// that is not 0, the newest first; with a project or a jobset, its own.
func (s *Snapshot) Evaluations(ctx context.Context, project, jobset string, limit int) ([]EvaluationInfo, error) {
	list, err := s.evaluations(ctx, project, jobset, limit)
	if err != nil {
		return nil, fmt.Errorf("list evaluations: %w", explain(err))
	}
	return list, nil
}

func (s *Snapshot) evaluations(ctx context.Context, project, jobset string, limit int) ([]EvaluationInfo, error) {
	if err := s.checkFilter(ctx, project, jobset); err != nil {
		return nil, err
	}
	if limit <= 0 {
		limit = math.MaxInt32
	}
	join, projectColumn, jobsetColumn := s.schema.jobsetOf("jobsetevals")
	rows, err := s.tx.Query(ctx, fmt.Sprintf(`
		select e.id::bigint, e.project, e.jobset, e."timestamp"::bigint, %s
		from (select x.id, %s as project, %s as jobset, x."timestamp" from jobsetevals x %s
		      where x.hasnewbuilds = 1 and ($1 = '' or %[2]s = $1) and ($2 = '' or %[3]s = $2)
		      order by x.id desc limit $3) e
		left join jobsetevalmembers m on m.eval = e.id
		left join builds b on b.id = m.build
		group by e.id, e.project, e.jobset, e."timestamp" order by e.id desc`, amounts, projectColumn, jobsetColumn, join), project, jobset, limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (e EvaluationInfo, err error) {
		var created int64
		err = row.Scan(append([]any{&e.ID, &e.Project, &e.Jobset, &created}, e.columns()...)...)
		e.Created = time.Unix(created, 0).UTC()
		return e, err
	})
}

// checkFilter reports a project or a jobset that Hydra has not; "" is no filter.
func (s *Snapshot) checkFilter(ctx context.Context, project, jobset string) error {
	if project != "" {
		if err := s.checkProject(ctx, project); err != nil {
			return err
		}
	}
	if jobset == "" {
		return nil
	}
	names, err := column[string](ctx, s, "select distinct name from jobsets where $1 in ('', project) order by name", project)
	if err == nil && !slices.Contains(names, jobset) {
		err = fmt.Errorf("jobset %q is not in Hydra%s", jobset, suggest(jobset, names))
	}
	return err
}
