// Package needs looks for programs that tests use but that need not be on every machine: servers to be started, tracers,
// container tools. A missing one leaves the test out on a developer's machine and fails it in CI, where CI=true: there
// nothing may be left out unnoticed.
package needs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// SkippedVar names the variable with the file in which left-out tests are noted; make test prints it at the end, because
// go test says nothing about skipped tests of packages that pass.
const SkippedVar = "VAULTEXEC_SKIPPED"

// TB is what this package needs of *testing.T.
type TB interface {
	Helper()
	Name() string
	Skip(args ...any)
	Fatal(args ...any)
}

// also lists further names of a program, for distributions that call it differently.
var also = map[string][]string{
	"vim":          {"vim.tiny", "vim.basic"},
	"busybox":      {"busybox-static"},
	"qemu-aarch64": {"qemu-aarch64-static"},
}

// Program returns the path of a program, or leaves the test out.
func Program(t TB, name string) string {
	t.Helper()
	path, err := Find(name)
	if err != nil {
		Missing(t, name+", which is not installed")
	}
	return path
}

// Missing leaves the test out, or fails it with CI=true, for want of something else than a program. What completes the
// sentence "needs …".
func Missing(t TB, what string) {
	t.Helper()
	msg := "needs " + what
	if os.Getenv("CI") == "true" {
		t.Fatal(msg + "; with CI=true that is a failure")
		return
	}
	note(t.Name() + " " + msg)
	t.Skip(msg)
}

// LeftOut leaves the test out, in CI too, for want of what no package brings to a machine. What completes the sentence
// "needs …", and says which other test has the same.
func LeftOut(t TB, what string) {
	t.Helper()
	note(t.Name() + " needs " + what)
	t.Skip("needs " + what)
}

// note adds a line to the file of left-out tests. One write of a short line in append mode: several test binaries write.
func note(line string) {
	file := os.Getenv(SkippedVar)
	if file == "" {
		return
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		fmt.Fprintf(os.Stderr, "needs: cannot note a left-out test: %v\n", err)
		return
	}
	_, _ = f.WriteString(strings.ReplaceAll(line, "\n", " ") + "\n")
	_ = f.Close()
}

// Find looks in PATH and where distributions put servers: Debian keeps PostgreSQL out of everybody's PATH, and daemons out
// of the PATH of people who are not root.
func Find(name string) (string, error) {
	dirs := []string{"/usr/local/sbin", "/usr/sbin", "/sbin"}
	postgres, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	names := append([]string{name}, also[name]...)
	for _, n := range names {
		if path, err := exec.LookPath(n); err == nil {
			return path, nil
		}
		for _, dir := range append(dirs, postgres...) {
			if path, err := exec.LookPath(filepath.Join(dir, n)); err == nil {
				return path, nil
			}
		}
	}
	return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
}
