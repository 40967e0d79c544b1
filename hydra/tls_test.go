package hydra_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/narvault/narvault/hydra"
	"github.com/narvault/narvault/hydra/hydratest"
)

// TestTLS connects to a server that talks TLS only, whoever says so: the name of
// the database in each of its forms, the environment, a service file, files in the
// home directory. What pg_dump and psql are given leads to the same database in the
// same way.
func TestTLS(t *testing.T) {
	server := hydratest.NewTLS(t, hydratest.Fresh)
	server.AddProject("disnix")
	server.Exec("grant select on all tables in schema public to " + hydratest.Guarded)
	server.Exec("grant select on all sequences in schema public to " + hydratest.Guarded)
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	passwords := write("pgpass", fmt.Sprintf("other:*:*:*:wrong\nlocalhost:%s:%s:%s:%s\n", server.Port, server.Name, hydratest.Guarded, hydratest.Password))
	services := write("services.conf", fmt.Sprintf("# Hydra's\n[other]\nhost=other\n[hydra]\nhost=localhost\nport=%s\ndbname=%s\nuser=%s\npassword=%s\nsslmode=verify-full\nsslrootcert=%s\n",
		server.Port, server.Name, hydratest.Guarded, hydratest.Password, server.CA))
	home := filepath.Join(dir, "home")
	if err := os.MkdirAll(filepath.Join(home, ".postgresql"), 0o700); err != nil {
		t.Fatal(err)
	}
	for link, file := range map[string]string{".pgpass": passwords, ".pg_service.conf": services, ".postgresql/root.crt": server.CA} {
		if err := os.Symlink(file, filepath.Join(home, link)); err != nil {
			t.Fatal(err)
		}
	}
	expand := strings.NewReplacer("PORT", server.Port, "NAME", server.Name, "OTHER", server.OtherCA, "CA", server.CA, "CERT", server.Cert, "KEY", server.Key)
	tests := []struct {
		name, database string
		env            string
		want           []string // of the error; nil is none
	}{
		{"URL", "postgres://guarded:secret@localhost:PORT/NAME?sslmode=verify-full&sslrootcert=CA", "", nil},
		{"keywords", "host=localhost port=PORT dbname=NAME user=guarded password=secret sslmode=verify-full sslrootcert=CA", "", nil},
		{"DBI", "dbi:Pg:dbname=NAME;host=localhost;port=PORT;user=guarded;password=secret;sslmode=verify-full;sslrootcert=CA", "", nil},
		{"environment", "dbi:Pg:dbname=NAME;host=localhost;user=guarded;", "PGPORT=PORT PGPASSWORD=secret PGSSLMODE=verify-full PGSSLROOTCERT=CA", nil},
		{"pgpass", "postgres://guarded@localhost:PORT/NAME", "PGPASSFILE=" + passwords + " PGSSLMODE=verify-full PGSSLROOTCERT=CA", nil},
		{"certificate", "postgres://hydra@localhost:PORT/NAME?sslmode=verify-full&sslrootcert=CA&sslcert=CERT&sslkey=KEY", "", nil},
		{"certificate by environment", "host=localhost dbname=NAME user=hydra", "PGPORT=PORT PGSSLMODE=verify-full PGSSLROOTCERT=CA PGSSLCERT=CERT PGSSLKEY=KEY", nil},
		{"service", "service=hydra", "PGSERVICEFILE=" + services, nil},
		{"service of DBI", "dbi:Pg:service=hydra", "PGSERVICEFILE=" + services, nil},
		{"service by environment", "dbi:Pg:", "PGSERVICE=hydra PGSERVICEFILE=" + services, nil},
		{"files at home", "postgres://guarded@localhost:PORT/NAME?sslmode=verify-full", "HOME=" + home, nil},
		{"service at home", "service=hydra", "HOME=" + home, nil},
		{"only encrypted", "postgres://guarded:secret@127.0.0.1:PORT/NAME?sslmode=require", "", nil},
		{"authority", "postgres://guarded:secret@127.0.0.1:PORT/NAME?sslmode=verify-ca&sslrootcert=CA", "", nil},

		{"another authority", "postgres://guarded:secret@localhost:PORT/NAME?sslmode=verify-full&sslrootcert=OTHER", "", []string{"certificate signed by unknown authority", "sslrootcert=FILE", "PGSSLROOTCERT"}},
		{"another by environment", "postgres://guarded:secret@localhost:PORT/NAME", "PGSSLMODE=verify-ca PGSSLROOTCERT=OTHER", []string{"certificate signed by unknown authority", "sslrootcert=FILE"}},
		{"another name", "postgres://guarded:secret@127.0.0.1:PORT/NAME?sslmode=verify-full&sslrootcert=CA", "", []string{"127.0.0.1", "certificate", "sslmode what is verified"}},
		{"no authority", "postgres://guarded:secret@localhost:PORT/NAME?sslmode=verify-full&sslrootcert=/nonexistent", "", []string{"/nonexistent"}},
		{"no TLS", "postgres://guarded:secret@localhost:PORT/NAME?sslmode=disable", "", []string{"no encryption", "sslmode"}},
		{"no certificate", "postgres://hydra@localhost:PORT/NAME?sslmode=verify-full&sslrootcert=CA", "", []string{"requires a valid client certificate"}},
		{"no service", "service=hydro", "PGSERVICEFILE=" + services, []string{"hydro"}},
		{"no service file", "service=hydra", "PGSERVICEFILE=/nonexistent", []string{"/nonexistent"}},
		{"password of another", "postgres://guarded@localhost:PORT/NAME?sslmode=require", "PGPASSFILE=" + write("others", "*:*:*:*:wrong"), []string{"password authentication failed", "~/.pgpass"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, name := range []string{"PGHOST", "PGPASSWORD", "PGPORT"} {
				t.Setenv(name, "")
				os.Unsetenv(name)
			}
			for setting := range strings.FieldsSeq(tt.env) {
				name, value, _ := strings.Cut(setting, "=")
				t.Setenv(name, expand.Replace(value))
			}
			database := expand.Replace(tt.database)
			s, err := hydra.Open(t.Context(), database)
			if err == nil {
				defer s.Close()
			}
			if tt.want != nil {
				says(t, err, tt.want...)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if s.Database() != server.Name || s.SchemaVersion() != 87 {
				t.Errorf("it is database %s of version %d", s.Database(), s.SchemaVersion())
			}
			var n counter
			info, err := hydra.Dump(t.Context(), database, &n, nil)
			if err != nil || info.Tables["public.projects"] != 1 || n == 0 {
				t.Errorf("dumped %d bytes: %+v, %v", n, info, err)
			}
		})
	}
}
