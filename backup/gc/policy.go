package gc

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/narvault/narvault/backup"
)

// A Policy says which releases of a project to keep. Each rule keeps releases
// for itself; what none keeps is forgotten. The rules are those of restic's
// forget: Daily keeps the newest release of each of the last N days that have
// one, and so on, by the clock of the local time zone; a rule that finds fewer
// than N keeps the oldest release as well. Negative numbers keep all.
type Policy struct {
	Last, Daily, Weekly, Monthly, Yearly int
	Within                               Span // of the newest release, not of now
}

// None reports whether the policy has no rule.
func (p Policy) None() bool { return p == Policy{} }

// A Verdict says what becomes of a release, and why.
type Verdict struct {
	Release backup.ReleaseID `json:"release"`
	Created time.Time        `json:"created"`
	Reasons []string         `json:"reasons"` // the rules that keep it
}

// Apply returns a verdict for each release, the newest first, of releases that
// belong together.
func (p Policy) Apply(releases []*backup.Release) []Verdict {
	releases = slices.Clone(releases)
	slices.SortStableFunc(releases, func(x, y *backup.Release) int {
		if c := y.Created.Compare(x.Created); c != 0 {
			return c
		}
		return strings.Compare(x.Name, y.Name)
	})
	rules := p.rules()
	verdicts := make([]Verdict, len(releases))
	for i, r := range releases {
		v := Verdict{Release: backup.ReleaseID{Project: r.Project, Name: r.Name}, Created: r.Created, Reasons: []string{}}
		if p.Within != (Span{}) && r.Created.After(p.Within.before(releases[0].Created)) {
			v.Reasons = append(v.Reasons, "within "+p.Within.String())
		}
		for j := range rules {
			if reason := rules[j].keeps(i, r.Created.Local(), i == len(releases)-1); reason != "" {
				v.Reasons = append(v.Reasons, reason)
			}
		}
		verdicts[i] = v
	}
	return verdicts
}

// A rule keeps the newest release of each of a number of periods.
type rule struct {
	name   string
	left   int // how many more it keeps, negative: all
	period func(i int, t time.Time) int
	last   int // the period that it kept one of last
}

func (p Policy) rules() []rule {
	return []rule{
		{"last", p.Last, func(i int, _ time.Time) int { return i }, -1},
		{"daily", p.Daily, func(_ int, t time.Time) int { return t.Year()*1000 + t.YearDay() }, -1},
		{"weekly", p.Weekly, func(_ int, t time.Time) int { y, w := t.ISOWeek(); return y*100 + w }, -1},
		{"monthly", p.Monthly, func(_ int, t time.Time) int { return t.Year()*100 + int(t.Month()) }, -1},
		{"yearly", p.Yearly, func(_ int, t time.Time) int { return t.Year() }, -1},
	}
}

// keeps returns why the rule keeps a release, "" if it does not.
func (r *rule) keeps(i int, t time.Time, oldest bool) string {
	if r.left == 0 {
		return ""
	}
	period := r.period(i, t)
	first := period != r.last
	if !first && !oldest {
		return ""
	}
	r.last = period
	if r.left > 0 {
		r.left--
	}
	if first {
		return r.name
	}
	return "oldest " + r.name
}

// A Span is a length of time by the calendar, as in "1y6m14d12h".
type Span struct{ Years, Months, Days, Hours int }

// ParseSpan reads years, months (m), weeks, days and hours, in any order.
func ParseSpan(s string) (Span, error) {
	var span Span
	fault := fmt.Errorf("%q is no length of time such as 30d, 2w or 1y6m (years, months, weeks, days, hours)", s)
	if s == "" {
		return span, fault
	}
	for rest := s; rest != ""; {
		i := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
		if i <= 0 {
			return span, fault
		}
		n, err := strconv.ParseInt(rest[:i], 10, 16)
		if err != nil {
			return span, fault
		}
		switch rest[i] {
		case 'y':
			span.Years += int(n)
		case 'm':
			span.Months += int(n)
		case 'w':
			span.Days += 7 * int(n)
		case 'd':
			span.Days += int(n)
		case 'h':
			span.Hours += int(n)
		default:
			return span, fault
		}
		rest = rest[i+1:]
	}
	return span, nil
}

func (s Span) String() string {
	var b strings.Builder
	for _, part := range []struct {
		n    int
		unit string
	}{{s.Years, "y"}, {s.Months, "m"}, {s.Days, "d"}, {s.Hours, "h"}} {
		if part.n != 0 {
			fmt.Fprintf(&b, "%d%s", part.n, part.unit)
		}
	}
	return b.String()
}

// before returns the time that is a span before t.
func (s Span) before(t time.Time) time.Time {
	return t.AddDate(-s.Years, -s.Months, -s.Days).Add(-time.Duration(s.Hours) * time.Hour)
}
