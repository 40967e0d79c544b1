package hydratest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/narvault/narvault/narread/testenv"
)

// A TLS is a PostgreSQL at Host:Port that lets nobody in who does not talk TLS:
// the role hydra by its certificate, Guarded by its password. Its certificate is
// for the name localhost, and not for its address.
type TLS struct {
	*DB
	Host, Port string
	CA         string // file: the certificate of who vouches for the server, and for the role hydra
	OtherCA    string // file: that of somebody else
	Cert, Key  string // files of the role hydra

	authority *authority
}

// NewTLS starts a PostgreSQL for the test, with a database of that shape.
func NewTLS(tb testing.TB, shape string) *TLS {
	tb.Helper()
	testenv.Need(tb, "postgresql")
	t, err := newTLS(tb.TempDir())
	if err != nil {
		tb.Fatal(err)
	}
	var s *server
	for range 5 { // somebody else may take the port in between
		if t.Port, err = freePort(); err != nil {
			tb.Fatal(err)
		}
		if s, err = startWith(t); err == nil {
			break
		}
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.end)
	t.DB = s.new(tb, shape)
	return t
}

func newTLS(dir string) (*TLS, error) {
	in := func(name string) string { return filepath.Join(dir, name) }
	t := &TLS{Host: "localhost", CA: in("ca.pem"), OtherCA: in("other.pem"), Cert: in("hydra.pem"), Key: in("hydra.key")}
	var err error
	if t.authority, err = newAuthority(t.CA); err != nil {
		return nil, err
	}
	if _, err := newAuthority(t.OtherCA); err != nil {
		return nil, err
	}
	return t, t.authority.issue("hydra", t.Cert, t.Key)
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, errors.Join(err, l.Close())
}

// prepare makes the certificate of the server in its directory.
func (t *TLS) prepare(data string, credential *syscall.Credential) error {
	cert, key := filepath.Join(data, "server.crt"), filepath.Join(data, "server.key")
	if err := t.authority.issue(t.Host, cert, key); err != nil {
		return err
	}
	ca, err := os.ReadFile(t.CA)
	if err == nil {
		err = os.WriteFile(filepath.Join(data, "root.crt"), ca, 0o644)
	}
	if err != nil || credential == nil {
		return err
	}
	return os.Chown(key, int(credential.Uid), int(credential.Gid))
}

func (t *TLS) args() []string {
	return []string{"-p", t.Port, "-c", "listen_addresses=127.0.0.1", "-c", "ssl=on", "-c", "ssl_ca_file=root.crt"}
}

// An authority issues certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newAuthority writes its own certificate to a file.
func newAuthority(file string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	cert := template("narvault's tests")
	cert.IsCA, cert.BasicConstraintsValid, cert.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return &authority{cert, key}, writePEM(file, "CERTIFICATE", der, 0o644)
}

// issue writes a certificate for a name, and its key, to files.
func (a *authority) issue(name, certFile, keyFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	cert := template(name)
	cert.DNSNames = []string{name}
	cert.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	der, err := x509.CreateCertificate(rand.Reader, cert, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(writePEM(certFile, "CERTIFICATE", der, 0o644), writePEM(keyFile, "PRIVATE KEY", secret, 0o600))
}

func template(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
}

func writePEM(file, kind string, der []byte, mode os.FileMode) error {
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode)
}
