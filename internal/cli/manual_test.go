package cli

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// The manual page and docs/options.md are made here and not in the program, which would only grow by it: from the same tables
// as --help, by `make docs`, which runs TestManual with -update. They are checked in; that they are current is a test.
func TestManual(t *testing.T) {
	vaulttest.Golden(t, "docs/vaultexec.1", manualPage())
	vaulttest.Golden(t, "docs/options.md", optionsPage())
}

// roff makes text safe for the formatter.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "…", "...", "±", `\(+-`, "→", `\(->`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}

// roffLines breaks a text into lines of the length that the formatters like. A width of a column for each byte is near enough.
func roffLines(s string) string {
	var b strings.Builder
	column := 0
	for _, w := range strings.Fields(s) {
		if w = roff(w); column > 0 && column+1+len(w) > 80 {
			b.WriteString("\n")
			column = 0
		} else if column > 0 {
			b.WriteString(" ")
			column++
		}
		b.WriteString(w)
		column += len(w)
	}
	return b.String() + "\n"
}

// roffText formats a help text: lines that are indented stay as they are, the others are one paragraph up to an empty line.
func roffText(text string) string {
	var b strings.Builder
	verbatim, fresh := false, true
	for line := range strings.Lines(strings.Trim(text, "\n") + "\n") {
		line = strings.TrimRight(line, "\n")
		switch indented := strings.HasPrefix(line, "  "); {
		case line == "":
			fresh = true
			continue
		case indented && !verbatim:
			b.WriteString(".PP\n.nf\n")
		case indented && fresh:
			b.WriteString("\n")
		case !indented && verbatim:
			b.WriteString(".fi\n.PP\n")
		case !indented && fresh:
			b.WriteString(".PP\n")
		}
		verbatim, fresh = strings.HasPrefix(line, "  "), false
		if verbatim {
			b.WriteString(roff(line) + "\n")
			continue
		}
		b.WriteString(roffLines(line))
	}
	if verbatim {
		b.WriteString(".fi\n")
	}
	return b.String()
}

func roffOption(o option) string {
	head := `\fB` + roff("--"+o.name) + `\fR`
	if o.arg != "" {
		head += ` \fI` + roff(o.arg) + `\fR`
	}
	return ".TP\n" + head + "\n" + roffLines(o.text())
}

func roffOptions(opts []option) string {
	var b strings.Builder
	for _, g := range append([]string{groupOwn}, groups...) {
		head := ".SS " + g + "\n"
		for _, o := range opts {
			if o.group == g {
				b.WriteString(head + roffOption(o))
				head = ""
			}
		}
	}
	return b.String()
}

func manualPage() string {
	var b strings.Builder
	// Without a date and a version: the page is that of the program beside it, and the same in every build.
	b.WriteString(`.\" Generated from the tables that vaultexec --help is made of: make docs.
.TH VAULTEXEC 1 "" vaultexec
.SH NAME
vaultexec \- start a program with secrets from Vault in its environment
.SH SYNOPSIS
.nf
\fBvaultexec\fR [\fIOPTIONS\fR] \-\- \fICOMMAND\fR [\fIARG\fR...]
\fBvaultexec check\fR [\fIOPTIONS\fR]
`)
	for _, c := range adminCommands {
		fmt.Fprintf(&b, "\\fBvaultexec %s\\fR %s\n", roff(c.name), roff(c.args))
	}
	b.WriteString(`\fBvaultexec help\fR [\fITOPIC\fR | \fIWORD\fR | \fB\-\-all\fR]
.fi
.SH DESCRIPTION
vaultexec logs in to HashiCorp Vault or OpenBao, reads the named secrets at the
same time, builds one environment of them, and becomes the command.
With
.BR \-\-watch ,
as process 1 and where a secret has a lease it stays as the command's parent.
.PP
Everything after the first
.B \-\-
belongs to the command, byte for byte.
An option may also be given as the variable in brackets; the option wins.
.SH OPTIONS
`)
	b.WriteString(roffOptions(options))
	b.WriteString(".SH COMMANDS\n.SS vaultexec check [OPTIONS]\nLog in, look at every path, and show names and versions, never a value.\nThe options are those above.\n")
	for _, c := range adminCommands {
		fmt.Fprintf(&b, ".SS %s\n%s.\n%s", roff(c.usage()), roff(strings.ToUpper(c.summary[:1])+c.summary[1:]), roffText("\n"+c.about))
		for _, o := range c.own {
			b.WriteString(roffOption(o))
		}
		if text := sharedText(c); text != "" {
			b.WriteString(".PP\n" + roffLines(text))
		}
	}
	for _, topic := range []struct{ head, name string }{
		{"REFERENCES", "references"}, {"LOGGING IN", "login"}, {"WATCHING", "watching"}, {"SECRETS AS FILES", "files"}, {"EXIT STATUS", "exit-codes"},
	} {
		page, _ := helpOn(topic.name)
		b.WriteString(".SH " + topic.head + "\n" + strings.TrimPrefix(roffText(page), ".PP\n"))
	}
	b.WriteString(`.SH FILES
.TP
\fI~/.vault\-token\fR, \fI~/.vault\fR
The Vault CLI's token, and the configuration that names its token helper.
.PP
No file in the current folder is read unless an option names it.
.SH SEE ALSO
` + seeAlso() + `.BR env (1),
.BR vault (1)
`)
	return strings.ReplaceAll(b.String(), ".PP\n.TP\n", ".TP\n")
}

// sharedText names the groups of options that a command has in common with others.
func sharedText(c *command) string {
	var names []string
	for _, s := range c.shared {
		if name, ok := strings.CutPrefix(s, "--"); ok {
			s = "--" + name
		} else {
			s = `"` + s + `"`
		}
		names = append(names, s)
	}
	if len(names) == 0 {
		return ""
	}
	return "It has these options of the above, too: " + strings.Join(names, ", ") + "."
}

func optionsPage() string {
	var b strings.Builder
	b.WriteString(`# Options

Made from the table that ` + "`vaultexec --help`" + ` is made of, by ` + "`make docs`" + `. The manual page (docs/vaultexec.1) has the same. An option
wins over its variable; of several variables the first that is set counts. Lists in a variable are separated by commas or line
breaks. ` + "`vaultexec help COMMAND`" + ` shows the options of a command.
`)
	for _, g := range groups {
		fmt.Fprintf(&b, "\n## %s\n\n| option | default | variable | |\n|---|---|---|---|\n", g)
		for _, o := range options {
			if o.group == g {
				b.WriteString(optionRow(o))
			}
		}
	}
	for _, c := range adminCommands {
		if len(c.own) > 0 {
			fmt.Fprintf(&b, "\n## %s\n\n| option | default | variable | |\n|---|---|---|---|\n", c.usage())
			for _, o := range c.own {
				b.WriteString(optionRow(o))
			}
		}
	}
	return b.String()
}

func optionRow(o option) string {
	cell := func(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
	code := func(s string) string {
		if s == "" {
			return ""
		}
		return "`" + cell(s) + "`"
	}
	usage := o.usage
	if o.list {
		usage += " (repeatable)"
	}
	var env []string
	for _, e := range o.env {
		env = append(env, code(e))
	}
	return fmt.Sprintf("| %s | %s | %s | %s |\n", code(strings.TrimSpace("--"+o.name+" "+o.arg)), code(o.def), strings.Join(env, ", "), cell(usage))
}

// What the program itself prints, the manual page and docs/options.md name the same options, in the same words.
func TestManualEqualsHelp(t *testing.T) {
	out, err := exec.Command(vaulttest.Build(t, "."), "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	squeeze := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	help := map[string]string{} // "--path PATH[@VERSION]" → its text
	last := ""
	for line := range strings.Lines(string(out)) {
		switch {
		case strings.HasPrefix(line, "  --"):
			head, text, _ := strings.Cut(strings.TrimSpace(line), "  ")
			last, help[head] = head, text
		case strings.HasPrefix(line, strings.Repeat(" ", 34)) && last != "":
			help[last] += " " + line
		default:
			last = ""
		}
	}
	if len(help) != len(options) {
		t.Fatalf("%d options in --help, %d in the table", len(help), len(options))
	}
	page, err := os.ReadFile("docs/vaultexec.1")
	if err != nil {
		t.Fatal(err)
	}
	plain := strings.NewReplacer(`\fB`, "", `\fI`, "", `\fR`, "", `\-`, "-", `\e`, `\`, `\(+-`, "±", `\&`, "").Replace(string(page))
	section := plain[strings.Index(plain, ".SH OPTIONS"):strings.Index(plain, ".SH COMMANDS")]
	inManual := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^\.TP\n(--.*)\n((?:[^.].*\n)+)`).FindAllStringSubmatch(section, -1) {
		inManual[m[1]] = m[2]
	}
	table, err := os.ReadFile("docs/options.md")
	if err != nil {
		t.Fatal(err)
	}
	inTable := map[string]string{} // the commands that have an option of the same name come after the launcher's
	launcherTable, _, _ := strings.Cut(string(table), "\n## vaultexec ")
	for _, m := range regexp.MustCompile("(?m)^\\| `(--.*?)` \\| (.*) \\| (.*) \\| (.*) \\|$").FindAllStringSubmatch(launcherTable, -1) {
		inTable[strings.ReplaceAll(m[1], `\|`, "|")] = strings.ReplaceAll(m[4], `\|`, "|")
	}
	for head, text := range help {
		if squeeze(inManual[head]) != squeeze(text) {
			t.Errorf("%s: --help says %q, the manual page %q", head, squeeze(text), inManual[head])
		}
		if row := strings.TrimSuffix(inTable[head], " (repeatable)"); row == "" || !strings.HasPrefix(squeeze(text), row) {
			t.Errorf("%s: --help says %q, docs/options.md %q", head, squeeze(text), row)
		}
	}
	if len(inManual) != len(help) {
		t.Errorf("%d options in the manual page, %d in --help", len(inManual), len(help))
	}
}

// The formatters have nothing to complain about.
func TestManualIsClean(t *testing.T) {
	t.Run("mandoc", func(t *testing.T) {
		out, _ := exec.Command(needs.Program(t, "mandoc"), "-Tlint", "-Wstyle", "docs/vaultexec.1").CombinedOutput()
		for line := range strings.Lines(string(out)) {
			// It has no date on purpose.
			if !strings.Contains(line, "missing date") {
				t.Error(line)
			}
		}
	})
	t.Run("groff", func(t *testing.T) {
		cmd := exec.Command(needs.Program(t, "groff"), "-man", "-Tutf8", "-ww", "-P-cbou", "docs/vaultexec.1")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil || stderr.Len() > 0 {
			t.Errorf("%v\n%s", err, &stderr)
		}
		for _, want := range []string{"SYNOPSIS", "--optional-path", "WATCHING", "EXIT STATUS"} {
			if !strings.Contains(string(out), want) {
				t.Errorf("the page does not show %s", want)
			}
		}
	})
}

// Every code that a failure can have is explained.
func TestExitCodesAreExplained(t *testing.T) {
	kind := fault.Usage
	for ; !strings.HasPrefix(kind.String(), "kind("); kind++ {
		if line := fmt.Sprintf("\n%5d  ", kind.Code()); !strings.Contains(exitCodes, line) {
			t.Errorf("help exit-codes lacks %d, of the kind %s", kind.Code(), kind)
		}
	}
	if kind < 10 {
		t.Errorf("only %d kinds", kind)
	}
}

// Every topic that help names has a page, and the other way round; its lines fit a terminal.
func TestHelpTopics(t *testing.T) {
	for _, topic := range helpTopics() {
		page, ok := helpOn(topic)
		if !ok || page == "" {
			t.Errorf("no page on %s", topic)
		}
		for line := range strings.Lines(page) {
			if len([]rune(line)) > 101 {
				t.Errorf("help %s: a line of %d columns: %s", topic, len(line), line)
			}
		}
	}
	all := allHelp()
	for _, topic := range helpTopics() {
		if page, _ := helpOn(topic); !strings.Contains(all, strings.TrimRight(page, "\n")) {
			t.Errorf("help --all lacks %s", topic)
		}
	}
	for name := range topics {
		if !strings.Contains(synopsis, name) {
			t.Errorf("--help does not name the topic %s", name)
		}
	}
}
