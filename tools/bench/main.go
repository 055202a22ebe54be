// Command bench measures vaultexec side by side with the least that a Go program can do (tools/bench/bare) and with
// what else is on PATH: envconsul, secret-init, vault agent, tini, dumb-init. It is where every figure of the README
// comes from. All contestants take turns in one run on one machine; absolute times are the machine's, ratios are the
// program's.
//
//	go run ./tools/bench [-tags TAGS] [-only launch,ending,startup,supervise,restart,handover,scale,fleet,scan] [-n 30] [-check] [-record]
//
// The tables go to standard output and, as JSON, to bench.json. -record also keeps them in docs/bench.json, from which
// the figures of the README and of docs/scale.md are written; -render writes those again without measuring.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// bench is one section of the report.
type bench struct {
	name string
	run  func(*stage) section
}

// sections in the order of the report.
var sections = []bench{
	{"launch", launch},
	{"ending", ending},
	{"startup", startup},
	{"supervise", supervise},
	{"restart", restart},
	{"handover", handover},
	{"scale", scale},
	{"fleet", fleet},
	{"scan", scan},
}

func main() {
	only := flag.String("only", "", "sections to run, separated by commas")
	rounds := flag.Int("n", 30, "rounds of the launches")
	tags := flag.String("tags", "", "of the build, as make has them")
	check := flag.Bool("check", false, "end with 1 when a bar is missed")
	record := flag.Bool("record", false, "keep the figures in docs/bench.json, README.md and docs/scale.md")
	render := flag.Bool("render", false, "write README.md and docs/scale.md from docs/bench.json, and measure nothing")
	flag.Parse()
	if flag.NArg() > 0 || *rounds < 1 {
		fmt.Fprintln(os.Stderr, "bench: only options are taken, and -n is 1 at least; -h lists them")
		os.Exit(2)
	}
	err := run(*only, *tags, *rounds, *check, *record, *render)
	vaulttest.Shutdown()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", vaulttest.Redact(err.Error()))
		os.Exit(1)
	}
}

func run(only, tags string, rounds int, check, record, render bool) error {
	root, err := vaulttest.ModuleRoot()
	if err != nil {
		return err
	}
	kept := filepath.Join(root, "docs", "bench.json")
	if render {
		return renderFrom(root, kept)
	}
	r, err := measure(only, tags, rounds)
	if err != nil {
		return err
	}
	r.print(os.Stdout)
	if err := r.write(filepath.Join(root, "bench.json")); err != nil {
		return err
	}
	if record {
		if only != "" {
			return errors.New("-record keeps a run of all sections, not of some")
		}
		if err := r.write(kept); err != nil {
			return err
		}
		if err := renderFrom(root, kept); err != nil {
			return err
		}
	}
	if check && r.missed() {
		return errors.New("a bar is missed")
	}
	return nil
}

// measure runs the sections.
func measure(only, tags string, rounds int) (r *report, err error) {
	var names []string
	if only != "" {
		names = strings.Split(only, ",")
	}
	for _, n := range names {
		if !slices.ContainsFunc(sections, func(s bench) bool { return s.name == n }) {
			var known []string
			for _, s := range sections {
				known = append(known, s.name)
			}
			return nil, fmt.Errorf("no section %q; there are %s", n, strings.Join(known, ", "))
		}
	}
	s := &stage{rounds: rounds, tags: tags}
	defer s.close()
	defer func() {
		switch p := recover().(type) {
		case nil:
		case failure: // from Fatalf
			r, err = nil, p
		default:
			panic(p)
		}
	}()
	s.set()
	r = newReport()
	for _, sec := range sections {
		if len(names) > 0 && !slices.Contains(names, sec.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: %s\n", sec.name)
		r.Sections = append(r.Sections, sec.run(s))
	}
	return r, nil
}

func renderFrom(root, kept string) error {
	text, err := os.ReadFile(kept)
	if err != nil {
		return err
	}
	var r report
	if err := json.Unmarshal(text, &r); err != nil {
		return err
	}
	for _, f := range []struct {
		file, text string
	}{{"README.md", r.figures()}, {"docs/scale.md", r.costs()}} {
		if err := replaceBlock(filepath.Join(root, f.file), f.text); err != nil {
			return err
		}
	}
	return nil
}

// replaceBlock puts text between the two marks of a file.
func replaceBlock(file, text string) error {
	const begin, end = "<!-- make bench BENCHFLAGS=-record writes this -->\n", "<!-- end -->"
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(old), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no block to be written", file)
	}
	return os.WriteFile(file, []byte(before+begin+text+end+after), 0o644)
}
