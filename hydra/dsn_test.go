package hydra

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// TestDSN names databases in all ways, and looks at what pgx makes of them.
func TestDSN(t *testing.T) {
	t.Setenv("PGHOST", "env.example.org")
	t.Setenv("PGUSER", "envuser")
	t.Setenv("PGDATABASE", "envdb")
	t.Setenv("PGPASSWORD", "")
	tests := []struct{ name, database, want string }{
		{"as in the seed", "dbi:Pg:dbname=hydra;host=localhost;user=hydra;", "hydra localhost 5432 hydra "},
		{"as NixOS has it", "dbi:Pg:dbname=hydra;user=hydra;application_name=backup", "hydra env.example.org 5432 hydra "},
		{"other keywords", "DBI:Pg(RaiseError=>1): db = hydra ; port=6543;password=s3cret", "hydra env.example.org 6543 envuser s3cret"},
		{"database", "dbi:Pg:database=a b", "a b env.example.org 5432 envuser "},
		{"odd password", `dbi:Pg:dbname=h;password=it's a \ one`, `h env.example.org 5432 envuser it's a \ one`},
		{"quoted", `dbi:Pg:dbname='semi;colon \'x\\';host=h`, `semi;colon 'x\ h 5432 envuser `},
		{"only the driver", "dbi:Pg:", "envdb env.example.org 5432 envuser "},
		{"URL", "postgres://me:pw@db.example.org:77/x?sslmode=disable", "x db.example.org 77 me pw"},
		{"other URL", "postgresql:///x", "x env.example.org 5432 envuser "},
		{"keywords", "host=h dbname=x user='u u'", "x h 5432 u u "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text, err := dsn(tt.database)
			if err != nil {
				t.Fatal(err)
			}
			c, err := pgx.ParseConfig(text)
			if err != nil {
				t.Fatal(err)
			}
			got := fmt.Sprint(c.Database, " ", c.Host, " ", c.Port, " ", c.User, " ", c.Password)
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestCertificateError says what to do about a server that nobody vouches for.
func TestCertificateError(t *testing.T) {
	known := httptest.NewTLSServer(nil)
	defer known.Close()
	address := answerTLS(t, func(conn net.Conn) {
		conn.Write([]byte("S"))
		tls.Server(conn, &tls.Config{Certificates: known.TLS.Certificates}).Handshake()
	})
	_, err := Open(t.Context(), "postgres://hydra@"+address+"/hydra?sslmode=verify-full")
	if err == nil || !strings.Contains(err.Error(), "certificate") || !strings.Contains(err.Error(), "sslrootcert") || strings.Contains(err.Error(), "does it listen") {
		t.Errorf("the error is %v", err)
	}
}

// TestNoTLS says what to do about a server that talks none, though it shall.
func TestNoTLS(t *testing.T) {
	address := answerTLS(t, func(conn net.Conn) { conn.Write([]byte("N")) })
	_, err := Open(t.Context(), "postgres://hydra@"+address+"/hydra?sslmode=require")
	if err == nil || !strings.Contains(err.Error(), "refused TLS connection, and sslmode") || strings.Contains(err.Error(), "does it listen") {
		t.Errorf("the error is %v", err)
	}
}

// answerTLS listens, and answers PostgreSQL's SSLRequest.
func answerTLS(t *testing.T, answer func(net.Conn)) (address string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if _, err := io.ReadFull(conn, make([]byte, 8)); err == nil {
				answer(conn)
			}
			conn.Close()
		}
	}()
	return listener.Addr().String()
}

// TestPasswordInErrors leaves the password out of what is said of a malformed name.
func TestPasswordInErrors(t *testing.T) {
	for _, database := range []string{
		"dbi:Pg:dbname=h;port=none;password=it's s3cret",
		`host=h port=none password = 's3cret'`,
		`host=h port=none password='\'s3cret' sslpassword=s3cret`,
		"postgres://me:s3cret@h:none/x",
		"postgres://me@h/x?port=none&password=s3cret",
	} {
		_, err := Open(t.Context(), database)
		if err == nil || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), "port") {
			t.Errorf("the error about %s is %v", database, err)
		}
	}
}
