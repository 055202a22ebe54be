package launcher

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// TestFindProgram: execvp(3)'s search, element by element.
func TestFindProgram(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	put := func(path, text string, mode os.FileMode) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	const script = "#!/bin/sh\n"
	put("a/tool", script, 0o644)
	put("b/tool", script, 0o755)
	put("here", script, 0o755)
	put("c/dir/x", script, 0o755)
	put("a/only", script, 0o644)
	for _, c := range []struct {
		path string // "-" for none
		name string
		want string
		kind fault.Kind
	}{
		{"a:b", "tool", "b/tool", 0},
		{"b:a", "tool", "b/tool", 0},
		{"a", "tool", "", fault.NotExecutable},
		{"a:nothing", "only", "", fault.NotExecutable},
		{"c", "dir", "", fault.NotExecutable},
		{"a/tool:b", "tool", "b/tool", 0}, // an element that is no folder
		{"", "here", "./here", 0},
		{":b", "here", "./here", 0},
		{"b:", "here", "./here", 0},
		{"b::a", "here", "./here", 0},
		{"b", "here", "", fault.NotFound},
		{"b", "./here", "./here", 0},
		{"b", "b/tool", "b/tool", 0},
		{"b", "b/none", "", fault.NotFound},
		{"b", "here/x", "", fault.NotFound},
		{"b", "", "", fault.NotFound},
		{"-", "sh", "/bin/sh", 0},
	} {
		environ := []string{"A=b", "PATH=" + c.path, "PATH=/nothing"}
		if c.path == "-" {
			environ = nil
		}
		p, err := findProgram([]string{c.name, "x"}, environ)
		if c.kind != 0 {
			if !fault.Is(err, c.kind) {
				t.Errorf("%q in %q: %q, %v", c.name, c.path, p.path, err)
			}
			continue
		}
		if err != nil || p.path != c.want || p.argv[0] != c.name || len(p.argv) != 2 {
			t.Errorf("%q in %q: %q %q, %v; want %q", c.name, c.path, p.path, p.argv, err, c.want)
		}
	}
}

func TestParseSignal(t *testing.T) {
	for in, want := range map[string]int{"TERM": 15, "SIGTERM": 15, "sigterm": 15, "15": 15, "KILL": 9, "RTMIN": 34, "SIGRTMIN+3": 37, "RTMIN+30": 64, "64": 64, "HUP": 1} {
		if sig, ok := ParseSignal(in); !ok || int(sig) != want {
			t.Errorf("ParseSignal(%q) = %d, %v", in, sig, ok)
		}
	}
	for _, in := range []string{"", "SIG", "0", "-1", "65", "FOO", "RTMIN+31", "RTMIN-1", "RTMIN+", "RTMIN++1", "RTMIN+-1", "RTMIN3", "SIGSIGTERM", "TERM ", "1.5"} {
		if sig, ok := ParseSignal(in); ok {
			t.Errorf("ParseSignal(%q) = %d", in, sig)
		}
	}
}

// FuzzScriptInterpreter: what we read from a #! line is what the kernel would run.
func FuzzScriptInterpreter(f *testing.F) {
	for _, s := range []string{"#!/bin/sh\n", "#! /bin/sh -e\n", "#!\n", "#!  \t/bin/sh\r\n", "#!/bin/sh", "#!/usr/bin/env python3\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, head []byte) {
		if len(head) < 2 {
			return
		}
		interp := scriptInterpreter(head)
		if strings.ContainsAny(interp, " \t\n\x00") {
			t.Errorf("%q has the interpreter %q", head, interp)
		}
	})
}

// FuzzElfInterpreter never panics, whatever a file begins with.
func FuzzElfInterpreter(f *testing.F) {
	if b, err := os.ReadFile("/bin/sh"); err == nil {
		f.Add(b[:min(len(b), 4096)])
	}
	f.Add([]byte("\x7fELF\x01\x02" + strings.Repeat("\xff", 250)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= 4 {
			_ = elfInterpreter(strings.NewReader(string(b)), b[:min(len(b), 256)])
		}
	})
}
