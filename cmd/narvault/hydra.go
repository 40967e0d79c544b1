package main

import (
	"cmp"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// hydraCommand is "narvault hydra", which only has commands below it.
type hydraCommand struct{}

func (c *hydraCommand) cobra(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "hydra",
		Short: "Hydra's database: list it, dump it, restore it",
		Long: `Commands for the database of Hydra, the continuous build system of Nix.

--database names it as Hydra does (dbi:Pg:dbname=hydra;host=localhost;user=hydra;),
by a URL (postgres://hydra@localhost/hydra) or by keywords (host=localhost
dbname=hydra); by default it is what HYDRA_DBI says. What that does not say comes
from PGHOST, PGPASSWORD, ~/.pgpass and so on. A password is best kept there.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageErrorf("there is no command %q; \"narvault hydra --help\" lists them", args[0])
			}
			return cmd.Help()
		},
	}
	for _, c := range []command{
		&hydraReleasesCommand{},
		&hydraEvaluationsCommand{},
		&hydraCreateCommand{},
		&hydraDumpCommand{},
		&hydraDumpsCommand{},
		&hydraRestoreDatabaseCommand{},
		&hydraRestoreCommand{},
	} {
		cmd.AddCommand(c.cobra(s))
	}
	return cmd
}

// databaseFlag says which database is meant.
type databaseFlag struct{ name string }

func (d *databaseFlag) add(f *pflag.FlagSet) {
	f.StringVar(&d.name, "database", "", "Hydra's database, as dbi:Pg:..., `URL` or keywords (default: $HYDRA_DBI)")
}

func (d *databaseFlag) get() (string, error) {
	name := cmp.Or(d.name, os.Getenv("HYDRA_DBI"))
	if name == "" {
		return "", usageErrorf("--database is missing: it says which database, as in postgres://hydra@localhost/hydra")
	}
	return name, nil
}

// addPrograms adds the flag that says where PostgreSQL's programs are.
func addPrograms(f *pflag.FlagSet, dirs *[]string) {
	f.StringArrayVar(dirs, "programs", nil, "look for pg_dump and psql in this `DIR` (default: PATH, and where Debian has them)")
}
