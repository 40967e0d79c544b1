package check

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Selection says which NAR files are read whole. The zero value is none.
// Those that were not read for the longest time come first.
type Selection struct {
	All     bool
	Percent float64       // of the bytes of all NAR files
	Part    int           // of Parts into which the files are divided by their names, from 1
	Parts   int           // 0: not divided
	Budget  time.Duration // no NAR file is begun later than this
}

// ParseSelection parses "" and "all", a percentage ("10%"), a part ("2/7") or a
// time ("30m").
func ParseSelection(s string) (sel Selection, err error) {
	if s == "" || s == "all" {
		return Selection{All: true}, nil
	}
	bad := fmt.Errorf("%q is neither a percentage like 10%%, nor a part like 2/7, nor a time like 30m", s)
	if number, ok := strings.CutSuffix(s, "%"); ok {
		sel.Percent, err = strconv.ParseFloat(number, 64)
		if err != nil || !(sel.Percent > 0 && sel.Percent <= 100) {
			return Selection{}, bad
		}
		return sel, nil
	}
	if part, parts, ok := strings.Cut(s, "/"); ok {
		sel.Part, err = strconv.Atoi(part)
		if err == nil {
			sel.Parts, err = strconv.Atoi(parts)
		}
		if err != nil || sel.Part < 1 || sel.Part > sel.Parts {
			return Selection{}, bad
		}
		return sel, nil
	}
	if sel.Budget, err = time.ParseDuration(s); err != nil || sel.Budget <= 0 {
		return Selection{}, bad
	}
	return sel, nil
}

// none reports whether nothing is selected.
func (s Selection) none() bool { return s == Selection{} }

// choose returns the NAR files that are to be read, in order. last is when each
// was read before.
func (s Selection) choose(nars []*narFile, last map[string]time.Time) []*narFile {
	chosen := slices.DeleteFunc(slices.Clone(nars), func(n *narFile) bool {
		return n.size < 0 || s.Parts > 0 && !s.inPart(n.url)
	})
	if !s.All && s.Parts == 0 {
		// Without memory of earlier checks, another choice each time.
		rand.Shuffle(len(chosen), func(i, j int) { chosen[i], chosen[j] = chosen[j], chosen[i] })
	}
	slices.SortStableFunc(chosen, func(a, b *narFile) int { return last[a.url].Compare(last[b.url]) })
	if s.Percent > 0 {
		chosen = s.share(chosen)
	}
	return chosen
}

// inPart reports whether a file belongs to the part. Names tell, so that all
// parts together are all files, however many came or went between the checks.
func (s Selection) inPart(url string) bool {
	h := fnv.New64a()
	h.Write([]byte(url))
	return h.Sum64()%uint64(s.Parts) == uint64(s.Part-1)
}

// share returns the first files that have the percentage of all bytes.
func (s Selection) share(nars []*narFile) []*narFile {
	var total float64
	for _, n := range nars {
		total += float64(n.size)
	}
	left := math.Ceil(total * s.Percent / 100)
	for i, n := range nars {
		if left <= 0 {
			return nars[:i]
		}
		left -= float64(n.size)
	}
	return nars
}

// oldest returns when the file was read that this is longest ago for; nil if one
// never was, or there is none.
func oldest(nars []*narFile, last map[string]time.Time) *time.Time {
	if len(nars) == 0 {
		return nil
	}
	n := slices.MinFunc(nars, func(a, b *narFile) int {
		return cmp.Or(last[a.url].Compare(last[b.url]), cmp.Compare(a.url, b.url))
	})
	if t := last[n.url]; !t.IsZero() {
		return &t
	}
	return nil
}
