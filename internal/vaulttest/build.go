package vaulttest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/agenticverz/vaultexec/internal/wait"
)

// These are the programs that this test binary has built, by package and way of building. They are built once and not
// re-executed from the test binary: process facts (main thread, signals, dumpability, a static binary without libc) are
// what is tested.
var built struct {
	sync.Mutex
	programs map[string]string
}

// Race tells whether Build builds with the race detector: as this test binary was built, or because VAULTEXEC_TEST_RACE asks
// for it. A test that only starts the program and looks at it needs no detector itself: looking costs several times as much then.
var Race = raceBuild || os.Getenv("VAULTEXEC_TEST_RACE") != ""

// Build builds a program of this module, once for all tests, and returns its path. The package is named from the
// module's root: "." is vaultexec. With Race it has the race detector; then GORACE should hold what Gorace says, or every
// run of it ends with a second of sleep.
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
	dir, err := TempDir("bin") // a folder of its own, to be put into PATH
	if err != nil {
		t.Fatalf("%v", err)
	}
	name := path.Base(pkg)
	if pkg == "." {
		name = "vaultexec"
	}
	out := filepath.Join(dir, name)
	args := []string{"-trimpath", "./" + pkg}
	if race {
		args = append([]string{"-race"}, args...)
	}
	if err := GoBuild(context.Background(), root, out, race, args...); err != nil {
		t.Fatalf("cannot build %s: %v", pkg, err)
	}
	if built.programs == nil {
		built.programs = map[string]string{}
	}
	built.programs[key] = out
	return out
}

// GoBuild runs go build in dir with these arguments, the package last, and writes the program out. When ctx ends before
// it, nothing of it is left: no compilers that go has started, and no work folder, which go itself leaves behind.
func GoBuild(ctx context.Context, dir, out string, cgo bool, args ...string) error {
	work, err := os.MkdirTemp(filepath.Dir(out), filepath.Base(out)+".work-")
	if err != nil {
		return fmt.Errorf("cannot make a work folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(work) }()
	// Without a version stamp: git refuses to give one for a checkout that belongs to somebody else, as in many a CI.
	cmd := exec.Command("go", append([]string{"build", "-buildvcs=false", "-o", out}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=", "GOARCH=", "GOWORK=off", "GOTMPDIR="+work)
	if cgo {
		cmd.Env = append(cmd.Env, "CGO_ENABLED=1")
	}
	p, err := StartProcess(cmd)
	if err != nil {
		return err
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		group := -cmd.Process.Pid
		wait.For(5*time.Second, func() bool {
			return syscall.Kill(group, syscall.SIGKILL) == syscall.ESRCH // zombies count until somebody reaps them
		})
		<-p.done
		return ctx.Err()
	}
	if !cmd.ProcessState.Success() {
		return fmt.Errorf("go build: %v\n%s", cmd.ProcessState, p.log)
	}
	return nil
}
