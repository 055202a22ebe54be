package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/fault"
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
		a.warnOnce(
			"the kernel refuses PR_SET_DUMPABLE (a seccomp filter?): a process of the same user can read vaultexec's memory while it runs")
	}
	dryRun, command := s.bool("dry-run"), a.commandOf(s)
	switch {
	case len(words) > 0 && a.command == nil:
		return a.withoutSeparator(words)
	case len(words) > 0:
		return &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("unexpected word %q before --", words[0]),
			Hint: a.wordHint(s, words[0])}
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

// wordHint says why there may be a word too many: the shell has replaced a pattern without quotes by names of files.
func (a *app) wordHint(s *settings, word string) string {
	isFile := func(name string) bool {
		_, err := os.Lstat(name)
		return err == nil
	}
	for _, name := range []string{"path", "optional-path", "only", "exclude", "pass", "allow-name"} {
		for _, v := range s.all(name) {
			if v.origin == fromOption && filepath.Dir(v.text) == filepath.Dir(word) && isFile(v.text) && isFile(word) {
				return fmt.Sprintf("the shell has replaced a pattern by names of files: quote it, as in --%s '%s'",
					name, filepath.Join(filepath.Dir(word), "*"))
			}
		}
	}
	return "what belongs to the command comes after --"
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
		Argv: a.commandOf(s), Dir: s.str("chdir"), Environ: a.environ, Started: a.environ, Log: a.ui.log,
		Messages: a.messages, Aside: a.terminal.aside, Waits: a.ui.waits, Waited: a.waited,
		MountIsDefault: !s.isSet("mount"),
		Rules: environ.Rules{
			Prefix: s.str("prefix"), Upcase: s.bool("upcase"), Only: s.globs("only"), Exclude: s.globs("exclude"),
			OnCollision:  environ.Collision(s.choice("on-collision")),
			KeepExisting: s.bool("keep-existing"), CleanEnv: s.bool("clean-env"), Pass: s.globs("pass"),
			KeepToken: s.bool("keep-token"), NullAsEmpty: s.bool("null-as-empty"), AllowNames: s.globs("allow-name"),
		},
	}
	if v := s.one("prefix"); v.text != "" && !environ.IsName(v.text) {
		s.bad(v, "no variable name can begin with it", "use letters, digits and _, no digit first")
	}
	o.KVVersion = s.kvVersion()
	o.Wait, o.PassNotify = waitTime(s), s.bool("pass-notify")
	o.Rules.Files, o.AllowDisk, o.AllowOwner = files(s), s.bool("allow-disk"), s.owners()
	o.Rules.Require, o.Rules.Names = required(s), names(s)
	o.Listen = listeners(s)
	o.Status = a.statusOptions(s, o.Listen)
	o.Fallback = a.fallbackOptions(s)
	o.Ready, o.StartFirst = readiness(s, o.Listen, a.environ), startFirst(s)
	o.Mode, o.Supervision, o.Masking = mode(s), supervision(s), masking(s)
	o.Rules.Parts = o.Masking.On
	o.Watching = watching(s, a.environ)
	o.RestartLock = a.restartLock(s)
	a.sources(s, &o)
	checkFiles(s, &o)
	return o
}

// waited takes the live line away, before the command can print anything in its place.
func (a *app) waited() {
	a.ui.live.end()
	a.messages.Flush()
}

func mode(s *settings) launcher.Mode {
	opposite := staying(s)
	stay := len(opposite) > 0
	listens := launcher.ListenStays && len(s.all("listen")) > 0
	switch {
	case s.bool("replace") && stay:
		v, ask, list := s.one("replace"), " ask for the opposite", strings.Join(opposite, ", ")
		if len(opposite) == 1 {
			ask = " asks for the opposite"
		}
		s.bad(v, list+ask, fmt.Sprintf("leave %s out, or %s", v.from, list))
	case s.bool("replace") && listens:
		s.bad(s.one("replace"), "with --listen vaultexec stays as the command's parent on this system", "leave it out")
	case s.bool("replace"):
		return launcher.Replace
	case stay, listens:
		return launcher.Supervise
	}
	return launcher.Auto
}

// staying lists what is given and needs a vaultexec that stays beside the command.
func staying(s *settings) (list []string) {
	for _, name := range []string{"supervise", "init", "watch", "mask"} {
		if s.bool(name) {
			list = append(list, s.one(name).from)
		}
	}
	for _, name := range []string{"ok-exit", "ready", "status"} {
		if len(s.all(name)) > 0 {
			list = append(list, s.one(name).from)
		}
	}
	if inPlace(s) {
		list = append(list, "--file NAME=PATH")
	}
	return list
}

func supervision(s *settings) launcher.Supervision {
	sup := launcher.Supervision{
		StopTimeout: s.duration("stop-timeout"), StopExplicit: s.isSet("stop-timeout"),
		SignalGroup: s.bool("signal-group"),
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
			s.bad(v, fmt.Sprintf("another --ok-exit makes %d count as %d", from, other), "give each code once")
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

func waitTime(s *settings) time.Duration {
	if s.str("wait") == "forever" {
		return vault.Forever
	}
	return s.duration("wait")
}
