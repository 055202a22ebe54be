package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/trust"
	"github.com/agenticverz/vaultexec/internal/vault"
	"github.com/agenticverz/vaultexec/launcher"
)

// launch is `vaultexec [OPTIONS] -- COMMAND [ARG...]`.
func (a *app) launch(g *given, words []string) error {
	s := &settings{opts: options, given: g, environ: a.getenv}
	switch {
	case s.bool("help"):
		return a.help(nil)
	case s.bool("version"):
		a.ui.printf("vaultexec %s\n", version())
		return nil
	}
	if !s.bool("dry-run") {
		a.messages.Queue()
	}
	if err := a.begin(s); err != nil {
		return err
	}
	if s.bool("dumpable") {
		launcher.SetDumpable(true)
	} else if launcher.KeptDumpable() {
		a.warn("the kernel refuses PR_SET_DUMPABLE (a seccomp filter?): a process of the same user can read vaultexec's memory while it runs")
	}
	dryRun, command := s.bool("dry-run"), a.commandOf(s)
	switch {
	case len(words) > 0 && a.command == nil:
		return a.withoutSeparator(words)
	case len(words) > 0:
		return &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("unexpected word %q before --", words[0]), Hint: a.wordHint(s, words[0])}
	case len(command) == 0 && !dryRun:
		return &fault.Error{Kind: fault.Usage, What: "no command", Hint: "vaultexec [OPTIONS] -- COMMAND [ARG...]"}
	}
	o := a.launchOptions(s)
	session := a.session(s)
	if err := fault.Join(s.faults); err != nil {
		return err
	}
	o.Session = session
	if dryRun {
		return a.inspect(s, o, true)
	}
	a.messages.SayLost(a.ui.lost)
	return launcher.Run(o)
}

// wordHint says why there may be a word too many: a pattern without quotes, which the shell has replaced by names of files.
func (a *app) wordHint(s *settings, word string) string {
	isFile := func(name string) bool {
		_, err := os.Lstat(name)
		return err == nil
	}
	for _, name := range []string{"path", "optional-path", "only", "exclude", "pass", "allow-name"} {
		for _, v := range s.all(name) {
			if v.source == fromOption && filepath.Dir(v.text) == filepath.Dir(word) && isFile(v.text) && isFile(word) {
				return fmt.Sprintf("the shell has replaced a pattern by names of files: quote it, as in --%s '%s'", name, filepath.Join(filepath.Dir(word), "*"))
			}
		}
	}
	return "what belongs to the command stands after --"
}

// commandOf is what stands after --, or the command of the configuration file where there is no --.
func (a *app) commandOf(s *settings) []string {
	if a.command != nil {
		return a.command
	}
	var words []string
	for _, v := range s.file[commandKey] {
		words = append(words, v.text)
	}
	return words
}

// launchOptions reads everything but the connection.
func (a *app) launchOptions(s *settings) launcher.Options {
	o := launcher.Options{
		Argv: a.commandOf(s), Dir: s.str("chdir"), Environ: a.environ, Started: a.environ, Log: a.ui.log, Messages: a.messages, Aside: a.terminal.aside,
		MountIsDefault: !s.isSet("mount"),
		Rules: launcher.EnvRules{
			Prefix: s.str("prefix"), Upcase: s.bool("upcase"), Only: s.globs("only"), Exclude: s.globs("exclude"),
			OnCollision:  launcher.Collision(s.choice("on-collision")),
			KeepExisting: s.bool("keep-existing"), CleanEnv: s.bool("clean-env"), Pass: s.globs("pass"),
			KeepToken: s.bool("keep-token"), NullAsEmpty: s.bool("null-as-empty"), AllowNames: s.globs("allow-name"),
		},
	}
	if v := s.one("prefix"); v.text != "" && !launcher.IsName(v.text) {
		s.bad(v, "no variable name can begin with it", "use letters, digits and _, no digit first")
	}
	switch s.choice("kv-version") {
	case "1":
		o.KVVersion = 1
	case "2":
		o.KVVersion = 2
	}
	o.Wait, o.PassNotify = waitTime(s), s.bool("pass-notify")
	o.Rules.Files, o.AllowDisk, o.AllowOwner = files(s), s.bool("allow-disk"), s.owners()
	o.Rules.Require, o.Rules.Names = required(s), names(s)
	o.Mode, o.Supervision, o.Masking = mode(s), supervision(s), masking(s)
	o.Rules.Parts = o.Masking.On
	if s.bool("watch") {
		o.Watching = watching(s, a.environ)
	}
	a.sources(s, &o)
	checkFiles(s, &o)
	return o
}

