package backup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/narvault/narvault/backup/backuptest"
	"github.com/narvault/narvault/backup/lock"
	"github.com/narvault/narvault/index/bincache"
)

func TestDefine(t *testing.T) {
	dir := emptyBackup(t)
	d := Definition{
		Release: ReleaseID{"disnix", "disnix-0.3"}, Description: "Größe", Database: "hydra", Evaluation: 3,
		Created: time.Unix(1_600_000_000, 0).UTC(),
	}
	other := d
	other.Database = "other"
	for _, one := range []Definition{d, other} {
		if err := Define(t.Context(), dir, one, lock.Options{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := Define(t.Context(), dir, d, lock.Options{}); !errors.Is(err, ErrDefined) {
		t.Errorf("twice: %v", err)
	}
	if got, err := Definitions(dir, "hydra"); err != nil || !reflect.DeepEqual(got, []Definition{d}) {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := Definitions(filepath.Join(dir, "nothing"), "hydra"); err != nil || len(got) > 0 {
		t.Errorf("without a backup: %+v, %v", got, err)
	}
	if err := Define(t.Context(), filepath.Join(dir, "nothing"), d, lock.Options{}); err == nil {
		t.Error("defined in no backup")
	}
	file := filepath.Join(dir, "hydra/releases.json")
	for _, text := range []string{"{", `{"version": 1, "releases": [{"release": "a"}]}`} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		var damage *bincache.DamageError
		if _, err := Definitions(dir, "hydra"); !errors.As(err, &damage) {
			t.Errorf("%s: %v", text, err)
		}
		if err := Define(t.Context(), dir, d, lock.Options{}); !errors.As(err, &damage) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestCrashDefine cuts the power at each operation: the definitions before stay.
func TestCrashDefine(t *testing.T) {
	first, second := Definition{Release: ReleaseID{"p", "1"}}, Definition{Release: ReleaseID{"p", "2"}}
	for op := 1; ; op++ {
		dir := emptyBackup(t)
		if err := define(t.Context(), backuptest.Memory{}, dir, first, lock.Options{}); err != nil {
			t.Fatal(err)
		}
		fs := backuptest.NewPowerFS(t, op, backuptest.ErrPower, uint64(op))
		if err := define(t.Context(), fs, dir, second, lock.Options{}); err == nil {
			return
		}
		fs.Crash()
		list, err := Definitions(dir, "")
		if text := fmt.Sprint(list); err != nil || len(list) == 0 || list[0] != first {
			t.Errorf("after a crash at operation %d: %s, %v", op, text, err)
		}
	}
}
