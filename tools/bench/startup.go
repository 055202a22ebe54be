package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// barSize bounds the program.
const barSize = 14 // MB

// startup tells what happens before main, and what the program is made of.
func startup(s *stage) section {
	sec := section{Name: "startup", Title: "Start-up: before main, and the size of the program"}
	for _, p := range []struct{ key, what, path string }{
		{"vaultexec", "vaultexec", s.vaultexec}, {"bare", "bare program", s.bare}} {
		total := map[string][]float64{}
		packages := map[string][]float64{}
		var bytes, allocs float64
		for range 20 {
			inits := s.inits(p.path)
			sum := 0.0
			bytes, allocs = 0, 0
			for _, i := range inits {
				sum += i.ms
				bytes += i.bytes
				allocs += i.allocs
				packages[i.pkg] = append(packages[i.pkg], i.ms)
			}
			total[p.key] = append(total[p.key], sum)
		}
		sec.add(
			sampled("init-"+p.key, "package initialization of "+p.what, "ms", total[p.key]),
			single("init-bytes-"+p.key, "  allocated", "kB", bytes/1000),
			single("init-allocs-"+p.key, "  allocations", "", allocs),
		)
		if p.key == "vaultexec" {
			var rows []row
			for pkg, took := range packages {
				rows = append(rows, sampled("init-of-"+pkg, "  "+pkg, "ms", took))
			}
			slices.SortFunc(rows, func(a, b row) int { return int(1e6 * (b.Median - a.Median)) })
			sec.add(rows[:min(8, len(rows))]...)
		}
	}
	for _, p := range []struct{ key, what, path string }{
		{"vaultexec", "vaultexec", s.vaultexec}, {"bare", "bare program", s.bare}} {
		info, err := os.Stat(p.path)
		s.must(err)
		r := single("size-"+p.key, "size of "+p.what, "MB", float64(info.Size())/1e6)
		if p.key == "vaultexec" {
			r = r.limit(barSize)
		}
		sec.add(r)
	}
	for i, p := range s.sizes() {
		if i < 14 {
			sec.add(single("size-of-"+p.pkg, "  "+p.pkg, "kB", p.bytes/1000))
		}
	}
	sec.Notes = append(sec.Notes,
		"Sizes by package are of code and data with a symbol (go tool nm); the rest is the runtime's tables of them.")
	return sec
}

// initOf is a line of GODEBUG=inittrace=1.
type initOf struct {
	pkg               string
	ms, bytes, allocs float64
}

// inits reads what a program does before main.
func (s *stage) inits(path string) []initOf {
	// --version would do for vaultexec; the bare program has nothing of the kind.
	cmd := exec.Command(path, "0", "/bin/true")
	if path == s.vaultexec {
		cmd = exec.Command(path, "--version")
	}
	cmd.Env = []string{"GODEBUG=inittrace=1", "PATH=/bin"}
	var b strings.Builder
	cmd.Stderr = &b
	s.must(cmd.Run())
	var all []initOf
	for line := range strings.SplitSeq(b.String(), "\n") {
		// init net/http @1.2 ms, 0.1 ms clock, 4712 bytes, 49 allocs
		f := strings.Fields(line)
		if len(f) < 11 || f[0] != "init" {
			continue
		}
		i := initOf{pkg: f[1]}
		i.ms, _ = strconv.ParseFloat(f[4], 64)
		i.bytes, _ = strconv.ParseFloat(f[7], 64)
		i.allocs, _ = strconv.ParseFloat(f[9], 64)
		all = append(all, i)
	}
	if len(all) == 0 {
		s.Fatalf("%s traced no initialization", path)
	}
	return all
}

// part is what a package adds to the program.
type part struct {
	pkg   string
	bytes float64
}

// sizes reads the symbols of a build that still has them.
func (s *stage) sizes() []part {
	full := s.build("vaultexec-symbols", ".", "")
	file := float64(fileSize(s, full))
	bytes := map[string]float64{}
	for line := range strings.SplitSeq(s.command("go", "tool", "nm", "-size", full), "\n") {
		f := strings.Fields(line)
		if len(f) < 4 || strings.EqualFold(f[2], "b") { // zeroed memory is not in the file
			continue
		}
		n, err := strconv.ParseFloat(f[1], 64)
		if err == nil && n < file { // 32 MiB that are reserved for entropy count as data
			bytes[packageOf(f[3])] += n
		}
	}
	s.must(os.Remove(full))
	var all []part
	for pkg, n := range bytes {
		all = append(all, part{pkg, n})
	}
	slices.SortFunc(all, func(a, b part) int { return int(b.bytes - a.bytes) })
	return all
}

// packageOf returns the package of a symbol: net/http.(*Client).Do is of net/http.
func packageOf(symbol string) string {
	switch {
	case strings.HasPrefix(symbol, "type:"), strings.HasPrefix(symbol, "go:"), strings.HasPrefix(symbol, "runtime."):
		name, _, _ := strings.Cut(symbol, ".")
		if strings.HasPrefix(symbol, "type:") {
			return "types of all packages"
		}
		if strings.HasPrefix(symbol, "go:") {
			return "strings and tables of the linker"
		}
		return name
	}
	dir, base := filepath.Split(symbol)
	name, _, ok := strings.Cut(base, ".")
	if !ok {
		return "other"
	}
	return strings.TrimSuffix(fmt.Sprintf("%s%s", dir, name), "/")
}