// required checks the names of --require.
func required(s *settings) []string {
	for _, v := range s.all("require") {
		if !launcher.IsName(v.text) {
			s.bad(v, "not a variable name", "names are [A-Za-z_][A-Za-z0-9_]*; give the option once for each")
		}
	}
	return s.strs("require")
}

// names reads --names: each item is a list of names, or the file of one.
func names(s *settings) []string {
	items := s.all("names")
	if len(items) == 0 {
		return nil
	}
	list := []string{}
	for _, v := range items {
		parts := strings.Split(v.text, ",")
		if strings.ContainsAny(v.text, "/.") {
			var err error
			if parts, err = namesOf(v.text, s.owners()); err != nil {
				s.bad(v, vault.Errno(err), trust.Cure(err, "name a file that has one variable name in a line, or write the names themselves: --names API_KEY,DB_PASSWORD"))
				continue
			}
		}
		for _, name := range parts {
			if name = strings.TrimSpace(name); name == "" {
				continue
			}
			if !launcher.IsName(name) {
				s.bad(v, fmt.Sprintf("%q is not a variable name", name), "names are [A-Za-z_][A-Za-z0-9_]*, separated by commas; the name of a file holds a / or a dot")
				break
			}
			list = append(list, name)
		}
	}
	return list
}

// maxNames bounds the file of --names.
const maxNames = 1 << 20

// namesOf reads a file of names, one in a line. What follows a # is a comment.
func namesOf(file string, allow []int) ([]string, error) {
	f, err := trust.Open(file, allow)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxNames+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxNames {
		return nil, errors.New("it is too large for a list of names")
	}
	var list []string
	for line := range strings.Lines(strings.TrimPrefix(string(b), "\ufeff")) { // the mark that some editors put first
		line, _, _ = strings.Cut(line, "#")
		list = append(list, line)
	}
	return list, nil
}

func mode(s *settings) launcher.Mode {
	stay := s.bool("supervise") || s.bool("init") || s.bool("watch") || needsParent(s) || len(s.all("ok-exit")) > 0
	switch {
	case s.bool("replace") && stay:
		s.bad(s.one("replace"), "--supervise, --init, --watch, --mask, --ok-exit or --file NAME=PATH asks for the opposite", "give one of them")
	case s.bool("replace"):
		return launcher.Replace
	case stay:
		return launcher.Supervise
	}
	return launcher.Auto
}

func supervision(s *settings) launcher.Supervision {
	sup := launcher.Supervision{
		StopTimeout: s.duration("stop-timeout"), StopExplicit: s.isSet("stop-timeout"), SignalGroup: s.bool("signal-group"),
	}
	sup.StopSignal = signalOption(s, s.one("stop-signal"), s.str("stop-signal"))
	sup.OKExit = okExit(s)
	return sup
}

// okExit reads --ok-exit; nil without one.
func okExit(s *settings) launcher.OKExit {
	var codes launcher.OKExit
	for _, v := range s.all("ok-exit") {
		from, to, err := launcher.ParseOKExit(v.text)
		if err != nil {
			s.fail(v, err)
			continue
		}
		if other, known := codes[from]; known && other != to {
			s.bad(v, fmt.Sprintf("another --ok-exit has %d count as %d", from, other), "give it one")
		}
		if codes == nil {
			codes = launcher.OKExit{}
		}
		codes[from] = to
	}
	return codes
}

func signalOption(s *settings, v setting, text string) launcher.Signal {
	sig, ok := launcher.ParseSignal(text)
	if !ok {
		s.bad(v, "not a signal", "write it as SIGTERM, TERM or 15")
	}
	return sig
}

