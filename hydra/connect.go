package hydra

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// connectTimeout is how long a server may take to answer, unless the name of
// the database says something else (connect_timeout).
const connectTimeout = 20 * time.Second

// A Snapshot is Hydra's database as it was when it was opened, whatever is
// written to it meanwhile. It must not be used concurrently.
type Snapshot struct {
	conn   *pgx.Conn
	tx     pgx.Tx
	where  string // for messages: name, server and role
	schema schema
}

// Open connects to a database and begins a transaction that only reads. The
// database is named as in Perl's DBI (dbi:Pg:dbname=hydra;host=localhost), by a
// URL (postgres://hydra@localhost/hydra), or by keywords and values
// (host=localhost dbname=hydra). What is not said comes from where libpq has it
// from: PGHOST and so on, ~/.pgpass, the service file.
//
// A long transaction keeps PostgreSQL from cleaning up: read, and Close.
func Open(ctx context.Context, database string) (*Snapshot, error) {
	s, err := open(ctx, database, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, fmt.Errorf("open Hydra's database: %w", err)
	}
	return s, nil
}

func open(ctx context.Context, database string, o pgx.TxOptions) (*Snapshot, error) {
	conn, where, err := connect(ctx, database)
	if err != nil {
		return nil, err
	}
	s := &Snapshot{conn: conn, where: where}
	s.tx, err = conn.BeginTx(ctx, o)
	if err == nil {
		s.schema, err = readSchema(ctx, s.tx)
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("%s: %w", where, explain(err))
	}
	return s, nil
}

// apart does a part of the work: after an error of the server's in it, the
// transaction goes on.
func (s *Snapshot) apart(ctx context.Context, do func() error) error {
	whole := s.tx
	defer func() { s.tx = whole }()
	return pgx.BeginFunc(ctx, whole, func(part pgx.Tx) error {
		s.tx = part
		return do()
	})
}

// Close ends the transaction and the connection.
func (s *Snapshot) Close() error { return closeConn(s.conn) }

// closeConn closes a connection, also when the work has been cancelled.
func closeConn(conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return conn.Close(ctx)
}

// Database returns the name of the database.
func (s *Snapshot) Database() string { return s.conn.Config().Database }

// HasReleases reports whether Hydra has tables of releases, as until 2020.
func (s *Snapshot) HasReleases() bool { return s.schema.hasReleases() }

// SchemaVersion returns the version of Hydra's tables, 0 if it does not say.
func (s *Snapshot) SchemaVersion() int { return s.schema.version }

// ignored are the keywords of libpq that only tune a connection, and that pgx
// would hand to the server, which does not know them.
var ignored = []string{
	"fallback_application_name", "gssdelegation", "gssencmode", "keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval",
	"load_balance_hosts", "sslcompression", "tcp_user_timeout",
}

// connect also returns how to call the database in messages.
func connect(ctx context.Context, database string) (conn *pgx.Conn, where string, err error) {
	text, err := dsn(database)
	if err != nil {
		return nil, "", fmt.Errorf("its name %w", err)
	}
	config, err := pgx.ParseConfig(text)
	if err != nil {
		return nil, "", withoutSecrets(err, text)
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout
	}
	// Prepared statements with names get in each other's way behind a PgBouncer
	// that gives a server to a client for no longer than a transaction.
	config.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	if _, said := config.RuntimeParams["application_name"]; !said {
		config.RuntimeParams["application_name"] = "narvault"
	}
	for _, keyword := range ignored {
		delete(config.RuntimeParams, keyword)
	}
	where = place(&config.Config)
	conn, err = pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, where, fmt.Errorf("%s: %w", where, explain(err))
	}
	return conn, where, nil
}

// withoutSecrets leaves the password out of an error about the name of a
// database: pgx does that by patterns, which not all ways to write it match.
func withoutSecrets(err error, text string) error {
	var malformed *pgconn.ParseConfigError
	if errors.As(err, &malformed) {
		malformed.ConnString = "..."
		if k, err := parseKeywords(text); err == nil {
			malformed.ConnString = k.open().String()
		}
	}
	return err
}

// place names a database, its server and the role.
func place(c *pgconn.Config) string {
	at := net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port)))
	if network, address := pgconn.NetworkAddress(c.Host, c.Port); network == "unix" {
		at = address
	}
	return fmt.Sprintf("database %q at %s as %q", c.Database, at, c.User)
}

// A remedy is what can be done about an error of PostgreSQL's, by its code.
var remedies = map[string]string{
	"28P01": "check the password: it comes from the name of the database, from PGPASSWORD or from ~/.pgpass",
	"28000": "check the role, and what the server's pg_hba.conf allows it",
	"3D000": "check the name of the database: psql --list shows what there is",
	"42501": "let the role read Hydra's tables: grant select on all tables in schema public to ...",
	"53300": "try again later, or let the role have more connections",
	"42704": "check the keywords in the name of the database",
}

// refusesTLS is what pgx says of a server that has none; it has no error for it
// that could be told by its value.
const refusesTLS = "server refused TLS connection"

// explain adds what can be done.
func explain(err error) error {
	var server *pgconn.PgError
	var connecting *pgconn.ConnectError
	switch certificate := certificateError(err); {
	case certificate != nil:
		return fmt.Errorf("%w: sslrootcert=FILE in the name of the database, or PGSSLROOTCERT, says whom to trust, and sslmode what is verified", certificate)
	case errors.As(err, &server):
		text := server.Message
		if server.Detail != "" {
			text += " (" + server.Detail + ")"
		}
		if remedy, ok := remedies[server.Code]; ok {
			text += ": " + remedy
		}
		if strings.HasSuffix(server.Message, "no encryption") {
			text += "; with TLS it may let you in: sslmode=require, or verify-full, in the name of the database or as PGSSLMODE"
		}
		return &ServerError{Code: server.Code, text: text}
	case errors.As(err, &connecting) && strings.Contains(err.Error(), refusesTLS):
		return fmt.Errorf("%s, and sslmode, in the name of the database or as PGSSLMODE, asks for TLS: give the server a certificate (ssl = on), or ask for less", refusesTLS)
	case errors.As(err, &connecting) && !errors.Is(err, context.Canceled):
		return fmt.Errorf("%w: is the server there, and does it listen? PGHOST and PGPORT, or the name of the database, say where", reason(connecting))
	}
	return err
}

// certificateError returns what is wrong with the certificate of a server, nil
// if nothing is. Not all that verify say it in one way.
func certificateError(err error) error {
	var inHandshake *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var host x509.HostnameError
	switch {
	case errors.As(err, &inHandshake):
		return inHandshake
	case errors.As(err, &authority):
		return authority
	case errors.As(err, &invalid):
		return invalid
	case errors.As(err, &host):
		return host
	}
	return nil
}

// A ServerError is what PostgreSQL did not do, and why.
type ServerError struct {
	Code string // SQLSTATE
	text string
}

func (e *ServerError) Error() string { return e.text }

// reason leaves out what place has said.
func reason(err error) error {
	var op *net.OpError
	var dns *net.DNSError
	switch {
	case errors.As(err, &op):
		return op
	case errors.As(err, &dns):
		return dns
	}
	return err
}
