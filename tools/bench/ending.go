package main

import (
	"os/exec"
	"time"
)

// The bars of a command that ends at once.
const (
	barSupervise = 1.25 // --supervise against --replace, with two paths
	barEnd       = 1.0  // ms from the command's last statement to vaultexec's end
)

// ending measures whole runs of a command that ends at once: what it costs to stay as its parent, and how soon its end is passed on.
func ending(s *stage) section {
	sec := section{Name: "ending", Title: "Ending: whole runs of a command that ends at once, with 2 paths over HTTP with a token"}
	type contestant struct {
		key, what string
		args      []string
		wall, end []float64
	}
	ours := func(mode string) []string {
		return append(append([]string{s.vaultexec, mode}, paths(2)...), "--", s.child)
	}
	all := []*contestant{
		{key: "alone", what: "the command alone", args: []string{s.child}},
		{key: "replace", what: "--replace", args: ours("--replace")},
		{key: "supervise", what: "--supervise", args: ours("--supervise")},
	}
	for _, name := range []string{"tini", "dumb-init"} {
		if path, err := exec.LookPath(name); err == nil {
			all = append(all, &contestant{key: name, what: name + ", no secrets", args: []string{path, "--", s.child}})
		} else {
			sec.Absent = append(sec.Absent, name)
		}
	}
	for round := range 4*s.rounds + 2 {
		for _, c := range all {
			p := s.start(s.plain.env(), c.args...)
			last, err := p.report()
			s.must(err)
			_, err = p.wait()
			over := now()
			s.must(err)
			if round >= 2 { // caches are warm
				c.wall = append(c.wall, ms(over-p.began))
				c.end = append(c.end, ms(over-last))
			}
		}
		time.Sleep(time.Millisecond) // what the last one left behind goes
	}
	for _, c := range all {
		r := sampled(c.key, c.what+": from its start to its end", "ms", c.wall)
		if c.key == "supervise" {
			r = sec.to(r, "replace", barSupervise)
		}
		sec.add(r)
	}
	for _, c := range all {
		r := sampled(c.key+"-end", c.what+": from the command's last statement to the end", "ms", c.end)
		if c.key == "supervise" {
			r = r.limit(barEnd)
		}
		sec.add(r)
	}
	return sec
}
