package hydra

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// A target is a Hydra's tables, to be written to in one transaction.
type target struct {
	tx      pgx.Tx
	schema  schema
	columns map[string]map[string]targetColumn // by table
}

type targetColumn struct {
	kind     string // type
	required bool   // there must be a value, and there is no default
	sequence string // where a new value comes from, "" if from nowhere
}

// jobsTable is what schemas up to 66 have beside the tables that are read.
const jobsTable = "jobs"

// readTarget asks the system catalogue.
func readTarget(ctx context.Context, tx pgx.Tx) (*target, error) {
	t := &target{tx: tx, columns: make(map[string]map[string]targetColumn)}
	var err error
	if t.schema, err = readSchema(ctx, tx); err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, `
		select c.relname::text, a.attname::text, pg_catalog.format_type(a.atttypid, null), a.attnotnull and d.adbin is null,
		       coalesce(substring(pg_catalog.pg_get_expr(d.adbin, d.adrelid) from 'nextval\(''([^'']+)'''), '')
		from pg_catalog.pg_class c join pg_catalog.pg_attribute a on a.attrelid = c.oid
		left join pg_catalog.pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
		where c.relkind in ('r', 'p') and pg_catalog.pg_table_is_visible(c.oid) and a.attnum > 0 and not a.attisdropped
		  and c.relname = any($1::text[])`, append(tableNames(), jobsTable))
	if err != nil {
		return nil, err
	}
	var table, name string
	var c targetColumn
	_, err = pgx.ForEachRow(rows, []any{&table, &name, &c.kind, &c.required, &c.sequence}, func() error {
		if t.columns[table] == nil {
			t.columns[table] = make(map[string]targetColumn)
		}
		t.columns[table][name] = c
		return nil
	})
	return t, err
}

func (t *target) has(table, column string) bool {
	_, there := t.columns[table][column]
	return there
}

// lock keeps everybody else from writing to the tables, so that ids that are
// free stay free. Readers are not disturbed.
func (t *target) lock(ctx context.Context) error {
	if _, err := t.tx.Exec(ctx, "set local lock_timeout = '"+lockTimeout+"'"); err != nil {
		return err
	}
	var names []string
	for table := range t.columns {
		if table != "schemaversion" {
			names = append(names, pgx.Identifier{table}.Sanitize())
		}
	}
	slices.Sort(names)
	_, err := t.tx.Exec(ctx, "lock table "+strings.Join(names, ", ")+" in share row exclusive mode")
	return err
}

// zero is what stands in for a value that a table asks for and a row has not.
func (c targetColumn) zero() json.RawMessage {
	switch c.kind {
	case "text":
		return json.RawMessage(`""`)
	case "boolean":
		return json.RawMessage("false")
	}
	return json.RawMessage("0")
}

// insert inserts rows, their columns that the table has; rows whose key is there
// already are passed over. It returns how many were inserted. PostgreSQL itself
// reads the JSON, so every type of column is right.
func (t *target) insert(ctx context.Context, table string, rows []row) (int, error) {
	known := t.columns[table]
	if len(rows) == 0 || len(known) == 0 {
		return 0, nil
	}
	used := make(map[string]bool)
	for _, r := range rows {
		for column := range r {
			used[column] = true
		}
	}
	var columns []string
	for name, c := range known {
		if c.required {
			for _, r := range rows {
				if !r.has(name) {
					r[name] = c.zero()
				}
			}
		}
		if used[name] || c.required {
			columns = append(columns, pgx.Identifier{name}.Sanitize())
		}
	}
	text, err := json.Marshal(rows)
	if err != nil {
		return 0, err
	}
	slices.Sort(columns)
	list := strings.Join(columns, ", ")
	tag, err := t.tx.Exec(ctx, fmt.Sprintf("insert into %s (%s) select %s from json_populate_recordset(null::%[1]s, $1::json) on conflict do nothing",
		pgx.Identifier{table}.Sanitize(), list, list), string(text))
	if err != nil {
		return 0, fmt.Errorf("insert into table %s: %w", table, explain(err))
	}
	return int(tag.RowsAffected()), nil
}

// ids gives out ids of a table.
type ids struct {
	taken map[int64]bool
	last  int64 // all that are higher are free
}

// freeIDs prepares to give out ids, if possible those that are wanted.
func (t *target) freeIDs(ctx context.Context, table string, wanted []int64) (*ids, error) {
	g := &ids{taken: make(map[int64]bool)}
	rows, err := t.tx.Query(ctx, "select id::bigint from "+table+" where id = any($1::bigint[])", wanted)
	if err != nil {
		return nil, err
	}
	taken, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, err
	}
	for _, id := range taken {
		g.taken[id] = true
	}
	last, err := t.last(ctx, table)
	if err != nil {
		return nil, err
	}
	g.last = last
	for _, id := range wanted {
		g.last = max(g.last, id)
	}
	return g, nil
}

// take returns an id: the one that is wanted, if it is free; 0 wants none.
func (g *ids) take(wanted int64) int64 {
	if wanted > 0 && !g.taken[wanted] {
		g.taken[wanted] = true
		return wanted
	}
	g.last++
	return g.last
}

// last returns the highest id that a table has had.
func (t *target) last(ctx context.Context, table string) (int64, error) {
	var last int64
	if err := t.tx.QueryRow(ctx, "select coalesce(max(id), 0)::bigint from "+table).Scan(&last); err != nil {
		return 0, err
	}
	sequence := t.columns[table]["id"].sequence
	if sequence == "" {
		return last, nil
	}
	var given int64
	err := t.tx.QueryRow(ctx, "select case when is_called then last_value else last_value - 1 end from "+sequence).Scan(&given)
	return max(last, given), err
}

// advance lets the sequences of ids go on behind what was inserted. PostgreSQL
// does not undo it when the transaction fails, which only leaves a gap.
func (t *target) advance(ctx context.Context) error {
	for table, columns := range t.columns {
		sequence := columns["id"].sequence
		if sequence == "" {
			continue
		}
		last, err := t.last(ctx, table)
		if err != nil {
			return err
		}
		_, err = t.tx.Exec(ctx, "select setval($1::regclass, $2) from "+sequence+" where last_value < $2 or not is_called and last_value = $2", sequence, last)
		if err != nil {
			return err
		}
	}
	return nil
}
