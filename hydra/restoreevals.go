package hydra

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// An evalKey is what makes two evaluations the same, whatever their ids are.
type evalKey struct {
	jobset    jobsetName
	timestamp int64
	hash      string
}

// putEvaluations inserts the evaluations that are not there.
func (r *restoring) putEvaluations(ctx context.Context) error {
	rows := r.in.Tables["jobsetevals"]
	keys := make([]evalKey, len(rows))
	times, wanted := make([]int64, len(rows)), make([]int64, len(rows))
	for i, one := range rows {
		name, err := r.setJobset(one)
		if err != nil {
			return err
		}
		keys[i] = evalKey{name, one.number("timestamp"), one.text("hash")}
		times[i], wanted[i] = keys[i].timestamp, one.number("id")
	}
	there, err := r.sameEvaluations(ctx, times)
	if err != nil {
		return err
	}
	free, err := r.freeIDs(ctx, "jobsetevals", wanted)
	if err != nil {
		return err
	}
	var missing []row
	for i, one := range rows {
		old := wanted[i]
		if same := there[keys[i]]; len(same) > 0 {
			id := choose(same, old)
			there[keys[i]] = slices.DeleteFunc(same, func(n int64) bool { return n == id })
			r.out.Evaluations[old] = id
			continue
		}
		id := free.take(old)
		r.out.Evaluations[old], r.newEval[old] = id, true
		r.describeEvaluation(one)
		one.setNumber("id", id)
		one["hasnewbuilds"] = json.RawMessage("1") // without, Hydra does not show it
		missing = append(missing, one)
	}
	if err := r.putErrors(ctx, missing); err != nil {
		return err
	}
	return r.put(ctx, "jobsetevals", missing)
}

func (r *restoring) sameEvaluations(ctx context.Context, times []int64) (map[evalKey][]int64, error) {
	join, project, jobset := r.schema.jobsetOf("jobsetevals")
	rows, err := r.tx.Query(ctx, fmt.Sprintf(`
		select x.id::bigint, %s, %s, x.timestamp::bigint, x.hash
		from jobsetevals x %s where x.timestamp = any($1::bigint[]) order by x.id`, project, jobset, join), times)
	if err != nil {
		return nil, err
	}
	there := make(map[evalKey][]int64)
	var id int64
	var k evalKey
	_, err = pgx.ForEachRow(rows, []any{&id, &k.jobset.project, &k.jobset.name, &k.timestamp, &k.hash}, func() error {
		there[k] = append(there[k], id)
		return nil
	})
	return there, err
}

// describeEvaluation says in an evaluation from which Nix expression it is,
// which builds said up to version 70, and the error, which has a table of its own
// from version 73 on.
func (r *restoring) describeEvaluation(eval row) {
	id := eval.number("id")
	for _, m := range r.in.Tables["jobsetevalmembers"] {
		if m.number("eval") == id {
			eval.take("nixexprinput", r.builds[m.number("build")])
			eval.take("nixexprpath", r.builds[m.number("build")])
			break
		}
	}
	for _, e := range r.in.Tables["evaluationerrors"] {
		if e.number("id") == eval.number("evaluationerror_id") {
			eval.take("errormsg", e)
			eval.take("errortime", e)
		}
	}
}

// putErrors inserts the errors of evaluations, where they have a table.
func (r *restoring) putErrors(ctx context.Context, evals []row) error {
	const table = "evaluationerrors"
	var errs, failed []row
	for _, e := range evals {
		if e.has("errormsg") || e.has("errortime") {
			errs = append(errs, row{"errormsg": e["errormsg"], "errortime": e["errortime"], "id": e["evaluationerror_id"]})
			failed = append(failed, e)
		}
		e.setNumber("evaluationerror_id", 0) // there, it may be another's
	}
	if len(errs) == 0 || !r.has(table, "id") {
		if len(errs) > 0 && !r.has("jobsetevals", "errormsg") {
			r.lose(table, "errormsg")
		}
		return nil
	}
	if err := r.renumber(ctx, table, errs); err != nil {
		return err
	}
	for i, e := range failed {
		e["evaluationerror_id"] = errs[i]["id"]
	}
	return r.put(ctx, table, errs)
}

// putOfEvaluations inserts what belongs to new evaluations, and the builds of
// all.
func (r *restoring) putOfEvaluations(ctx context.Context) error {
	inputs := r.ofNew("jobsetevalinputs", "eval", r.newEval)
	for _, one := range inputs {
		one.setNumber("eval", r.out.Evaluations[one.number("eval")])
		r.refer(one, "dependency")
	}
	if err := r.put(ctx, "jobsetevalinputs", inputs); err != nil {
		return err
	}
	members := r.in.Tables["jobsetevalmembers"]
	for _, one := range members {
		one.setNumber("eval", r.out.Evaluations[one.number("eval")])
		r.refer(one, "build")
	}
	return r.put(ctx, "jobsetevalmembers", members)
}

// putReleases inserts a release of Hydra's own tables, where there are some.
func (r *restoring) putReleases(ctx context.Context) error {
	if err := r.put(ctx, "releases", r.in.Tables["releases"]); err != nil {
		return err
	}
	members := r.in.Tables["releasemembers"]
	for _, one := range members {
		r.refer(one, "build")
	}
	return r.put(ctx, "releasemembers", members)
}
