package hydra

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"
)

// RestoreOptions say how rows are restored. The zero value restores them.
type RestoreOptions struct {
	// DryRun finds out what would be done, and undoes it.
	DryRun bool
}

// A Restored says what Restore did, or with DryRun would do. Ids are by those
// that the rows have.
type Restored struct {
	Database    string          `json:"database"`
	Schema      int             `json:"schemaVersion"` // of its tables
	DryRun      bool            `json:"dryRun,omitempty"`
	Tables      map[string]int  `json:"tables"`      // rows inserted
	Kept        int             `json:"kept"`        // builds that were there, and are marked to be kept now
	Builds      map[int64]int64 `json:"builds"`      // which build each one is there
	Evaluations map[int64]int64 `json:"evaluations"` // the same
	Lost        []string        `json:"lost"`        // tables, and columns as table.column, that this Hydra has no place for
}

// Changed reports whether anything was, or would be.
func (r *Restored) Changed() bool { return len(r.Tables)+r.Kept > 0 }

// Restore puts the rows of a release into a Hydra's database, of whatever schema
// version that is, in one transaction. What is there already stays as it is, so
// that restoring again changes nothing: a build is taken for the same if its
// jobset, job, derivation and times are. Ids are kept where they are free, and
// exchanged where they are taken.
//
// Hydra does nothing on its own with what is restored: builds are finished, and
// marked to be kept, new jobsets are disabled, nobody is mailed. A user who owns
// a project and is not there yet gets no password.
func Restore(ctx context.Context, database string, rows Rows, o RestoreOptions) (*Restored, error) {
	out, err := restore(ctx, database, rows, o)
	if err != nil {
		return nil, fmt.Errorf("restore rows: %w", err)
	}
	return out, nil
}

func restore(ctx context.Context, database string, rows Rows, o RestoreOptions) (*Restored, error) {
	in, err := parseRows(rows)
	if err != nil {
		return nil, err
	}
	conn, where, err := connect(ctx, database)
	if err != nil {
		return nil, err
	}
	defer closeConn(conn)
	// Whatever the role's default is: what is read after the tables are locked must
	// be what they hold then.
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadWrite})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", where, explain(err))
	}
	t, err := readTarget(ctx, tx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", where, explain(err))
	}
	r := newRestoring(t, in)
	r.out.Database, r.out.DryRun = conn.Config().Database, o.DryRun
	if err := r.run(ctx); err != nil {
		return nil, fmt.Errorf("%s: %w", where, adviseRestore(explain(err)))
	}
	if o.DryRun {
		err = tx.Rollback(ctx)
	} else if err = t.advance(ctx); err == nil {
		err = tx.Commit(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", where, explain(err))
	}
	return r.out, nil
}

// adviseRestore adds what can be done about an error that only writers meet.
func adviseRestore(err error) error {
	var server *ServerError
	switch {
	case !errors.As(err, &server):
	case server.Code == "42501":
		return fmt.Errorf("%w; to restore, it takes the role that owns the tables", err)
	case server.Code == "55P03":
		return fmt.Errorf("%w: somebody writes to the database all the time: stop Hydra's services, or try again later", err)
	}
	return err
}

// A restoring is one run of Restore.
type restoring struct {
	*target
	in       *rowSet
	out      *Restored
	jobsetOf func(row) (jobsetName, error)
	builds   map[int64]row // by the id in the rows

	jobsets   map[jobsetName]int64 // of the target; 0 where jobsets have no ids
	newJobset map[jobsetName]bool
	newBuild  map[int64]bool // by the id in the rows
	newEval   map[int64]bool
	lost      map[string]bool
}

func newRestoring(t *target, in *rowSet) *restoring {
	builds := make(map[int64]row, len(in.Tables["builds"]))
	for _, b := range in.Tables["builds"] {
		builds[b.number("id")] = b
	}
	return &restoring{
		target: t, in: in, builds: builds, jobsetOf: in.jobsetNames(), jobsets: make(map[jobsetName]int64),
		newJobset: make(map[jobsetName]bool), newBuild: make(map[int64]bool), newEval: make(map[int64]bool), lost: make(map[string]bool),
		out: &Restored{Schema: t.schema.version, Tables: make(map[string]int), Builds: make(map[int64]int64), Evaluations: make(map[int64]int64)},
	}
}

