package hydra

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/narvault/narvault/narread/storepath"
)

// A buildRow is a build as Hydra has it, finished or not.
type buildRow struct {
	Build
	drvPath string
	ended   bool
	status  int
}

func (b *buildRow) succeeded() bool { return b.ended && b.status == succeeded }

// what names a build in messages.
func (b *buildRow) what() string {
	return fmt.Sprintf("build %d (%s:%s:%s, %s)", b.ID, b.Project, b.Jobset, b.Job, b.System)
}

// unknownStatus stands for NULL: it is no status of Hydra's.
const unknownStatus = -1

// buildRows reads builds, by id. Ids that there are not are passed over.
func (s *Snapshot) buildRows(ctx context.Context, ids []int64) ([]buildRow, error) {
	join, project, jobset := s.schema.jobsetOf("builds")
	rows, err := s.tx.Query(ctx, fmt.Sprintf(`
		select x.id::bigint, %s, %s, x.job, x.system, coalesce(x.nixname, ''), coalesce(x.description, ''),
		       coalesce(x.releasename, ''), x.drvpath, x.finished <> 0, coalesce(x.buildstatus, $2), coalesce(x.stoptime, 0)::bigint
		from builds x %s where x.id = any($1::bigint[]) order by x.id`, project, jobset, join), ids, unknownStatus)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (b buildRow, err error) {
		var stop int64
		err = row.Scan(&b.ID, &b.Project, &b.Jobset, &b.Job, &b.System, &b.NixName, &b.Description,
			&b.ReleaseName, &b.drvPath, &b.ended, &b.status, &stop)
		b.Finished = time.Unix(stop, 0).UTC()
		return b, err
	})
}

// complete reads the outputs (only those named, all if none are) and products of
// builds that succeeded, and parses their store paths, which must be in the store
// directory.
func (s *Snapshot) complete(ctx context.Context, rows []buildRow, only []string, storeDir string) ([]Build, error) {
	ids := make([]int64, len(rows))
	for i := range rows {
		ids[i] = rows[i].ID
	}
	outputs, err := s.outputs(ctx, ids)
	if err != nil {
		return nil, err
	}
	products, err := s.products(ctx, ids)
	if err != nil {
		return nil, err
	}
	builds := make([]Build, 0, len(rows))
	var faults []string
	for i := range rows {
		row := &rows[i]
		row.Products = products[row.ID]
		wanted := slices.DeleteFunc(outputs[row.ID], func(o outputRow) bool { return len(only) > 0 && !slices.Contains(only, o.name) })
		faults = append(faults, row.parse(wanted, storeDir)...)
		builds = append(builds, row.Build)
	}
	if faults != nil {
		return nil, fmt.Errorf(`%w: "outputs" can say which ones to take, "builds" and "jobs" of which builds`, &OutputError{faults})
	}
	return builds, nil
}

// parse fills in the store paths of a build. It returns what is wrong with them.
func (b *buildRow) parse(outputs []outputRow, storeDir string) (faults []string) {
	fault := func(format string, args ...any) {
		faults = append(faults, b.what()+" "+fmt.Sprintf(format, args...))
	}
	var err error
	if b.DrvPath, err = storepath.ParseIn(storeDir, b.drvPath); err != nil {
		fault("has as its derivation %v", err)
	} else if !b.DrvPath.IsDerivation() {
		fault("has as its derivation %s, which is none", b.drvPath)
	}
	if len(outputs) == 0 {
		fault("has no outputs, or none of those that are asked for")
	}
	for _, o := range outputs {
		if o.path == nil {
			fault("has no store path for output %s: Hydra does not know what it built", o.name)
			continue
		}
		p, err := storepath.ParseIn(storeDir, *o.path)
		if err != nil {
			fault("has as output %s %v", o.name, err)
			continue
		}
		b.Outputs = append(b.Outputs, Output{Name: o.name, Path: p})
	}
	return faults
}

type outputRow struct {
	name string
	path *string // nil for NULL
}

// outputs reads the outputs of builds, by build.
func (s *Snapshot) outputs(ctx context.Context, ids []int64) (map[int64][]outputRow, error) {
	rows, err := s.tx.Query(ctx, `
		select build::bigint, name, path from buildoutputs where build = any($1::bigint[]) order by build, name`, ids)
	if err != nil {
		return nil, err
	}
	all := make(map[int64][]outputRow, len(ids))
	var build int64
	var o outputRow
	_, err = pgx.ForEachRow(rows, []any{&build, &o.name, &o.path}, func() error {
		all[build] = append(all[build], o)
		return nil
	})
	return all, err
}

// products reads the products of builds, by build.
func (s *Snapshot) products(ctx context.Context, ids []int64) (map[int64][]Product, error) {
	rows, err := s.tx.Query(ctx, `
		select build::bigint, type, subtype, name, coalesce(path, ''), coalesce(filesize, 0)::bigint, coalesce(sha256hash, ''),
		       coalesce(defaultpath, '')
		from buildproducts where build = any($1::bigint[]) order by build, productnr`, ids)
	if err != nil {
		return nil, err
	}
	all := make(map[int64][]Product)
	var build int64
	var p Product
	_, err = pgx.ForEachRow(rows, []any{&build, &p.Type, &p.Subtype, &p.Name, &p.Path, &p.Size, &p.SHA256, &p.DefaultPath}, func() error {
		all[build] = append(all[build], p)
		return nil
	})
	return all, err
}

// logs returns the derivations whose build logs belong to builds: their own,
// and those that were built for them.
func (s *Snapshot) logs(ctx context.Context, builds []Build, storeDir string) ([]storepath.Path, error) {
	seen := make(map[storepath.Path]bool)
	ids := make([]int64, len(builds))
	for i, b := range builds {
		ids[i] = b.ID
		seen[b.DrvPath] = true
	}
	if s.schema.has("buildsteps", "drvpath") {
		rows, err := s.tx.Query(ctx, `
			select distinct drvpath from buildsteps where build = any($1::bigint[]) and type = 0 and drvpath is not null`, ids)
		if err != nil {
			return nil, err
		}
		var drv string
		if _, err := pgx.ForEachRow(rows, []any{&drv}, func() error {
			// A step with an odd derivation has no log that could be found.
			if p, err := storepath.ParseIn(storeDir, drv); err == nil && p.IsDerivation() {
				seen[p] = true
			}
			return nil
		}); err != nil {
			return nil, err
		}
	}
	return sortedKeys(seen), nil
}