func watching(s *settings, environ []string) launcher.Watching {
	known := len(s.faults)
	w := launcher.Watching{
		Interval: s.duration("interval"), Settle: s.duration("settle"), Splay: s.duration("splay"), MinUptime: s.duration("min-uptime"),
		Probation: s.duration("probation"), Rollback: !s.bool("no-rollback"), Hook: s.str("on-change-hook"), OnChange: onChange(s),
	}
	if w.Interval < 100*time.Millisecond && len(s.faults) == known {
		s.bad(s.one("interval"), "shorter than 100ms", "write 1s or more: every look is one request for each path")
	}
	if v := s.one("refresh-signal"); v.text != "" {
		w.Refresh = signalOption(s, v, v.text)
		switch sig := w.Refresh; {
		case sig == unix.SIGTERM, sig == unix.SIGPIPE, sig != 0 && !launcher.IsCaught(sig):
			s.bad(v, "that signal has another meaning, or cannot be caught", "take HUP, USR1 or USR2")
		}
	}
	if w.Hook != "" {
		if err := launcher.CheckHook(w.Hook, environ); err != nil {
			s.bad(s.one("on-change-hook"), fault.Of(err).Why, fault.Of(err).Hint)
		}
	}
	return w
}

func onChange(s *settings) launcher.OnChange {
	v := s.one("on-change")
	word, rest, more := strings.Cut(v.text, ":")
	switch {
	case word == "restart" && !more:
		return launcher.OnChange{Do: launcher.ReactRestart}
	case word == "none" && !more:
		return launcher.OnChange{Do: launcher.ReactNone}
	case word == "signal" && rest != "":
		return launcher.OnChange{Do: launcher.ReactSignal, Signal: signalOption(s, v, rest)}
	case word == "exit" && !more:
		return launcher.OnChange{Do: launcher.ReactExit, Code: fault.Changed.Code()}
	case word == "exit":
		if code, err := strconv.Atoi(rest); err == nil && code >= 0 && code <= 255 {
			return launcher.OnChange{Do: launcher.ReactExit, Code: code}
		}
	}
	s.bad(v, "not restart, signal:NAME, exit, exit:CODE or none", "")
	return launcher.OnChange{}
}

func waitTime(s *settings) time.Duration {
	if s.str("wait") == "forever" {
		return vault.Forever
	}
	return s.duration("wait")
}

// sources reads --path, --optional-path and --env into one list, in the order of the command line, after the references in
// variables, which were there before.
func (a *app) sources(s *settings, o *launcher.Options) {
	mount, err := vault.ParseMount(s.str("mount"))
	if err != nil {
		s.fail(s.one("mount"), err)
	}
	a.variables(s, o, mount)
	type ordered struct {
		sources []launcher.Source
		order   int
	}
	var list []ordered
	for _, name := range []string{"path", "optional-path"} {
		for _, v := range s.all(name) {
			p, err := vault.ParseSource(v.text, mount)
			if err != nil {
				s.fail(v, err)
			}
			list = append(list, ordered{[]launcher.Source{{Path: p, Optional: name == "optional-path"}}, v.order})
		}
	}
	for _, v := range s.all("env") {
		sources, err := launcher.ParseEnv(v.text, mount)
		if err != nil && v.source == fromVariable && !strings.Contains(a.getenv(v.from), "\n") && strings.Contains(a.getenv(v.from), ",") {
			f := *fault.Of(err)
			f.AddHint("a comma parts the items of " + v.from + ": where one holds a comma itself, put a line break between them, or after the only one")
			err = &f
		}
		if err == nil {
			err = dangerous(sources, o.Rules.AllowNames)
		}
		if err != nil {
			s.fail(v, err)
		}
		list = append(list, ordered{sources, v.order})
	}
	slices.SortStableFunc(list, func(a, b ordered) int { return a.order - b.order })
	for _, l := range list {
		o.Sources = append(o.Sources, l.sources...)
	}
}

// dangerous refuses a reference under a name that changes which code runs.
func dangerous(sources []launcher.Source, allowed []string) error {
	for _, src := range sources {
		if launcher.Steers(src.Name) {
			return &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot set %s", src.Name), Why: "it steers vaultexec and Vault's own tools, which no secret may", Hint: "give it another name; what vaultexec itself is to have is set where it is started"}
		}
		if launcher.IsDangerous(src.Name, allowed) {
			return &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot set %s", src.Name), Why: "it changes which code runs, and whoever may write the secret would own the process", Hint: "allow it with --allow-name " + src.Name}
		}
	}
	return nil
}
