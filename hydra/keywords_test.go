package hydra

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// TestKeywords takes apart names of databases: what is put together again means
// the same to pgx, and nothing of a password is on a command line.
func TestKeywords(t *testing.T) {
	t.Setenv("PGHOST", "env.example.org")
	t.Setenv("PGPASSWORD", "")
	for _, database := range []string{
		"dbi:Pg:dbname=hydra;host=localhost;user=hydra;",
		`dbi:Pg:dbname=h;password=it's a \ one`,
		`dbi:Pg:dbname='semi;colon \'x\\';host=h;password=s3cret`,
		"postgres://me:pw%40s3cret@db.example.org:77/x?sslmode=disable",
		"postgresql:///x?host=/run/postgresql&user=u&password=s3cret",
		"postgres://[::1]:5433/x",
		"postgres://a.example.org:1,b.example.org:2/x",
		"postgres://h/d%20b?application_name=a%26b",
		"host=h dbname = x user='u u' password='s3\\'cret'",
		"host=h\n dbname=x password=s3cr\\'et port=77",
		"",
	} {
		t.Run(database, func(t *testing.T) {
			text := database
			if strings.HasPrefix(database, "dbi:") {
				var err error
				if text, err = dsn(database); err != nil {
					t.Fatal(err)
				}
			}
			k, err := parseKeywords(text)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := meaning(t, k.String()), meaning(t, text); got != want {
				t.Errorf("%s means\n%s\nwant\n%s", k, got, want)
			}
			if got, want := meaning(t, k.with("dbname", "o'ther").String()), strings.Replace(meaning(t, text), meaningOfName(t, text), `"o'ther"`, 1); got != want {
				t.Errorf("of another database it means\n%s\nwant\n%s", got, want)
			}
			conninfo, env, err := k.forProgram()
			if err != nil || strings.Contains(conninfo, "cret") || strings.Contains(conninfo, "password") {
				t.Errorf("the command line is %s, %v", conninfo, err)
			}
			want := "PGPASSWORD=" + config(t, text).Password
			if !slices.Contains(env, want) {
				t.Errorf("%s is not in the environment", want)
			}
		})
	}
}

func config(t *testing.T, text string) *pgx.ConnConfig {
	t.Helper()
	c, err := pgx.ParseConfig(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// meaning is what pgx makes of the name of a database.
func meaning(t *testing.T, text string) string {
	c := config(t, text)
	s := fmt.Sprintf("%q %q %d %q %q %v %v", c.Database, c.Host, c.Port, c.User, c.Password, c.TLSConfig != nil, c.RuntimeParams)
	for _, f := range c.Fallbacks {
		s += fmt.Sprintf(" %q %d %v", f.Host, f.Port, f.TLSConfig != nil)
	}
	return s
}

func meaningOfName(t *testing.T, text string) string {
	return fmt.Sprintf("%q", config(t, text).Database)
}

// TestKeywordsErrors never quotes what may be a password.
func TestKeywordsErrors(t *testing.T) {
	for _, text := range []string{"host=h s3cret", "password='s3cret", "s3cret", "postgres://u:s3cret%zz@h/d", "postgres://h/d?password=%zzs3cret"} {
		if _, err := parseKeywords(text); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", text, err)
		}
	}
	k, err := parseKeywords("host=h sslpassword=s3cret")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := k.forProgram(); err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("sslpassword: %v", err)
	}
}
