package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

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
	a.ui.setup(s)
	if s.bool("dumpable") {
		launcher.SetDumpable(true)
	}
	dryRun := s.bool("dry-run")
	switch {
	case len(words) > 0 && a.command == nil:
		return a.withoutSeparator(words)
	case len(words) > 0:
		return &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("unexpected word %q before --", words[0]), Hint: "what belongs to the command stands after --"}
	case len(a.command) == 0 && !dryRun:
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
	return launcher.Run(o)
}

// launchOptions reads everything but the connection.
func (a *app) launchOptions(s *settings) launcher.Options {
	o := launcher.Options{
		Argv: a.command, Environ: a.environ, Log: a.ui.log,
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
	o.Wait = waitTime(s)
	o.Rules.Files, o.AllowDisk = files(s), s.bool("allow-disk")
	o.Mode, o.Supervision, o.Masking = mode(s), supervision(s), masking(s)
	if s.bool("watch") {
		o.Watching = watching(s)
	}
	o.Sources = a.sources(s, o.Rules.AllowNames)
	checkFiles(s, &o)
	return o
}

func mode(s *settings) launcher.Mode {
	stay := s.bool("supervise") || s.bool("init") || s.bool("watch") || needsParent(s)
	switch {
	case s.bool("replace") && stay:
		s.bad(s.one("replace"), "--supervise, --init, --watch, --mask or --file NAME=PATH asks for the opposite", "give one of them")
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
	return sup
}

func signalOption(s *settings, v setting, text string) launcher.Signal {
	sig, ok := launcher.ParseSignal(text)
	if !ok {
		s.bad(v, "not a signal", "write it as SIGTERM, TERM or 15")
	}
	return sig
}

func watching(s *settings) launcher.Watching {
	w := launcher.Watching{
		Interval: s.duration("interval"), Settle: s.duration("settle"), Splay: s.duration("splay"), MinUptime: s.duration("min-uptime"),
		Probation: s.duration("probation"), Rollback: !s.bool("no-rollback"), Hook: s.str("on-change-hook"), OnChange: onChange(s),
	}
	if w.Interval < 100*time.Millisecond {
		s.bad(s.one("interval"), "shorter than 100ms", "every look is one request for each path")
	}
	if v := s.one("refresh-signal"); v.text != "" {
		w.Refresh = signalOption(s, v, v.text)
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

// sources reads --path, --optional-path and --env into one list, in the order of the command line.
func (a *app) sources(s *settings, allowed []string) []launcher.Source {
	mount, err := vault.ParseMount(s.str("mount"))
	if err != nil {
		s.fail(s.one("mount"), err)
	}
	type ordered struct {
		launcher.Source
		order int
	}
	var list []ordered
	for _, name := range []string{"path", "optional-path"} {
		for _, v := range s.all(name) {
			p, err := vault.ParsePath(v.text, mount)
			if err != nil {
				s.fail(v, err)
			}
			list = append(list, ordered{launcher.Source{Path: p, Optional: name == "optional-path"}, v.order})
		}
	}
	for _, v := range s.all("env") {
		src, err := parseEnvOption(v.text, mount)
		if err == nil && launcher.IsDangerous(src.Name, allowed) {
			err = &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot set %s", src.Name), Why: "it changes which code runs, and whoever may write the secret would own the process", Hint: "allow it with --allow-name " + src.Name}
		}
		if err != nil {
			s.fail(v, err)
		}
		list = append(list, ordered{src, v.order})
	}
	slices.SortStableFunc(list, func(a, b ordered) int { return a.order - b.order })
	sources := make([]launcher.Source, len(list))
	for i, l := range list {
		sources[i] = l.Source
	}
	return sources
}

// parseEnvOption reads NAME=PATH[@VERSION]#KEY.
func parseEnvOption(text, mount string) (launcher.Source, error) {
	name, ref, ok := strings.Cut(text, "=")
	if !ok {
		return launcher.Source{}, &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot use %q", text), Why: "not of the form NAME=PATH#KEY", Hint: "write it as DB_PASSWORD=database#POSTGRES_PASSWORD"}
	}
	if !launcher.IsName(name) {
		return launcher.Source{}, &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot use %q", text), Why: fmt.Sprintf("%q is not a variable name", name), Hint: "names are [A-Za-z_][A-Za-z0-9_]*"}
	}
	p, key, err := vault.ParseKeyRef(ref, mount)
	return launcher.Source{Path: p, Name: name, Key: key}, err
}
