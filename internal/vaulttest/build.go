package vaulttest

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"sync"
)

// Programs that this test binary has built, by package and way of building. They are built once and not re-executed from
// the test binary: process facts (main thread, signals, dumpability, a static binary without libc) are what is tested.
var built struct {
	sync.Mutex
	programs map[string]string
}

// Build builds a program of this module, once for all tests, and returns its path. The package is named from the module's
// root: "." is vaultexec. The program has the race detector when the test has it; then GORACE should hold what Gorace
// says, or every run of it ends with a second of sleep.
func Build(t TB, pkg string) string {
	t.Helper()
	return build(t, pkg, Race)
}

// BuildStatic is Build as a release is built: static, never with the race detector.
func BuildStatic(t TB, pkg string) string {
	t.Helper()
	return build(t, pkg, false)
}

// Gorace makes a program with the race detector end as it would without, but for code 66 when there was a race.
const Gorace = "atexit_sleep_ms=0 halt_on_error=1"

func build(t TB, pkg string, race bool) string {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	key := fmt.Sprint(pkg, " ", race)
	if p := built.programs[key]; p != "" {
		return p
	}
	root, err := ModuleRoot()
	if err != nil {
		t.Fatalf("%v", err)
	}
	dir, err := tempDir("bin") // a folder of its own, to be put into PATH
	if err != nil {
		t.Fatalf("%v", err)
	}
	name := path.Base(pkg)
	if pkg == "." {
		name = "vaultexec"
	}
	out := filepath.Join(dir, name)
	args := []string{"build", "-buildvcs=false", "-trimpath", "-o", out}
	cgo := "CGO_ENABLED=0"
	if race {
		args, cgo = append(args, "-race"), "CGO_ENABLED=1"
	}
	cmd := exec.Command("go", append(args, "./"+pkg)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), cgo)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cannot build %s: %v\n%s", pkg, err, text)
	}
	if built.programs == nil {
		built.programs = map[string]string{}
	}
	built.programs[key] = out
	return out
}
