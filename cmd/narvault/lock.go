package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/narvault/narvault/backup/lock"
)

// lockFlags are the flags of commands that need a lock of the backup.
type lockFlags struct {
	wait   string
	noWait bool
	noLock bool
}

const (
	// defaultWait is long enough for a garbage collection to pass by, and short
	// enough for whoever sits before it.
	defaultWait = "1m"
	waitForever = "forever"
)

func (l *lockFlags) add(f *pflag.FlagSet) {
	f.StringVar(&l.wait, "wait", defaultWait, "how long to wait for other commands that are at work on the backup; without `DURATION`, for as long as it takes")
	f.Lookup("wait").NoOptDefVal = waitForever
	f.BoolVar(&l.noWait, "no-wait", false, "do not wait for other commands")
	f.BoolVar(&l.noLock, "no-lock", false, "take no locks, on a medium that has none: nothing else may write to the backup")
}

// options returns what the flags ask for; command is what others are told that
// they wait for.
func (l *lockFlags) options(s streams, command string) (lock.Options, error) {
	o := lock.Options{NoLock: l.noLock, Command: "narvault " + command}
	o.Waiting = func(e *lock.HeldError) {
		fmt.Fprintf(s.err, "narvault: waiting for %s\n", message(strings.Join(e.Who(), ", ")))
	}
	switch {
	case l.noWait:
		return o, nil
	case l.wait == waitForever:
		o.Wait = -1
		return o, nil
	}
	wait, err := time.ParseDuration(l.wait)
	if err != nil || wait < 0 {
		return o, usageErrorf("--wait=%s is no duration such as 90s, 10m or 2h", l.wait)
	}
	o.Wait = wait
	return o, nil
}
