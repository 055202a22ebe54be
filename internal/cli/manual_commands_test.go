package cli

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// commandPages are the manual pages of the commands, by the name of their file: vaultexec-rotate(1) and so on.
func commandPages() map[string]string {
	pages := map[string]string{}
	add := func(name, args, summary, about string, opts []option) {
		pages["docs/man/vaultexec-"+name+".1"] = commandPage(name, args, summary, about, opts)
	}
	add("run", "[OPTIONS] -- COMMAND [ARG...]", "start a program with secrets from Vault in its environment",
		"This is vaultexec without the name of a command: vaultexec(1) describes it, with all its options.", nil)
	add("check", "[OPTIONS] [-- COMMAND [ARG...]]", "log in, look at every path: names and versions",
		`The command line of a run can be checked as it stands. It logs in, looks at every
path, and shows names and versions, never a value; and it says what is missing,
down to the policy rule. It creates nothing and starts nothing.`, checkOptions())
	for _, c := range adminCommands {
		add(c.name, c.args, c.summary, c.about, c.options())
	}
	return pages
}

func commandPage(name, args, summary, about string, opts []option) string {
	var b strings.Builder
	fmt.Fprintf(&b, `.\" Generated from the tables that vaultexec --help is made of: make docs.
.TH VAULTEXEC\-%s 1 "" vaultexec
.SH NAME
vaultexec\-%s \- %s
.SH SYNOPSIS
.nf
\fBvaultexec %[2]s\fR %[4]s
.fi
.SH DESCRIPTION
`, strings.ToUpper(roff(name)), roff(name), roff(summary), roff(args))
	b.WriteString(strings.TrimPrefix(roffText(about), ".PP\n"))
	if len(opts) > 0 {
		b.WriteString(".SH OPTIONS\nAn option may also be given as the variable in brackets; the option wins.\n" + roffOptions(opts))
	}
	b.WriteString(`.SH EXIT STATUS
0, or one of the codes in
.BR vaultexec (1),
which
.B vaultexec help exit\-codes
lists, too.
.SH SEE ALSO
.BR vaultexec (1)
`)
	return strings.ReplaceAll(b.String(), ".PP\n.TP\n", ".TP\n")
}

// seeAlso lists the pages of the commands, in the form of the section SEE ALSO.
func seeAlso() string {
	var b strings.Builder
	for _, file := range slices.Sorted(maps.Keys(commandPages())) {
		fmt.Fprintf(&b, ".BR %s (1),\n", roff(strings.TrimSuffix(filepath.Base(file), ".1")))
	}
	return b.String()
}

func TestManualOfCommands(t *testing.T) {
	pages := commandPages()
	if len(pages) != len(commandNames()) {
		t.Errorf("%d pages, %d commands", len(pages), len(commandNames()))
	}
	for file, page := range pages {
		vaulttest.Golden(t, file, page)
	}
	there, _ := filepath.Glob("docs/man/*")
	for _, file := range there {
		if pages[file] == "" {
			t.Errorf("%s is of no command", file)
		}
	}
	for _, name := range commandNames() {
		if !strings.Contains(manualPage(), ".BR vaultexec\\-"+name+" (1)") {
			t.Errorf("vaultexec(1) does not lead to vaultexec-%s(1)", name)
		}
	}
}

// The formatters have nothing to complain about, and man finds the page by the words that a person types.
func TestManualOfCommandsIsClean(t *testing.T) {
	pages := slices.Sorted(maps.Keys(commandPages()))
	t.Run("mandoc", func(t *testing.T) {
		out, _ := exec.Command(needs.Program(t, "mandoc"), append([]string{"-Tlint", "-Wstyle"}, pages...)...).CombinedOutput()
		for line := range strings.Lines(string(out)) {
			// They have no date on purpose.
			if !strings.Contains(line, "missing date") {
				t.Error(line)
			}
		}
	})
	t.Run("groff", func(t *testing.T) {
		groff := needs.Program(t, "groff")
		for _, page := range pages {
			cmd := exec.Command(groff, "-man", "-Tutf8", "-ww", "-P-cbou", page)
			var stderr strings.Builder
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if name := strings.TrimSuffix(filepath.Base(page), ".1"); err != nil || stderr.Len() > 0 || !strings.Contains(string(out), "\n       "+name+" - ") {
				t.Errorf("%s: %v\n%s%.400s", page, err, &stderr, out)
			}
		}
	})
	t.Run("man", func(t *testing.T) {
		man := needs.Program(t, "man")
		dir := filepath.Join(t.TempDir(), "man1")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, page := range append(pages, "docs/vaultexec.1") {
			b, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			vaulttest.WriteFile(t, filepath.Join(dir, filepath.Base(page)), string(b), 0o644)
		}
		for _, words := range [][]string{{"vaultexec-rotate"}, {"vaultexec", "rotate"}} {
			cmd := exec.Command(man, append([]string{"-M", filepath.Dir(dir)}, words...)...)
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "MANPAGER=cat", "PAGER=cat", "MANWIDTH=100", "LC_ALL=C.UTF-8", "HOME=" + t.TempDir()}
			out, err := cmd.Output()
			if err != nil || !strings.Contains(string(out), "a new value for one key") || !strings.Contains(string(out), "--charset") {
				t.Errorf("man %q: %v\n%.400s", words, err, out)
			}
		}
	})
}
