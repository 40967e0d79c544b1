package main

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// print writes the table of a task. The first system is ours.
func (t *task) print(systems []system, results []result) {
	if t.latencies && len(results[0].latencies[blockMiss]) == 0 {
		fmt.Println("  the file is too small")
		return
	}
	if t.latencies {
		printLatencies(systems, results)
		return
	}
	fmt.Printf("  %-20s %9s %17s %9s %8s %9s\n", "", "wall ms", "(from to)", "cpu ms", "anon MB", "requests")
	printPass("cold", systems, results, func(r *result) []figure { return r.cold })
	printPass("warm", systems, results, func(r *result) []figure { return r.warm })
}

func printPass(name string, systems []system, results []result, pass func(*result) []figure) {
	ours := pass(&results[0])
	for i := range systems {
		if figures := pass(&results[i]); len(figures) > 0 {
			fmt.Printf("  %-5s%-15s ", name, systems[i].name)
			printFigures(figures, results[i].anon)
			if i > 0 {
				printRatios(figures, ours)
			}
			fmt.Println()
		}
	}
}

func printFigures(figures []figure, anon []int64) {
	wall := func(f figure) float64 { return milliseconds(f.wall) }
	from, to := wall(slices.MinFunc(figures, byWall)), wall(slices.MaxFunc(figures, byWall))
	fmt.Printf("%9.1f %17s %9.1f %8.1f", middle(figures, wall), fmt.Sprintf("(%.1f %.1f)", from, to),
		middle(figures, func(f figure) float64 { return milliseconds(f.cpu) }),
		middle(anon, func(n int64) float64 { return float64(n) / 1e6 }))
	requests := "-"
	if n := middle(figures, func(f figure) float64 { return float64(f.requests) }); n >= 0 {
		requests = fmt.Sprintf("%.0f", n)
	}
	fmt.Printf(" %9s", requests)
}

// printRatios compares the rounds one by one, as what disturbs the machine for
// longer than a round disturbs both.
func printRatios(theirs, ours []figure) {
	ratio := func(of func(figure) time.Duration) float64 {
		var all []float64
		for i := range theirs {
			all = append(all, float64(of(theirs[i]))/float64(of(ours[i])))
		}
		return middle(all, func(r float64) float64 { return r })
	}
	fmt.Printf("   %.2fx wall, %.2fx cpu",
		ratio(func(f figure) time.Duration { return f.wall }),
		ratio(func(f figure) time.Duration { return f.cpu }))
}

// printLatencies writes the percentiles of the reads of all rounds.
func printLatencies(systems []system, results []result) {
	fmt.Printf("  %-32s %9s %9s %9s\n", "", "p50 µs", "p99 µs", "reads")
	for kind, name := range readKindNames {
		ours := percentile(results[0].latencies[kind], 50)
		for i := range systems {
			all := results[i].latencies[kind]
			if len(all) == 0 {
				continue
			}
			p50 := percentile(all, 50)
			fmt.Printf("  %-15s%-17s %9.1f %9.1f %9d", name, systems[i].name, microseconds(p50), microseconds(percentile(all, 99)), len(all))
			if i > 0 {
				fmt.Printf("   %.2fx p50", float64(p50)/float64(ours))
			}
			fmt.Println()
		}
	}
}

// percentile returns what p of a hundred do not exceed.
func percentile(all []time.Duration, p int) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[(len(sorted)-1)*p/100]
}

// middle returns the median of what key makes of the items.
func middle[T any](items []T, key func(T) float64) float64 {
	if len(items) == 0 {
		return math.NaN()
	}
	values := make([]float64, len(items))
	for i, item := range items {
		values[i] = key(item)
	}
	slices.Sort(values)
	return values[len(values)/2]
}

func byWall(a, b figure) int { return int(a.wall - b.wall) }

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
