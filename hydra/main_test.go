package hydra_test

import (
	"os"
	"testing"

	"github.com/narvault/narvault/hydra/hydratest"
)

func TestMain(m *testing.M) { os.Exit(hydratest.Main{M: m}.Run()) }
