package hydra

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// ErrNoReleases is wrapped by the error of CreateRelease for a Hydra that has no
// tables of releases.
var ErrNoReleases = errors.New("this Hydra has no releases, as none has since 2020")

// releaseName are the names that Hydra's pages can show.
var releaseName = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9_.-]*$`)

// PlanRelease returns what a release of all the builds of an evaluation that
// succeeded would be: its project, its name (by Hydra's rule if name is ""), and
// how many builds it has. Nothing is written.
func (s *Snapshot) PlanRelease(ctx context.Context, evaluation int64, name, description string) (*ReleaseInfo, error) {
	info, err := s.planRelease(ctx, evaluation, name)
	if err != nil {
		return nil, fmt.Errorf("create release: %w", explain(err))
	}
	info.Description, info.Created = description, time.Now().UTC().Truncate(time.Second)
	return info, nil
}

func (s *Snapshot) planRelease(ctx context.Context, evaluation int64, name string) (*ReleaseInfo, error) {
	join, project, _ := s.schema.jobsetOf("jobsetevals")
	info := &ReleaseInfo{Name: name}
	var named *string
	err := s.tx.QueryRow(ctx, fmt.Sprintf(`
		select e.project, (select c.releasename from jobsetevalmembers n join builds c on c.id = n.build
		                   where n.eval = e.id and c.releasename <> '' order by c.id limit 1), %s
		from (select x.id, %s as project from jobsetevals x %s where x.id = $1::bigint) e
		left join jobsetevalmembers m on m.eval = e.id
		left join builds b on b.id = m.build
		group by e.id, e.project`, amounts, project, join), evaluation).
		Scan(append([]any{&info.Project, &named}, info.columns()...)...)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, noEvaluation(evaluation)
	case err != nil:
		return nil, err
	case info.Succeeded == 0:
		return nil, fmt.Errorf("evaluation %d: %w", evaluation, noBuilds(info.Builds))
	}
	if named != nil {
		info.Name = cmp.Or(info.Name, *named)
	}
	info.Name = cmp.Or(info.Name, fmt.Sprintf("%s-%d", info.Project, evaluation))
	if !releaseName.MatchString(info.Name) {
		return nil, fmt.Errorf("release name %q is none that Hydra accepts: letters, digits, _, - and dots", info.Name)
	}
	return info, nil
}

// CreateRelease makes a release in Hydra's tables, of all the builds of an
// evaluation that succeeded. Where there are no such tables, the error wraps
// ErrNoReleases.
func CreateRelease(ctx context.Context, database string, evaluation int64, name, description string) (*ReleaseInfo, error) {
	s, err := open(ctx, database, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		return nil, fmt.Errorf("create release: open Hydra's database: %w", err)
	}
	defer s.Close()
	info, err := s.PlanRelease(ctx, evaluation, name, description)
	if err != nil {
		return nil, err
	}
	if !s.schema.hasReleases() {
		return nil, fmt.Errorf("create release: %w", ErrNoReleases)
	}
	if err := s.insertRelease(ctx, evaluation, info); err != nil {
		return nil, fmt.Errorf("create release %s/%s: %w", info.Project, info.Name, explainWrite(err))
	}
	return info, nil
}

func (s *Snapshot) insertRelease(ctx context.Context, evaluation int64, info *ReleaseInfo) error {
	if _, err := s.tx.Exec(ctx, `insert into releases (project, name, "timestamp", description) values ($1, $2, $3, $4)`,
		info.Project, info.Name, info.Created.Unix(), info.Description); err != nil {
		return err
	}
	if _, err := s.tx.Exec(ctx, `
		insert into releasemembers (project, release_, build, description)
		select $1, $2, b.id, b.description from jobsetevalmembers m join builds b on b.id = m.build
		where m.eval = $3::bigint and b.finished = 1 and b.buildstatus = 0`, info.Project, info.Name, evaluation); err != nil {
		return err
	}
	return s.tx.Commit(ctx)
}

// explainWrite is explain for what was to be written.
func explainWrite(err error) error {
	var server *pgconn.PgError
	switch {
	case errors.As(err, &server) && server.Code == "23505":
		return errors.New("there is one of this name already: give this one another")
	case errors.As(err, &server) && (server.Code == "42501" || server.Code == "25006"):
		return &ServerError{Code: server.Code, text: server.Message + ": use the role that Hydra itself uses"}
	}
	return explain(err)
}
