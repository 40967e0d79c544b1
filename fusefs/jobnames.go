package fusefs

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/narvault/narvault/narread/storepath"
)

// JobDirs returns the links below jobs/<project>/<name>/, by directory and name.
//
// A directory is <job>.<system>. Where that would be the name of several
// derivations with the same output, as of hello-1.0 and hello-1.1 that were both
// backed up as the package hello, the Nix name takes the place of the job. What
// is then still there twice gets -2, -3 and so on at its end.
func JobDirs(jobs []Job) map[string]map[string]storepath.Path {
	jobs = slices.Compact(slices.SortedFunc(slices.Values(jobs), compareJobs))
	dirs := newUnique[map[string]storepath.Path]()
	for _, group := range chunks(jobs, func(j Job) Job { return Job{Name: j.Name, System: j.System} }) {
		if unambiguous(group) {
			addJob(dirs, jobDirName(group[0], false), group)
			continue
		}
		byName := !sameNixName(group)
		for _, one := range chunks(group, func(j Job) Job { return Job{NixName: j.NixName, DrvPath: j.DrvPath} }) {
			addJob(dirs, jobDirName(one[0], byName), one)
		}
	}
	return dirs.values
}

func compareJobs(a, b Job) int {
	return cmp.Or(
		strings.Compare(a.Name, b.Name), strings.Compare(a.System, b.System), strings.Compare(a.NixName, b.NixName),
		strings.Compare(string(a.DrvPath), string(b.DrvPath)), strings.Compare(a.Output, b.Output),
		strings.Compare(string(a.Path), string(b.Path)),
	)
}

// chunks splits a sorted list where the key changes.
func chunks(jobs []Job, key func(Job) Job) (all [][]Job) {
	for len(jobs) > 0 {
		n := slices.IndexFunc(jobs, func(j Job) bool { return key(j) != key(jobs[0]) })
		if n < 0 {
			n = len(jobs)
		}
		all = append(all, jobs[:n])
		jobs = jobs[n:]
	}
	return all
}

// unambiguous reports whether no output is there twice.
func unambiguous(group []Job) bool {
	seen := make(map[string]bool)
	for _, j := range group {
		name := outputName(j)
		if seen[name] {
			return false
		}
		seen[name] = true
	}
	return true
}

func sameNixName(group []Job) bool {
	return !slices.ContainsFunc(group, func(j Job) bool { return j.NixName != group[0].NixName })
}

// addJob makes a directory of its own for the outputs of a job.
func addJob(dirs *unique[map[string]storepath.Path], name string, group []Job) {
	links := newUnique[storepath.Path]()
	for _, j := range group {
		links.add(outputName(j), j.Path)
	}
	dirs.add(name, links.values)
}

// unique gives things names of their own.
type unique[V any] struct {
	values map[string]V
	last   map[string]int // the number that a name got last
}

func newUnique[V any]() *unique[V] {
	return &unique[V]{values: make(map[string]V), last: make(map[string]int)}
}

// add gives v the name, with a number at its end if it is taken.
func (u *unique[V]) add(name string, v V) {
	key := name
	for {
		if _, taken := u.values[key]; !taken {
			u.values[key] = v
			return
		}
		u.last[name] = max(u.last[name], 1) + 1
		key = fmt.Sprintf("%s-%d", name, u.last[name])
	}
}

// jobDirName returns the name of the directory for a job.
func jobDirName(j Job, byNixName bool) string {
	name := j.Name
	if byNixName || name == "" {
		name = cmp.Or(j.NixName, name, strings.TrimSuffix(j.Path.Name(), ".drv"))
	}
	if j.System != "" {
		name += "." + j.System
	}
	return safeName(name)
}

// outputName returns the name of the link to an output. A derivation, as roots
// of releases with sources are, is nobody's output.
func outputName(j Job) string {
	switch {
	case j.Output != "":
		return safeName(j.Output)
	case j.Path.IsDerivation():
		return "drv"
	}
	return "out"
}

// maxJobName leaves room for a number at the end.
const maxJobName = maxName - 15

// safeName makes a visible file name of any text.
func safeName(text string) string {
	name := strings.Map(func(r rune) rune {
		if r == '/' || r == utf8.RuneError || !unicode.IsPrint(r) {
			return '_'
		}
		return r
	}, text)
	if strings.HasPrefix(name, ".") {
		name = "_" + name[1:]
	}
	for len(name) > maxJobName {
		_, size := utf8.DecodeLastRuneInString(name)
		name = name[:len(name)-size]
	}
	return name
}
