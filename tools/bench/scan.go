package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

const (
	scanValues = 200
	scanRounds = 7
	barScan    = 2 // times as long as grep, which knows no form but the plain one
)

// scan measures vaultexec scan beside grep, which looks for the same made-up values as they are, in Go's own source.
func scan(s *stage) section {
	sec := section{Name: "scan", Title: "Looking for secrets in plain text: 200 values in the source of Go"}
	tree := filepath.Join(strings.TrimSpace(s.command("go", "env", "GOROOT")), "src")
	files, size := 0, int64(0)
	s.must(filepath.WalkDir(tree, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			files, size = files+1, size+info.Size()
		}
		return err
	}))
	data, values, r := map[string]string{}, "", rand.New(rand.NewPCG(1, 2))
	for i := range scanValues {
		v := rotated(r)
		data[fmt.Sprintf("KEY_%d", i)] = v
		values += v + "\n"
	}
	s.plain.srv.PutKV(s, "secret", "scan", data)
	list := filepath.Join(s.dir, "values")
	s.must(os.WriteFile(list, []byte(values), 0o600))
	defer os.Remove(list)

	type contestant struct {
		key, what string
		argv      []string
		exit      int
		wall, cpu []float64
	}
	all := []*contestant{{key: "vaultexec", what: "vaultexec scan, every form", argv: []string{s.vaultexec, "scan", "--path", "scan", tree}}}
	if grep, err := exec.LookPath("grep"); err == nil {
		all = append([]*contestant{{key: "grep", what: "grep -r -F -f, as they are", argv: []string{grep, "-r", "-F", "-f", list, tree}, exit: 1}}, all...)
	} else {
		sec.Absent = append(sec.Absent, "grep")
	}
	for round := range scanRounds + 1 {
		for _, c := range all {
			cmd := exec.Command(c.argv[0], c.argv[1:]...)
			cmd.Env = append(s.plain.env(), "LC_ALL=C")
			began := time.Now()
			out, err := cmd.CombinedOutput()
			took := time.Since(began)
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) || cmd.ProcessState.ExitCode() != c.exit {
				s.Fatalf("%s: %v: %s", c.key, err, vaulttest.Redact(string(out)))
			}
			if round > 0 { // caches are warm
				c.wall = append(c.wall, took.Seconds())
				c.cpu = append(c.cpu, (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds())
			}
		}
	}
	for _, c := range all {
		r, speed := sampled(c.key, c.what, "s", c.wall), []float64{}
		if c.key != "grep" {
			r = sec.to(r, "grep", barScan)
		}
		for _, w := range c.wall {
			speed = append(speed, float64(size)/1e6/w)
		}
		sec.add(r, sampled(c.key+"-cpu", "  CPU", "s", c.cpu), sampled(c.key+"-speed", "  speed", "MB/s", speed))
	}
	sec.Notes = append(sec.Notes, fmt.Sprintf("%d files, %.0f MB. vaultexec uses all processors, and its login and read are in its time.", files, float64(size)/1e6))
	return sec
}

// rotated is a value as vaultexec rotate makes it, but always the same.
func rotated(r *rand.Rand) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	b := make([]byte, 32)
	for i := range b {
		b[i] = letters[r.IntN(len(letters))]
	}
	return string(b)
}
