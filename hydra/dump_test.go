package hydra_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/narvault/narvault/hydra"
	"github.com/narvault/narvault/hydra/hydratest"
	"github.com/narvault/narvault/narread/testenv"
)

// dumped returns a dump of a database and what it says of itself.
func dumped(t *testing.T, url string) (string, *hydra.DumpInfo) {
	t.Helper()
	var b bytes.Buffer
	info, err := hydra.Dump(t.Context(), url, &b, nil)
	if err != nil {
		t.Fatal(err)
	}
	return b.String(), info
}

// content returns all rows of a database, by table, as PostgreSQL writes them.
func content(t *testing.T, db *hydratest.DB) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, table := range db.Tables() {
		all[table] = strings.Join(db.Rows(table), "\n")
	}
	return all
}

func sameContent(t *testing.T, got, want map[string]string) {
	t.Helper()
	for table, rows := range want {
		if got[table] != rows {
			t.Errorf("table %s has\n%s\nwant\n%s", table, got[table], rows)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d tables, want %d", len(got), len(want))
	}
}

// TestDumpAndLoad takes a database of each shape through a dump, and compares
// row by row. What is written after the dump began is not in it.
func TestDumpAndLoad(t *testing.T) {
	forShapes(t, func(t *testing.T, s *scene, shape string) {
		s.Exec("update projects set description = E'f\u00fcr alle\\n\\\\.\\nGRANT x;\\t' where name = 'disnix'")
		want := content(t, s.DB)
		text, info := dumped(t, s.URL)
		version, _, _ := strings.Cut(shape, "-")
		if info.Database != s.Name || fmt.Sprint(info.Schema) != version || info.Tables["public.builds"] != 5 || info.Server == "" {
			t.Errorf("the dump is of %+v", info)
		}
		target := hydratest.Empty(t)
		tables, err := hydra.Load(t.Context(), target.URL, strings.NewReader(text), hydra.LoadOptions{Tables: info.Tables})
		if err != nil {
			t.Fatal(err)
		}
		if err := hydra.CompareTables(tables, info.Tables); err != nil {
			t.Error(err)
		}
		sameContent(t, content(t, target), want)
		// Sequences go on where they were.
		target.AddProject("new")
	})
}

// TestDumpSystem tells databases of one name on different servers apart.
func TestDumpSystem(t *testing.T) {
	s := newScene(t, hydratest.Fresh)
	_, info := dumped(t, s.URL)
	if want := s.Strings("select system_identifier::text from pg_control_system()"); !slices.Equal(want, []string{info.System}) {
		t.Errorf("the server is %q, want %q", info.System, want)
	}
	for _, tt := range []struct {
		other hydra.DumpInfo
		want  bool
	}{
		{*info, true},
		{hydra.DumpInfo{Database: info.Database}, true}, // an older narvault did not say
		{hydra.DumpInfo{Database: info.Database, System: "7"}, false},
		{hydra.DumpInfo{Database: "other", System: info.System}, false},
	} {
		if info.Same(&tt.other) != tt.want {
			t.Errorf("%+v: same is %v", tt.other, !tt.want)
		}
	}
}

// TestDumpIsOfOneInstant writes to the database while it is being dumped.
func TestDumpIsOfOneInstant(t *testing.T) {
	s := newScene(t, hydratest.Fresh)
	want := content(t, s.DB)
	var b bytes.Buffer
	w := &onFirst{w: &b, do: func() {
		s.Exec("delete from jobsetevalmembers; insert into projects (name, displayname, owner) values ('late', '', 'eelco')")
	}}
	info, err := hydra.Dump(t.Context(), s.URL, w, nil)
	if err != nil {
		t.Fatal(err)
	}
	target := hydratest.Empty(t)
	if _, err := hydra.Load(t.Context(), target.URL, &b, hydra.LoadOptions{Tables: info.Tables}); err != nil {
		t.Fatal(err)
	}
	sameContent(t, content(t, target), want)
}

// onFirst does something before the first write.
type onFirst struct {
	w  io.Writer
	do func()
}

func (o *onFirst) Write(p []byte) (int, error) {
	if o.do != nil {
		o.do()
		o.do = nil
	}
	return o.w.Write(p)
}

// TestLoadBroken restores dumps that are not whole: nothing of them is there
// afterwards.
func TestLoadBroken(t *testing.T) {
	s := newScene(t, hydratest.Fresh)
	text, info := dumped(t, s.URL)
	inRows := strings.Index(text, "eelco@example.org")
	errMedium := errors.New("the medium is gone")
	tests := []struct {
		name string
		sql  io.Reader
		want string
	}{
		{"empty", strings.NewReader(""), "the dump is truncated"},
		{"in the rows of a table", strings.NewReader(text[:inRows+5]), "the dump is truncated"},
		{"after a statement", strings.NewReader(text[:strings.Index(text, "\n-- Name: builds;")]), "the dump is truncated"},
		{"without the mark", strings.NewReader(text[:strings.LastIndex(text, "-- PostgreSQL database dump complete")]), "the dump is truncated"},
		{"of the whole server", strings.NewReader(strings.Replace(text, "database dump complete", "database cluster dump complete", 1)), "the dump is truncated"},
		{"unreadable", io.MultiReader(strings.NewReader(text[:len(text)-50]), failing{errMedium}), "the medium is gone"},
		{"not SQL", strings.NewReader("\x7fELF\n-- PostgreSQL database dump complete\n--\n\n"), "psql: exit status 3: psql:<stdin>:"},
		{"wrong in the middle", strings.NewReader(strings.Replace(text, "ADD CONSTRAINT builds_pkey", "ADD CONSTRAINT builds_pkey CHECK (false), ADD CONSTRAINT b", 1)), `check constraint "builds_pkey"`},
		{"rows are missing", strings.NewReader(strings.Replace(text, "\neelco\t", "\n", 1)), "psql:<stdin>:"},
	}
	target := hydratest.Empty(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := hydra.Load(t.Context(), target.URL, tt.sql, hydra.LoadOptions{Tables: info.Tables})
			says(t, err, "restore database: ", target.Name, tt.want)
			if tables := target.Tables(); len(tables) > 0 {
				t.Errorf("there are %v", tables)
			}
		})
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestLoadNotEmpty refuses a database that is not empty, and replaces it when
// told, or leaves it when the dump is broken.
func TestLoadNotEmpty(t *testing.T) {
	source, target := newScene(t, hydratest.Fresh), newScene(t, hydratest.Upgraded)
	target.Exec(`create schema own; create table own.mine (x text); create type public.mood as enum ('ok');
		create function public.f() returns trigger language plpgsql as 'begin return new; end';
		create trigger t before insert on builds for each row execute function f(); create view v as select * from builds`)
	text, info := dumped(t, source.URL)
	before := content(t, target.DB)
	_, err := hydra.Load(t.Context(), target.URL, strings.NewReader(text), hydra.LoadOptions{})
	var notEmpty *hydra.NotEmptyError
	if !errors.As(err, &notEmpty) {
		t.Fatalf("the error is %v", err)
	}
	says(t, err, "it is not empty: it has own.mine, public.aggregateconstituents, public.buildinputs and 24 more", "--replace")
	sameContent(t, content(t, target.DB), before)

	_, err = hydra.Load(t.Context(), target.URL, strings.NewReader(text[:len(text)-200]), hydra.LoadOptions{Replace: true})
	says(t, err, "truncated")
	sameContent(t, content(t, target.DB), before)

	if _, err := hydra.Load(t.Context(), target.URL, strings.NewReader(text), hydra.LoadOptions{Replace: true, Tables: info.Tables}); err != nil {
		t.Fatal(err)
	}
	sameContent(t, content(t, target.DB), content(t, source.DB))
}

// TestLoadOthers restores dumps as other versions of pg_dump wrote them.
func TestLoadOthers(t *testing.T) {
	s := newScene(t, hydratest.Oldest)
	text, info := dumped(t, s.URL)
	old := "SET default_with_oids = false;\nSET transaction_timeout = 0;\n" + text
	tests := []struct{ name, text string }{
		{"2014", old},
		{"without protection", strings.ReplaceAll(strings.ReplaceAll(text, "\\restrict ", "-- "), "\\unrestrict ", "-- ")},
		{"DOS", strings.ReplaceAll(text, "dump complete\n--\n\n", "dump complete\r\n--\r\n\r\n")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text := tt.text
			if tt.name == "without protection" {
				text = text[:strings.LastIndex(text, "-- ")] // 2014's ended with the mark
			}
			target := hydratest.Empty(t)
			if _, err := hydra.Load(t.Context(), target.URL, strings.NewReader(text), hydra.LoadOptions{Tables: info.Tables}); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLoadFunctions restores functions with lines that look like statements of
// pg_dump's, which are left out where they are.
func TestLoadFunctions(t *testing.T) {
	source, target := newScene(t, hydratest.Fresh), hydratest.Empty(t)
	const body = "\nUPDATE builds\nSET keep = 1;\nSET transaction_timeout = 0;\nIF false THEN\nNULL;\nGRANT SELECT ON builds TO gone;\nEND IF;\n"
	source.Exec("create function rule() returns void language plpgsql as $$begin" + body + "end$$")
	text, info := dumped(t, source.URL)
	if _, err := hydra.Load(t.Context(), target.URL, strings.NewReader(text), hydra.LoadOptions{NoOwner: true, Tables: info.Tables}); err != nil {
		t.Fatal(err)
	}
	if got := target.Strings("select prosrc from pg_proc where proname = 'rule'"); !slices.Equal(got, []string{"begin" + body + "end"}) {
		t.Errorf("the function is %q", got)
	}
}

// TestLoadHostile restores a dump with commands of psql in it: they are not
// executed, wherever they are.
func TestLoadHostile(t *testing.T) {
	s := newScene(t, hydratest.Fresh)
	text, _ := dumped(t, s.URL)
	if !strings.Contains(text, "\\restrict ") {
		t.Skip("PostgreSQL's programs are older than August 2025")
	}
	touched := filepath.Join(t.TempDir(), "touched")
	target := hydratest.Empty(t)
	key, _, _ := strings.Cut(text[strings.Index(text, "\\restrict ")+len("\\restrict "):], "\n")
	for _, command := range []string{"\\! touch " + touched, "\\unrestrict " + key + "\n\\! touch " + touched, "SELECT 1 \\! touch " + touched, "\\o | touch " + touched} {
		hostile := strings.Replace(text, "\nCREATE TABLE ", "\n"+command+"\nCREATE TABLE ", 1)
		_, err := hydra.Load(t.Context(), target.URL, strings.NewReader(hostile), hydra.LoadOptions{})
		says(t, err, "somebody has tampered with this dump")
	}
	if _, err := os.Stat(touched); err == nil {
		t.Error("a command was executed")
	}
	if tables := target.Tables(); len(tables) > 0 {
		t.Errorf("there are %v", tables)
	}
}

// TestLoadOwners restores what belongs to a role that there is not.
func TestLoadOwners(t *testing.T) {
	s := newScene(t, hydratest.Fresh)
	s.Exec("grant select on builds to " + hydratest.Guarded)
	text, info := dumped(t, s.URL)
	text = strings.ReplaceAll(strings.ReplaceAll(text, "OWNER TO hydra;", "OWNER TO gone;"), "TO guarded;", "TO gone;")
	if !strings.Contains(text, "TO gone;") {
		t.Fatal("the dump has no owners")
	}
	target := hydratest.Empty(t)
	_, err := hydra.Load(t.Context(), target.URL, strings.NewReader(text), hydra.LoadOptions{})
	says(t, err, `role "gone" does not exist`, "--no-owner")
	_, err = hydra.Load(t.Context(), target.As(hydratest.Guarded, hydratest.Password), strings.NewReader(text), hydra.LoadOptions{NoOwner: true})
	says(t, err, "permission denied for schema public", "restore as the role that owns the database", "(the database is as it was)")
	if _, err := hydra.Load(t.Context(), target.URL, strings.NewReader(text), hydra.LoadOptions{NoOwner: true, Tables: info.Tables}); err != nil {
		t.Error(err)
	}
}

// TestVerify proves a dump in a scratch database, which goes in any case.
func TestVerify(t *testing.T) {
	s := newScene(t, hydratest.Fresh)
	text, info := dumped(t, s.URL)
	s.Exec("create database narvault_scratch_left")
	if err := hydra.Verify(t.Context(), s.URL, strings.NewReader(text), info.Tables, nil); err != nil {
		t.Error(err)
	}
	noScratch(t, s)

	wrong := map[string]int64{"public.gone": 1}
	for table, rows := range info.Tables {
		wrong[table] = rows
	}
	wrong["public.builds"]++
	err := hydra.Verify(t.Context(), s.URL, strings.NewReader(text), wrong, nil)
	says(t, err, "verify dump: ", "table public.builds has 5 rows instead of 6; table public.gone is missing")
	noScratch(t, s)

	says(t, hydra.Verify(t.Context(), s.URL, strings.NewReader(text[:len(text)/2]), info.Tables, nil), "truncated")
	noScratch(t, s)

	says(t, hydra.Verify(t.Context(), s.As(hydratest.Guarded, hydratest.Password), strings.NewReader(text), info.Tables, nil), "alter role ... createdb", "--scratch")

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	sql := io.MultiReader(strings.NewReader(text[:len(text)/2]), canceling{cancel}, strings.NewReader(text[len(text)/2:]))
	if err := hydra.Verify(ctx, s.URL, sql, info.Tables, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	noScratch(t, s)
}

// A canceling reader is empty, and cancels.
type canceling struct{ cancel func() }

func (c canceling) Read([]byte) (int, error) {
	c.cancel()
	return 0, io.EOF
}

func noScratch(t *testing.T, s *scene) {
	t.Helper()
	if names := s.Strings("select datname::text from pg_database where datname like 'narvault%'"); len(names) > 0 {
		t.Errorf("there are %v", names)
	}
}

// fakeDump writes a pg_dump of a version that does what the script says before
// it becomes the real one.
func fakeDump(t *testing.T, version, script string) []string {
	t.Helper()
	testenv.Need(t, "postgresql")
	real, err := testenv.PostgreSQL("pg_dump")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	text := fmt.Sprintf("#!/bin/sh\nif [ \"$1\" = --version ]; then echo 'pg_dump (PostgreSQL) %s'; exit; fi\nreal=%s\n%s\n", version, realProgram(t, real), script)
	if err := os.WriteFile(filepath.Join(dir, "pg_dump"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return []string{dir}
}

// realProgram resolves Debian's wrapper.
func realProgram(t *testing.T, path string) string {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + filepath.Base(path))
	if err != nil {
		t.Fatal(err)
	}
	if len(found) > 0 {
		return found[len(found)-1]
	}
	return path
}

// TestDumpErrors dumps with a pg_dump that is missing, too old, or fails.
func TestDumpErrors(t *testing.T) {
	s := newScene(t, hydratest.Fresh)
	tests := []struct {
		name, url string
		programs  []string
		want      []string
	}{
		{"missing", s.URL, []string{t.TempDir()}, []string{"pg_dump is not in " + os.TempDir(), "Debian: postgresql-client"}},
		{"too old", s.URL, fakeDump(t, "9.6.24", `exec "$real" "$@"`), []string{"and the newest pg_dump here is 9.6.24", "install that of version", "postgresql-client-"}},
		{"fails", s.URL, fakeDump(t, "99.1", `"$real" "$@"; echo "pg_dump: error: query failed" >&2; exit 1`), []string{"pg_dump: exit status 1: error: query failed"}},
		{"killed", s.URL, fakeDump(t, "99.1", `"$real" "$@" | head -c 2000; kill -9 $$`), []string{"pg_dump: signal: killed"}},
		{"ends early", s.URL, fakeDump(t, "99.1", `"$real" "$@" | head -c 2000; exit 0`), []string{"the dump is truncated: it does not end with pg_dump's mark"}},
		{"silent", s.URL, fakeDump(t, "99.1", `exit 0`), []string{"the dump is truncated"}},
		{"wrong password", s.As(hydratest.Guarded, "wrong"), nil, []string{"password authentication failed", "check the password"}},
		{"may not read", s.As(hydratest.Guarded, hydratest.Password), nil, []string{"permission denied"}},
		{"no server", "postgres:///hydra?host=/nonexistent", nil, []string{"is the server there"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := hydra.Dump(t.Context(), tt.url, io.Discard, tt.programs)
			says(t, err, append(tt.want, "dump database: ")...)
			if strings.Contains(fmt.Sprint(err), "wrong") && !strings.Contains(tt.name, "wrong") {
				t.Errorf("the error says the password: %v", err)
			}
		})
	}
}

// TestDumpPassword looks for the password on the command line of pg_dump, which
// it gets all the same.
func TestDumpPassword(t *testing.T) {
	s := newScene(t, hydratest.Fresh)
	s.Exec("grant select on all tables in schema public to " + hydratest.Guarded)
	s.Exec("grant select on all sequences in schema public to " + hydratest.Guarded)
	seen := filepath.Join(t.TempDir(), "seen")
	programs := fakeDump(t, "99.1", `echo "$@" > `+seen+`; exec "$real" "$@"`)
	for _, url := range []string{
		s.As(hydratest.Guarded, hydratest.Password),
		"dbi:Pg:dbname=" + s.Name + ";host=" + s.Host + ";user=" + hydratest.Guarded + ";password=" + hydratest.Password,
		"host=" + s.Host + " dbname='" + s.Name + "' password = '" + hydratest.Password + "' user=" + hydratest.Guarded,
	} {
		if _, err := hydra.Dump(t.Context(), url, io.Discard, programs); err != nil {
			t.Error(err)
		}
		args, err := os.ReadFile(seen)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(args), "user='guarded'") || strings.Contains(string(args), hydratest.Password) {
			t.Errorf("pg_dump got %s", args)
		}
	}
}

// TestDumpStops ends when its writer fails, and when it is interrupted.
func TestDumpStops(t *testing.T) {
	s := newScene(t, hydratest.Fresh)
	_, err := hydra.Dump(t.Context(), s.URL, full{}, nil)
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("the error is %v", err)
	}
	says(t, err, "write the dump: no space left on device")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	start := time.Now()
	_, err = hydra.Dump(ctx, s.URL, &onFirst{w: io.Discard, do: cancel}, fakeDump(t, "99.1", `"$real" "$@"; exec sleep 100`))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	if took := time.Since(start); took > 50*time.Second {
		t.Errorf("it took %v to end", took)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }
