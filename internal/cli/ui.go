package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// ui holds every rule for what is printed. Standard output is touched only where no command is started.
type ui struct {
	stdout, stderr io.Writer
	written        *written // what stdout is, unless it is left out
	log            *slog.Logger
	level          slog.LevelVar
	json           bool
	screen         screen
	live           *live
}

func newUI(stdout, stderr io.Writer) *ui {
	l, w := &live{out: stderr}, &written{out: stdout}
	u := &ui{stdout: w, written: w, stderr: l, live: l}
	u.log = slog.New(&textHandler{out: l, level: &u.level})
	return u
}

// written is standard output, and the first failure to write to it.
type written struct {
	out io.Writer
	err error
}

// Write implements io.Writer.
func (w *written) Write(b []byte) (int, error) {
	n, err := w.out.Write(b)
	if w.err == nil {
		w.err = err
	}
	return n, err
}

// file is the file that it goes to; nil for another writer.
func (w *written) file() *os.File {
	f, _ := w.out.(*os.File)
	return f
}

// failure says that what was printed is not whole; nil when it is.
func (w *written) failure() error {
	if w.err == nil {
		return nil
	}
	return &fault.Error{Kind: fault.Usage, What: "cannot write to standard output", Why: vault.Errno(w.err), Err: w.err,
		Hint: "what was printed is not whole: write it to another place, or make room there"}
}

// setup applies --log-level, --log-format and --quiet, and looks at the terminals.
func (u *ui) setup(s *settings, getenv func(string) string) {
	u.screen = screenOf(u.written.file(), getenv)
	_ = u.level.UnmarshalText([]byte(s.choice("log-level"))) // a wrong word is already noted
	if quiet := s.one("quiet"); s.bool("quiet") {
		if level := s.one("log-level"); quiet.origin == level.origin {
			s.bad(quiet, "--log-level says how much to say, too", "give one of them")
		}
		u.level.Set(slog.LevelError)
	}
	if u.json = s.choice("log-format") == "json"; u.json {
		u.log = slog.New(slog.NewJSONHandler(u.stderr,
			&slog.HandlerOptions{Level: &u.level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Value.Kind() == slog.KindString {
					a.Value = slog.StringValue(withoutPasswords(a.Value.String()))
				}
				return a
			}}))
	} else if u.level.Level() <= slog.LevelWarn && isTerminal(os.Stderr) && smart(getenv) {
		u.live.columns = func() int { return columnsOf(os.Stderr) }
	}
}

// leaveOutReport has --quiet leave out what a command prints about its work, unless a program is to read it.
func (u *ui) leaveOutReport(s *settings) {
	if s.bool("quiet") && !s.given.has("json") && !s.given.has("sarif") {
		u.stdout = io.Discard
	}
}

// waits says what is waited for: by the live line where there is a terminal for it.
func (u *ui) waits(text string, until time.Time) bool { return u.live.begin(text, until) }

func (u *ui) printf(format string, args ...any) { fmt.Fprintf(u.stdout, format, args...) }

func (u *ui) errorf(format string, args ...any) { fmt.Fprintf(u.stderr, format, args...) }

// fail prints every failure with its hint and returns the exit code, which the first one decides.
func (u *ui) fail(err error) int {
	all := fault.All(err)
	code := all[0].Code()
	var hints []string
	for i, f := range all {
		if u.json {
			attrs := []any{"kind", f.Kind.String()}
			if cure := f.Cure(); cure != "" {
				attrs = append(attrs, "hint", cure)
			}
			if i == len(all)-1 {
				attrs = append(attrs, "exit", code)
			}
			u.log.Error(f.Error(), attrs...)
			continue
		}
		u.errorf("vaultexec: %s\n", oneLine(withoutPasswords(f.Error())))
		if cure := f.Cure(); cure != "" && !slices.Contains(hints, cure) {
			hints = append(hints, cure)
			u.errorf("vaultexec: hint: %s\n", oneLine(withoutPasswords(cure)))
		}
	}
	return code
}

// reportJSON prints the report of a command for a script, as one line.
func (u *ui) reportJSON(report any) {
	enc := json.NewEncoder(u.stdout)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(report)
}

// lost says how many messages of a run nobody read in time, in the form of the log.
func (u *ui) lost(n int) string {
	var b bytes.Buffer
	var h slog.Handler = &textHandler{out: &b, level: &u.level}
	if u.json {
		h = slog.NewJSONHandler(&b, &slog.HandlerOptions{Level: &u.level})
	}
	slog.New(h).Warn("messages were lost, because nobody read standard error", "count", n)
	return b.String()
}

// showEnv prints the names and where each comes from, never a value nor anything made of one.
func (u *ui) showEnv(env *environ.Env) {
	width := 0
	for _, v := range env.Vars {
		width = max(width, len(v.Name))
	}
	for _, v := range env.Vars {
		note := ""
		if len(v.Beat) > 0 {
			note = "  (wins over " + strings.Join(v.Beat, ", ") + ")"
		}
		if place := fileText(v, "in memory"); place != "" {
			note += fmt.Sprintf("  (a file %s, named by %s)", place, v.File.Variable())
		}
		if v.Kept {
			note += "  (not used: the variable is already set)"
		}
		u.printf("%-*s  %s\n", width, v.Name, oneLine(v.Origin+note))
	}
	for _, name := range env.Stripped {
		u.printf("%-*s  stripped (a Vault credential)\n", width, name)
	}
}

// fileText says where the file of a variable is; "" for one that is no file.
func fileText(v environ.Variable, memory string) string {
	switch {
	case v.File == nil:
		return ""
	case v.File.Path == "":
		return memory
	}
	return v.File.Path
}

// textHandler writes log lines for a person: "vaultexec: warning: text key=value".
type textHandler struct {
	out   io.Writer
	level slog.Leveler
	attrs []slog.Attr
}

// Enabled implements slog.Handler.
func (h *textHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

// Handle implements slog.Handler with one Write a line.
func (h *textHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString("vaultexec: ")
	switch {
	case r.Level >= slog.LevelError:
		b.WriteString("error: ")
	case r.Level >= slog.LevelWarn:
		b.WriteString("warning: ")
	case r.Level < slog.LevelInfo:
		b.WriteString("debug: ")
	}
	b.WriteString(r.Message)
	add := func(a slog.Attr) bool {
		text := a.Value.Resolve().String()
		if text == "" || strings.ContainsAny(text, " \"=") {
			text = strconv.Quote(text)
		}
		b.WriteString(" " + a.Key + "=" + text)
		return true
	}
	for _, a := range h.attrs {
		add(a)
	}
	r.Attrs(add)
	_, err := io.WriteString(h.out, oneLine(withoutPasswords(b.String()))+"\n")
	return err
}

// WithAttrs implements slog.Handler.
func (h *textHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.attrs = append(c.attrs[:len(c.attrs):len(c.attrs)], attrs...)
	return &c
}

// WithGroup implements slog.Handler; groups are not used.
func (h *textHandler) WithGroup(string) slog.Handler { return h }
