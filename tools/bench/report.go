package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// report is one run of the benchmarks on one machine.
type report struct {
	Date     string    `json:"date"`
	Machine  string    `json:"machine"`
	Go       string    `json:"go"`
	Commit   string    `json:"commit"`
	Sections []section `json:"sections"`
}

// section is one table.
type section struct {
	Name   string   `json:"name"`
	Title  string   `json:"title"`
	Rows   []row    `json:"rows"`
	Absent []string `json:"absent,omitempty"` // programs that were not on this machine
	Notes  []string `json:"notes,omitempty"`
}

// row is one figure. Min to Max are zero where there is but one sample.
type row struct {
	Key     string  `json:"key"` // for those who look it up
	What    string  `json:"what"`
	Unit    string  `json:"unit"`
	N       int     `json:"n"`
	Median  float64 `json:"median"`
	Min     float64 `json:"min,omitempty"`
	Q1      float64 `json:"q1,omitempty"`
	Q3      float64 `json:"q3,omitempty"`
	P99     float64 `json:"p99,omitempty"`
	Max     float64 `json:"max,omitempty"`
	Ratio   float64 `json:"ratio,omitempty"` // to the row Against
	Against string  `json:"against,omitempty"`
	Bar     float64 `json:"bar,omitempty"` // of the ratio where there is one, else of the median
	Missed  bool    `json:"missed,omitempty"`
}

// sampled makes a row of samples.
func sampled(key, what, unit string, samples []float64) row {
	r := row{Key: key, What: what, Unit: unit, N: len(samples)}
	if len(samples) == 0 {
		return r
	}
	s := slices.Sorted(slices.Values(samples))
	at := func(f float64) float64 { return s[min(int(f*float64(len(s))), len(s)-1)] }
	r.Min, r.Q1, r.Median, r.Q3, r.P99, r.Max = s[0], at(.25), at(.5), at(.75), at(.99), s[len(s)-1]
	return r
}

// single makes a row of one value.
func single(key, what, unit string, v float64) row {
	return row{Key: key, What: what, Unit: unit, N: 1, Median: v}
}

// to compares with another row of the section.
func (s *section) to(r row, key string, bar float64) row {
	if o, ok := s.row(key); ok && o.Median > 0 {
		r.Ratio, r.Against = r.Median/o.Median, key
		r = r.limit(bar)
	}
	return r
}

// limit sets the bar, 0 for none.
func (r row) limit(bar float64) row {
	v := r.Median
	if r.Against != "" {
		v = r.Ratio
	}
	r.Bar, r.Missed = bar, bar > 0 && v > bar
	return r
}

func (s *section) add(rows ...row) { s.Rows = append(s.Rows, rows...) }

func (s *section) row(key string) (row, bool) {
	i := slices.IndexFunc(s.Rows, func(r row) bool { return r.Key == key })
	if i < 0 {
		return row{}, false
	}
	return s.Rows[i], true
}

// find looks a figure up in all sections.
func (r *report) find(name, key string) (row, bool) {
	for _, s := range r.Sections {
		if s.Name == name {
			return s.row(key)
		}
	}
	return row{}, false
}

func (r *report) missed() bool {
	return slices.ContainsFunc(r.Sections, func(s section) bool {
		return slices.ContainsFunc(s.Rows, func(r row) bool { return r.Missed })
	})
}

// number shows a value with three digits that matter.
func number(v float64) string {
	switch {
	case v == float64(int64(v)) || v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// print writes the tables for a person.
func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "%s\n%s, %s, commit %s\n", r.Machine, r.Date, r.Go, r.Commit)
	for _, s := range r.Sections {
		s.print(w)
	}
}

func (s *section) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s\n", s.Title)
	for _, r := range s.Rows {
		fmt.Fprintf(w, "  %-64s %10s %-6s", r.What, number(r.Median), r.Unit)
		if r.N > 1 {
			fmt.Fprintf(w, " quartiles %s – %s, min %s, p99 %s, n %d",
				number(r.Q1), number(r.Q3), number(r.Min), number(r.P99), r.N)
		}
		if r.Against != "" {
			fmt.Fprintf(w, "; × %.2f of %s", r.Ratio, r.Against)
		}
		if r.Bar > 0 {
			fmt.Fprintf(w, "; bar %s", number(r.Bar))
		}
		if r.Missed {
			fmt.Fprint(w, " MISSED")
		}
		fmt.Fprintln(w)
	}
	if len(s.Absent) > 0 {
		fmt.Fprintf(w, "  not on this machine: %s\n", strings.Join(s.Absent, ", "))
		for _, a := range s.Absent {
			if how := howToGet[a]; how != "" {
				fmt.Fprintf(w, "    %s: %s\n", a, how)
			}
		}
	}
	for _, n := range s.Notes {
		fmt.Fprintf(w, "  %s\n", n)
	}
}

// howToGet says where the peers come from. Their folders belong into PATH or BENCH_PEERS.
var howToGet = map[string]string{
	"envconsul":   "https://releases.hashicorp.com/envconsul/, or go build in a clone of github.com/hashicorp/envconsul",
	"secret-init": "https://github.com/bank-vaults/secret-init/releases, or go build in a clone of it",
	"tini":        "Debian has it: apt-get install tini",
	"dumb-init":   "Debian has it: apt-get install dumb-init",
}

func (r *report) write(file string) error {
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}

func newReport() *report {
	commit, _ := exec.Command("git", "describe", "--always", "--dirty").Output()
	return &report{
		Date: time.Now().UTC().Format("2006-01-02 15:04 UTC"), Machine: machine(),
		Go: runtime.Version(), Commit: strings.TrimSpace(string(commit)),
	}
}

// machine describes what this runs on.
func machine() string {
	cpu, mem := "", ""
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.SplitSeq(string(b), "\n") {
			if name, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				cpu = strings.TrimSpace(v)
				break
			}
		}
	}
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		var kb float64
		if n, _ := fmt.Sscanf(string(b), "MemTotal: %f kB", &kb); n == 1 {
			mem = fmt.Sprintf(", %.0f GiB", kb/(1<<20))
		}
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	virtual := ""
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil && strings.Contains(string(b), " hypervisor ") {
		virtual = ", a virtual machine"
	}
	return fmt.Sprintf("%d × %s%s, Linux %s%s", runtime.NumCPU(), cpu, mem, strings.TrimSpace(string(kernel)), virtual)
}
