// Command bench measures how long vaultexec takes from its start to the exec of the command, against the least that a Go
// program can do (tools/bench/bare), side by side in one run: A B A B, medians, ratios. Absolute times are the machine's,
// ratios are the program's.
//
//	go run ./tools/bench [-n 60] [-check]
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// The bars: two paths against the bare program, fifty against two, size of the program.
const (
	barTwo   = 1.5
	barFifty = 2.0
	barSize  = 12 << 20
)

// contestant is one of the programs that take turns.
type contestant struct {
	name string
	args []string
	took []time.Duration
}

func main() {
	n := flag.Int("n", 60, "rounds")
	check := flag.Bool("check", false, "end with 1 when a bar is missed")
	flag.Parse()
	missed, err := bench(*n)
	vaulttest.Shutdown()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", vaulttest.Redact(err.Error()))
		os.Exit(1)
	}
	if missed && *check {
		os.Exit(1)
	}
}

func bench(rounds int) (missed bool, err error) {
	dir, err := os.MkdirTemp("", "vaultexec-bench-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	vaultexec, err := build(dir, ".", "vaultexec")
	if err != nil {
		return false, err
	}
	bare, err := build(dir, "tools/bench/bare", "bare")
	if err != nil {
		return false, err
	}
	srv, err := vaulttest.StartDev()
	if err != nil {
		return false, err
	}
	env, err := fill(srv, 50)
	if err != nil {
		return false, err
	}
	paths := func(n int) []string {
		args := []string{vaultexec}
		for i := range n {
			args = append(args, "--path", "app-"+strconv.Itoa(i))
		}
		return append(args, "--", "/bin/true")
	}
	two := &contestant{name: "vaultexec, 2 paths", args: paths(2)}
	bareTwo := &contestant{name: "bare program, 2 paths", args: []string{bare, "2", "/bin/true"}}
	fifty := &contestant{name: "vaultexec, 50 paths", args: paths(50)}
	bareFifty := &contestant{name: "bare program, 50 paths", args: []string{bare, "50", "/bin/true"}}
	all := []*contestant{two, bareTwo, fifty, bareFifty}
	for round := range rounds + 3 {
		for _, c := range all {
			took, err := run(c.args, env)
			if err != nil {
				return false, fmt.Errorf("%s: %w", c.name, err)
			}
			if round >= 3 { // caches are warm
				c.took = append(c.took, took)
			}
		}
	}
	for _, c := range all {
		slices.Sort(c.took)
		fmt.Printf("%-24s %8.2f ms   (quarter %.2f, three quarters %.2f)\n", c.name, ms(c.at(2)), ms(c.at(1)), ms(c.at(3)))
	}
	bar := func(what string, got, limit float64, unit string) {
		note := ""
		if got > limit {
			note, missed = "   MISSED", true
		}
		fmt.Printf("%-44s %6.2f%s   bar %.2f%s%s\n", what, got, unit, limit, unit, note)
	}
	info, err := os.Stat(vaultexec)
	if err != nil {
		return false, err
	}
	bar("2 paths, times the bare program", ms(two.at(2))/ms(bareTwo.at(2)), barTwo, "")
	bar("50 paths, times 2 paths", ms(fifty.at(2))/ms(two.at(2)), barFifty, "")
	fmt.Printf("%-44s %6.2f    Vault's own work for 50 requests on this machine\n", "the same of the bare program", ms(bareFifty.at(2))/ms(bareTwo.at(2)))
	fmt.Printf("%-44s %6.2f\n", "50 paths, times the bare program", ms(fifty.at(2))/ms(bareFifty.at(2)))
	bar("size of the program", float64(info.Size())/(1<<20), barSize>>20, " MiB")
	return missed, nil
}

// at returns a quartile.
func (c *contestant) at(quarter int) time.Duration { return c.took[len(c.took)*quarter/4] }

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// build builds as a release is built.
func build(dir, pkg, name string) (string, error) {
	root, err := vaulttest.ModuleRoot()
	if err != nil {
		return "", err
	}
	out := filepath.Join(dir, name)
	cmd := exec.Command("go", "build", "-trimpath", "-tags", "urfave_cli_no_docs", "-ldflags", "-s -w", "-o", out, "./"+pkg)
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build %s: %w\n%s", pkg, err, text)
	}
	return out, nil
}

// fill writes n secrets and returns the environment of both programs.
func fill(srv *vaulttest.Server, n int) ([]string, error) {
	for i := range n {
		data := map[string]string{}
		for k := range 5 {
			data[fmt.Sprintf("KEY_%d_%d", i, k)] = vaulttest.Canary("bench")
		}
		if _, err := srv.TryPutKV("secret", "app-"+strconv.Itoa(i), data); err != nil {
			return nil, err
		}
	}
	policy := map[string]string{"policy": `path "secret/data/*" { capabilities = ["read"] }`}
	if _, err := srv.TryMust("PUT", "sys/policies/acl/bench", policy); err != nil {
		return nil, err
	}
	token, err := srv.TryToken(vaulttest.TokenOpts{Policies: []string{"bench"}, NoDefault: true})
	if err != nil {
		return nil, err
	}
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "VAULT_ADDR=" + srv.Addr, "VAULT_TOKEN=" + token}, nil
}

// run runs a program to its end and returns the time that it took.
func run(args, env []string) (time.Duration, error) {
	var stderr strings.Builder
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = env
	begin := time.Now()
	err := cmd.Run()
	took := time.Since(begin)
	if err != nil { // once more, to see why
		cmd = exec.Command(args[0], args[1:]...)
		cmd.Env, cmd.Stderr = env, &stderr
		_ = cmd.Run()
		return 0, fmt.Errorf("%w: %s", err, stderr.String())
	}
	return took, nil
}
