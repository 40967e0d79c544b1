package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"

	"github.com/narvault/narvault/backup/disk"
)

// A SignKey is a secret key, as Nix has it: a name, and an ed25519 key.
type SignKey struct{ secret signature.SecretKey }

// Public returns the public key, in the form of Nix's trusted-public-keys.
func (k SignKey) Public() string { return k.secret.ToPublicKey().String() }

// sign returns a signature, in the form of a narinfo. The same key gives the
// same signature every time.
func (k SignKey) sign(fingerprint string) (string, error) {
	sig, err := k.secret.Sign(nil, fingerprint)
	return sig.String(), err
}

// maxKeyFile bounds what is read of a key file, in bytes.
const maxKeyFile = 4 << 10

// LoadKey reads a secret key file, as "nix key generate-secret", "nix-store
// --generate-binary-cache-key" and MakeKey write them.
func LoadKey(name string) (SignKey, error) {
	st, err := os.Stat(name)
	if err != nil {
		return SignKey{}, fmt.Errorf("read secret key: %w", err)
	}
	if !st.Mode().IsRegular() || st.Size() > maxKeyFile {
		return SignKey{}, fmt.Errorf("read secret key: %s is no key file", name)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return SignKey{}, fmt.Errorf("read secret key: %w", err)
	}
	// Not the error of the library: it has the key in it.
	key, err := signature.LoadSecretKey(strings.TrimSpace(string(text)))
	if err != nil || checkKeyName(key.ToPublicKey().Name) != nil {
		return SignKey{}, fmt.Errorf("read secret key: %s is no secret key of Nix (NAME:BASE64, with 64 bytes): \"narvault keygen\" makes one", name)
	}
	return SignKey{key}, nil
}

// MakeKey makes a key pair and writes the secret key to file, for its owner
// only, and the public key to file.pub. Neither may be there.
func MakeKey(keyName, file string) (SignKey, error) {
	if err := checkKeyName(keyName); err != nil {
		return SignKey{}, err
	}
	secret, public, err := signature.GenerateKeypair(keyName, nil)
	if err != nil {
		return SignKey{}, fmt.Errorf("make key: %w", err)
	}
	// The public one first: a secret key that nobody knows the other half of is
	// still whole, but nobody would look for it.
	for _, f := range []struct {
		name, text string
		mode       fs.FileMode
	}{
		{file + ".pub", public.String() + "\n", 0o644},
		{file, secret.String() + "\n", 0o600},
	} {
		if err := writeNew(f.name, f.text, f.mode); err != nil {
			return SignKey{}, fmt.Errorf("make key: %w", err)
		}
	}
	return SignKey{secret}, disk.OS{}.SyncDir(filepath.Dir(file))
}

// checkKeyName refuses names that Nix would read otherwise.
func checkKeyName(name string) error {
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r == ':' || unicode.IsSpace(r) || !unicode.IsPrint(r) }) {
		return fmt.Errorf("%q cannot be the name of a key: use one without colons and spaces, such as example.org-1", name)
	}
	return nil
}

// writeNew writes a file that must not be there, durably.
func writeNew(name, text string, mode fs.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	return nil
}
