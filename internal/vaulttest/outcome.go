package vaulttest

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// MinCanary is how long a value is that cannot stand somewhere by coincidence, as "1" or "true" can.
const MinCanary = 8

// Ending says how a program ended: its code, or "signal NAME".
func Ending(state *os.ProcessState) string {
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return "signal " + strings.TrimPrefix(unix.SignalName(ws.Signal()), "SIG")
	}
	return strconv.Itoa(state.ExitCode())
}

// Wanted makes the same of a script's argument: 7, or TERM.
func Wanted(code string) string {
	if _, err := strconv.Atoi(code); err != nil {
		return "signal " + code
	}
	return code
}

// InRoot makes the module's root the working folder: what a test names (testdata/, deploy/, the program) is there.
func InRoot() {
	for !Exists("go.mod") {
		if dir, err := os.Getwd(); err != nil || dir == "/" || os.Chdir("..") != nil {
			panic("no go.mod above")
		}
	}
}

// WriteFile writes a file that a test needs.
func WriteFile(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// Exists reports whether there is a file.
func Exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

var update = flag.Bool("update", false, "write the generated files anew")

// Golden compares a generated file with what is checked in.
func Golden(t *testing.T, file, text string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(b) == text {
		return
	}
	was, is := strings.Split(string(b), "\n"), strings.Split(text, "\n")
	var diff strings.Builder
	for _, l := range was {
		if !slices.Contains(is, l) {
			fmt.Fprintf(&diff, "-%s\n", l)
		}
	}
	for _, l := range is {
		if !slices.Contains(was, l) {
			fmt.Fprintf(&diff, "+%s\n", l)
		}
	}
	t.Errorf("%s is not current; if the change is meant, run the test again with -update, which writes it:\n%s", file,
		diff.String())
}

// WellConfined fails for a unit to which systemd gives more than 2.0 of 10.
func WellConfined(t *testing.T, analyze, file string) {
	t.Helper()
	if out, err := exec.Command(analyze, "security", "--offline=yes", "--threshold=20", "--no-pager",
		file).CombinedOutput(); err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
}
