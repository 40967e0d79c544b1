package main

import (
	"path/filepath"

	"github.com/narvault/narvault/hydra"
)

// oldNames are the scripts that backed up Hydra before: the binary does their
// work when it is called so, through a link. Each had a configuration file as
// its only argument.
var oldNames = map[string]func(config string) ([]string, error){
	"hydra-backup": func(config string) ([]string, error) {
		return []string{"backup", "--config", config}, nil
	},
	"hydra-collect-backup-garbage": func(config string) ([]string, error) {
		c, err := hydra.ReadConfig(config)
		if err != nil {
			return nil, err
		}
		return []string{"gc", c.OutDir}, nil
	},
}

// asCalled returns the arguments of narvault for how the program was called.
func asCalled(args []string) ([]string, error) {
	name := filepath.Base(args[0])
	translate, ok := oldNames[name]
	if !ok || len(args) == 2 && (args[1] == "--help" || args[1] == "--version") {
		return args[1:], nil
	}
	if len(args) != 2 {
		return nil, usageErrorf("usage: %s CONFIG.json", name)
	}
	return translate(args[1])
}