// run restores table by table, each after those that it refers to.
func (r *restoring) run(ctx context.Context) error {
	if err := noTimeouts(ctx, r.tx); err != nil {
		return err
	}
	if err := r.lock(ctx); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{
		r.putUsers, r.putProjects, r.putJobsets, r.putBuilds, r.putOfBuilds, r.putEvaluations, r.putOfEvaluations, r.putReleases,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	r.out.Lost = slices.Sorted(maps.Keys(r.lost))
	return nil
}

// moved are columns that other columns stand for in other versions, and what
// restoring sets itself.
var moved = map[string][]string{
	"jobsets":     {"id"},
	"builds":      {"project", "jobset", "jobset_id", "nixexprinput", "nixexprpath"},
	"jobsetevals": {"project", "jobset", "jobset_id", "nixexprinput", "nixexprpath", "errormsg", "errortime", "evaluationerror_id"},
}

// put inserts rows, and notes what the target has no place for.
func (r *restoring) put(ctx context.Context, table string, rows []row) error {
	for _, one := range rows {
		for column := range one {
			if !r.has(table, column) && one.means(column) && !slices.Contains(moved[table], column) {
				r.lose(table, column)
			}
		}
	}
	n, err := r.insert(ctx, table, rows)
	if n > 0 {
		r.out.Tables[table] += n
	}
	return err
}

func (r *restoring) lose(table, column string) {
	if len(r.columns[table]) == 0 {
		r.lost[table] = true
		return
	}
	r.lost[table+"."+column] = true
}

// noPassword is what no password has as its hash.
const noPassword = "!"

func (r *restoring) putUsers(ctx context.Context) error {
	for _, one := range r.in.Tables["users"] {
		one.setText("password", noPassword)
	}
	return r.put(ctx, "users", r.in.Tables["users"])
}

func (r *restoring) putProjects(ctx context.Context) error {
	return r.put(ctx, "projects", r.in.Tables["projects"])
}

// putJobsets inserts the jobsets that are not there, disabled, and their inputs.
func (r *restoring) putJobsets(ctx context.Context) error {
	if err := r.readJobsets(ctx); err != nil {
		return err
	}
	var missing []row
	var wanted []int64
	for _, one := range r.in.Tables["jobsets"] {
		name := jobsetName{one.text("project"), one.text("name")}
		if _, there := r.jobsets[name]; there || r.newJobset[name] {
			continue
		}
		r.newJobset[name] = true
		one["enabled"] = []byte("0")
		missing = append(missing, one)
		wanted = append(wanted, one.number("id"))
	}
	if err := r.nameJobsets(ctx, missing, wanted); err != nil {
		return err
	}
	if err := r.put(ctx, "jobsets", missing); err != nil {
		return err
	}
	for _, table := range []string{"jobsetinputs", "jobsetinputalts"} {
		rows := slices.DeleteFunc(slices.Clone(r.in.Tables[table]), func(one row) bool {
			return !r.newJobset[jobsetName{one.text("project"), one.text("jobset")}]
		})
		if err := r.put(ctx, table, rows); err != nil {
			return err
		}
	}
	return nil
}

// readJobsets reads the jobsets that are there.
func (r *restoring) readJobsets(ctx context.Context) error {
	id := "0"
	if r.has("jobsets", "id") {
		id = "id"
	}
	rows, err := r.tx.Query(ctx, "select project, name, "+id+"::bigint from jobsets")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var name jobsetName
		var id int64
		if err := rows.Scan(&name.project, &name.name, &id); err != nil {
			return err
		}
		r.jobsets[name] = id
	}
	return rows.Err()
}

// nameJobsets gives new jobsets their ids.
func (r *restoring) nameJobsets(ctx context.Context, missing []row, wanted []int64) error {
	if !r.has("jobsets", "id") {
		for _, one := range missing {
			r.jobsets[jobsetName{one.text("project"), one.text("name")}] = 0
		}
		return nil
	}
	free, err := r.freeIDs(ctx, "jobsets", wanted)
	if err != nil {
		return err
	}
	for _, one := range missing {
		id := free.take(one.number("id"))
		one.setNumber("id", id)
		r.jobsets[jobsetName{one.text("project"), one.text("name")}] = id
	}
	return nil
}

// setJobset says in a row to which jobset it belongs, in every way.
func (r *restoring) setJobset(one row) (jobsetName, error) {
	name, err := r.jobsetOf(one)
	if err != nil {
		return name, err
	}
	id, there := r.jobsets[name]
	if !there {
		return name, fmt.Errorf("%w: one belongs to the jobset %s, which is not among them", ErrRows, name)
	}
	one.setText("project", name.project)
	one.setText("jobset", name.name)
	one.setNumber("jobset_id", id)
	return name, nil
}
