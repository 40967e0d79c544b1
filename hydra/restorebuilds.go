package hydra

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// A buildKey is what makes two builds the same, whatever their ids are.
type buildKey struct {
	jobset                 jobsetName
	job, system, drvPath   string
	timestamp, start, stop int64
}

// putBuilds inserts the builds that are not there, and marks those that are to be
// kept.
func (r *restoring) putBuilds(ctx context.Context) error {
	rows := r.in.Tables["builds"]
	keys := make([]buildKey, len(rows))
	drvs, wanted := make([]string, len(rows)), make([]int64, len(rows))
	for i, one := range rows {
		name, err := r.setJobset(one)
		if err != nil {
			return err
		}
		if one.number("id") <= 0 {
			return fmt.Errorf("%w: a build has no id", ErrRows)
		}
		keys[i] = buildKey{name, one.text("job"), one.text("system"), one.text("drvpath"), one.number("timestamp"), one.number("starttime"), one.number("stoptime")}
		drvs[i], wanted[i] = keys[i].drvPath, one.number("id")
	}
	there, err := r.sameBuilds(ctx, drvs)
	if err != nil {
		return err
	}
	free, err := r.freeIDs(ctx, "builds", wanted)
	if err != nil {
		return err
	}
	var missing []row
	var present []int64
	for i, one := range rows {
		old := wanted[i]
		if same := there[keys[i]]; len(same) > 0 {
			id := choose(same, old)
			there[keys[i]] = slices.DeleteFunc(same, func(n int64) bool { return n == id })
			r.out.Builds[old] = id
			present = append(present, id)
			continue
		}
		id := free.take(old)
		r.out.Builds[old], r.newBuild[old] = id, true
		one.setNumber("id", id)
		missing = append(missing, one)
	}
	for _, one := range missing {
		finish(one)
	}
	r.nameExpressions()
	if err := r.putJobs(ctx, missing); err != nil {
		return err
	}
	if err := r.put(ctx, "builds", missing); err != nil {
		return err
	}
	tag, err := r.tx.Exec(ctx, "update builds set keep = 1 where id = any($1::bigint[]) and keep <> 1", present)
	r.out.Kept = int(tag.RowsAffected())
	return err
}

// choose returns the id that is wanted, if it is among those, or else the first.
func choose(ids []int64, wanted int64) int64 {
	if slices.Contains(ids, wanted) {
		return wanted
	}
	return ids[0]
}

// finish sets what keeps Hydra from building, mailing about and collecting a
// build.
func finish(build row) {
	build["finished"], build["keep"], build["iscurrent"] = json.RawMessage("1"), json.RawMessage("1"), json.RawMessage("0")
	build.setNumber("notificationpendingsince", 0)
	rest(build)
}

// rest says of a build or a step that nobody is at work on it. (The column was
// among the rows of steps once.)
func rest(one row) { one["busy"] = json.RawMessage("0") }

// sameBuilds returns the finished builds of derivations that are there.
func (r *restoring) sameBuilds(ctx context.Context, drvs []string) (map[buildKey][]int64, error) {
	join, project, jobset := r.schema.jobsetOf("builds")
	rows, err := r.tx.Query(ctx, fmt.Sprintf(`
		select x.id::bigint, %s, %s, x.job, x.system, x.drvpath, x.timestamp::bigint, coalesce(x.starttime, 0)::bigint, coalesce(x.stoptime, 0)::bigint
		from builds x %s where x.drvpath = any($1::text[]) and x.finished = 1 order by x.id`, project, jobset, join), drvs)
	if err != nil {
		return nil, err
	}
	there := make(map[buildKey][]int64)
	var id int64
	var k buildKey
	_, err = pgx.ForEachRow(rows, []any{&id, &k.jobset.project, &k.jobset.name, &k.job, &k.system, &k.drvPath, &k.timestamp, &k.start, &k.stop}, func() error {
		there[k] = append(there[k], id)
		return nil
	})
	return there, err
}

// nameExpressions says in builds from which Nix expression they are, which
// evaluations say from version 71 on.
func (r *restoring) nameExpressions() {
	evals := make(map[int64]row)
	for _, e := range r.in.Tables["jobsetevals"] {
		evals[e.number("id")] = e
	}
	for _, m := range r.in.Tables["jobsetevalmembers"] {
		if b := r.builds[m.number("build")]; b != nil {
			b.take("nixexprinput", evals[m.number("eval")])
			b.take("nixexprpath", evals[m.number("eval")])
		}
	}
}

// putJobs inserts the jobs of builds, which only old versions have a table for.
func (r *restoring) putJobs(ctx context.Context, builds []row) error {
	var jobs []row
	for _, b := range builds {
		jobs = append(jobs, row{"project": b["project"], "jobset": b["jobset"], "jobset_id": b["jobset_id"], "name": b["job"]})
	}
	_, err := r.insert(ctx, jobsTable, jobs)
	return err
}

// putOfBuilds inserts what belongs to new builds.
func (r *restoring) putOfBuilds(ctx context.Context) error {
	for _, table := range []string{"buildoutputs", "buildsteps", "buildstepoutputs", "buildinputs", "buildproducts", "buildmetrics"} {
		rows := r.ofNew(table, "build", r.newBuild)
		for _, one := range rows {
			one.setNumber("build", r.out.Builds[one.number("build")])
			r.refer(one, "propagatedfrom", "dependency")
			if table == "buildsteps" {
				rest(one)
			}
		}
		if table == "buildinputs" {
			if err := r.renumber(ctx, table, rows); err != nil {
				return err
			}
		}
		if err := r.put(ctx, table, rows); err != nil {
			return err
		}
	}
	for _, one := range r.in.Tables["aggregateconstituents"] {
		r.refer(one, "aggregate", "constituent")
	}
	return r.put(ctx, "aggregateconstituents", r.in.Tables["aggregateconstituents"])
}

// ofNew returns the rows of a table that belong to new ones.
func (r *restoring) ofNew(table, column string, isNew map[int64]bool) []row {
	return slices.DeleteFunc(slices.Clone(r.in.Tables[table]), func(one row) bool { return !isNew[one.number(column)] })
}

// refer translates references to builds; those to builds that are not of the
// release become null.
func (r *restoring) refer(one row, columns ...string) {
	for _, column := range columns {
		if one.has(column) {
			one.setNumber(column, r.out.Builds[one.number(column)])
		}
	}
}

// renumber gives rows that nothing refers to ids that are free.
func (r *restoring) renumber(ctx context.Context, table string, rows []row) error {
	if len(rows) == 0 || !r.has(table, "id") {
		return nil
	}
	wanted := make([]int64, len(rows))
	for i, one := range rows {
		wanted[i] = one.number("id")
	}
	free, err := r.freeIDs(ctx, table, wanted)
	if err != nil {
		return err
	}
	for i, one := range rows {
		one.setNumber("id", free.take(wanted[i]))
	}
	return nil
}
