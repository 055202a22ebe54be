package launcher

import (
	"fmt"
	"slices"
	"strings"

	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// A command that was not found is often not a command: something that a shell would have understood was handed over as
// the name of a program. The error calls each such thing what it is, and shows the line to write instead.

// notFound is the failure for a command that was not found anywhere.
func notFound(argv []string) *fault.Error {
	name := argv[0]
	f := &fault.Error{Kind: fault.NotFound, Cause: fault.Misspelled, What: fmt.Sprintf("cannot start %q", name),
		Why:  "command not found",
		Hint: "check its spelling and PATH, or write its path; aliases and functions of a shell are not known here"}
	if notAProgram(f, argv) {
		f.Cause = 0
	}
	return f
}

// notAProgram says of a failure what was given in place of a program, if that can be told.
func notAProgram(f *fault.Error, argv []string) bool {
	name := argv[0]
	variable, _, assigned := strings.Cut(name, "=")
	line := lineOf(argv)
	switch {
	case assigned && environ.IsName(variable): // its value may be a secret
		f.What = fmt.Sprintf("cannot start %q", variable+"=…")
		f.Why = "it is an assignment, which only a shell understands"
		f.Hint = fmt.Sprintf("write -- env %s=VALUE COMMAND, or put the assignment before vaultexec", variable)
	case strings.HasPrefix(name, "-"):
		f.Why = "it begins with a dash, and what follows -- is the command"
		f.Hint = "write options of vaultexec before --, and those of the command after its name"
	case strings.HasPrefix(name, "["+`"`), strings.HasPrefix(name, "['"):
		f.Why = "it is a list of words in brackets"
		f.Hint = "leave brackets, quotes and commas out here; Docker takes such a list only with double quotes and as the whole line"
	case strings.HasPrefix(name, "~"):
		f.Why = `no shell has expanded "~"`
		f.Hint = "a shell does that outside of quotes only: write the whole path"
	case strings.HasPrefix(name, "$"):
		f.Why = "no shell has expanded the variable"
		f.Hint = "a shell does that outside of single quotes only; where no shell reads the line, have one do it: -- sh -c 'exec " +
			name + "'"
	case strings.HasSuffix(name, "\r"):
		f.Why = "its name ends in a carriage return"
		f.Hint = "save the file that it is in with Unix line endings"
	case strings.ContainsAny(name, "|&;<>"):
		f.What = fmt.Sprintf("cannot start %q", lineOf(argv[:1]))
		f.Why = "it is a line for a shell"
		f.Hint = "have a shell read it: -- sh -c " + shellWord(line)
	case strings.ContainsAny(name, " \t\n"):
		line = lineOf(argv[:1])
		f.What = fmt.Sprintf("cannot start %q", line)
		f.Why = "it is a whole command line in one argument"
		f.Hint = fmt.Sprintf(
			"write its words one by one, without the quotes around them: -- %s; or have a shell read it: -- sh -c %s",
			line, shellWord(line))
		if strings.ContainsAny(name, `'"\$*`) {
			f.Hint = "have a shell read it: -- sh -c " + shellWord(line)
		}
	case name == "cd":
		f.Why = "it belongs to the shell"
		f.Hint = "name the folder with --chdir DIR, and the command after --"
	case slices.Contains(bashOnly, name):
		f.Why = "it belongs to the shell"
		f.Hint = "have bash read the line: -- bash -c " + shellWord(line)
	case slices.Contains(shellWords, name):
		f.Why = "it belongs to the shell"
		f.Hint = "have a shell read the line: -- sh -c " + shellWord(line)
	default:
		return false
	}
	return true
}

// lineOf joins the words of a command line. One that may hold a secret is cut: what is given stands in logs.
func lineOf(argv []string) string {
	words := strings.Fields(strings.Join(argv, " "))
	for i, w := range words {
		if i > 0 && (strings.Contains(w, "=") || strings.HasPrefix(w, "-p") || vault.LooksSecret(w)) {
			return strings.Join(words[:i], " ") + " …"
		}
	}
	return strings.Join(words, " ")
}

// noPath reports whether a name with a slash in it is hardly meant as a path. If it has a blank, its first word is a
// program.
func noPath(dir, name string) bool {
	variable, _, assigned := strings.Cut(name, "=")
	if assigned && environ.IsName(variable) || strings.ContainsAny(name[:1], "~$-[") {
		return true
	}
	first, _, several := strings.Cut(name, " ")
	return several && first != "" && (!strings.Contains(first, "/") || executable(inDir(dir, first)) == nil)
}

// shellWords are built into the shell and are no programs of their own (POSIX.1-2024, 2.4 and 2.15, and what every
// shell adds).
var shellWords = []string{".", ":", "!", "{", "(", "alias", "bg", "break", "case", "command", "continue", "eval",
	"exec", "exit", "export", "fg", "for", "getopts", "hash", "if", "jobs", "local", "read", "readonly",
	"return", "set",
	"shift", "times", "trap", "type", "ulimit", "umask", "unalias", "unset", "until", "wait", "while"}

// bashOnly has what dash, the sh of Debian, does not know.
var bashOnly = []string{"source", "[[", "((", "builtin", "declare", "disown", "enable", "function", "let", "mapfile",
	"popd", "pushd", "select", "shopt", "typeset"}

// shellWord quotes a line for a shell.
func shellWord(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
