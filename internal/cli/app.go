// Package cli is the command line of vaultexec: options, commands, texts, and exit codes.
package cli

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
	"github.com/agenticverz/vaultexec/launcher"
)

// app is one invocation.
type app struct {
	ui       *ui
	messages *launcher.Messages // standard error
	terminal *terminal
	environ  []string       // as vaultexec was started with it
	secrets  *vault.Secrets // what no text may hold
	vars     map[string]int // the places in it, by name; no values, which are forgotten there (launcher)
	command  []string       // what stands after the first --, byte for byte; nil without --
	head     []string       // what stands before it
	storing  bool           // a login for the Vault CLI's store, and not for a run
}

func newApp(environ []string, stdout, stderr io.Writer) *app {
	messages := launcher.NewMessages(stderr)
	return &app{environ: environ, secrets: &vault.Secrets{}, ui: newUI(stdout, messages), messages: messages,
		terminal: &terminal{in: os.Stdin, out: messages, caught: launcher.IsInner(os.Args)}}
}

// getenv looks a variable up as it was at the start; vaultexec's own VAULT_ variables are gone by the time of use.
func (a *app) getenv(name string) string {
	if a.vars == nil {
		a.vars = make(map[string]int, len(a.environ))
		for i, kv := range slices.Backward(a.environ) { // of two with one name the first counts, as for getenv(3)
			if name, _, ok := strings.Cut(kv, "="); ok {
				a.vars[strings.Clone(name)] = i // or the name would keep the value in memory
			}
		}
	}
	i, ok := a.vars[name]
	if !ok {
		return ""
	}
	_, value, _ := strings.Cut(a.environ[i], "=")
	return value
}

// isSet reports whether there is a variable of that name, be it empty.
func (a *app) isSet(name string) bool {
	a.getenv(name)
	_, ok := a.vars[name]
	return ok
}

// run cuts the command line at the first --, so that no word of the command is ever read as vaultexec's own, and hands
// the rest to the parser.
func (a *app) run(args []string) error {
	unsetVaultVariables(a.environ)
	if len(args) > 1 && args[1] == completeWord {
		a.complete(args[2:])
		return nil
	}
	a.head = args[1:]
	if i := slices.Index(a.head, "--"); i >= 0 {
		a.head, a.command = a.head[:i], append([]string{}, a.head[i+1:]...)
	}
	if len(args) == 1 && a.getenv("VAULTEXEC_CONFIG") == "" {
		a.ui.errorf(shortUsage)
		return &fault.Error{Kind: fault.Usage, What: "no command", Hint: "vaultexec --help shows everything"}
	}
	return a.parser(newGiven()).Run(append([]string{"vaultexec"}, a.head...))
}

// parser reads the command line into run and does what it asks for.
func (a *app) parser(run *given) *cli.App {
	usageError := func(_ *cli.Context, err error, _ bool) error {
		if errors.Is(err, flag.ErrHelp) { // -h, which is no option of ours
			return a.help(nil)
		}
		return a.parseError(err, options)
	}
	c := &cli.App{
		Name: "vaultexec", HideHelp: true, HideVersion: true,
		Writer: io.Discard, ErrWriter: io.Discard,
		ExitErrHandler: func(*cli.Context, error) {}, // or App.Run would call os.Exit
		OnUsageError:   usageError,
		Flags:          run.flags(a.meant(options)),
		Action:         func(c *cli.Context) error { return a.launch(run, c.Args().Slice()) },
	}
	// A command that is meant is one of the words, as an option is part of one. Without this, every start would make
	// all of them.
	add := func(name string, flags func() []cli.Flag, action func(words []string) error) {
		if slices.Contains(a.head, name) {
			c.Commands = append(c.Commands, &cli.Command{Name: name, OnUsageError: usageError,
				HideHelp: true, Flags: flags(),
				Action: func(c *cli.Context) error { return action(c.Args().Slice()) }})
		}
	}
	add("run", func() []cli.Flag { return run.flags(a.meant(options)) },
		func(words []string) error { return a.launch(run, words) })
	add("check", func() []cli.Flag { return run.flags(a.meant(checkOptions())) },
		func(words []string) error { return a.check(run, words) })
	add("help", func() []cli.Flag { return nil }, a.help)
	for _, cmd := range c.Commands {
		cmd.SkipFlagParsing = cmd.Name == "help" // which takes an option's name as a word
	}
	for _, cmd := range adminCommands {
		if slices.Contains(a.head, cmd.name) {
			c.Commands = append(c.Commands, cmd.cli(a, run))
		}
	}
	return c
}

// meant picks the options that the command line may name. The parser makes several passes over all that it is given.
func (a *app) meant(opts []option) []option {
	var list []option
	for _, o := range opts {
		if slices.ContainsFunc(a.head, func(word string) bool { return strings.Contains(word, o.name) }) {
			list = append(list, o)
		}
	}
	return list
}

// warnOnce says what the options show. With --mask there may be two vaultexecs, of which the outer one says it.
func (a *app) warnOnce(text string, attrs ...any) {
	if !launcher.IsInner(os.Args) {
		a.ui.log.Warn(text, attrs...)
	}
}

// unsetVaultVariables takes them out of this process: vault/api reads them again by itself, and some would win over an
// option. What they said is in the copy.
func unsetVaultVariables(environ []string) {
	for _, kv := range environ {
		if name, _, _ := strings.Cut(kv, "="); vault.IsClientVariable(name) {
			os.Unsetenv(name)
		}
	}
}

// parseError turns the parser's complaint into ours. opts are the options that there are.
func (a *app) parseError(err error, opts []option) error {
	text := err.Error()
	if name, ok := strings.CutPrefix(text, "flag provided but not defined: -"); ok {
		return noOption(strings.TrimLeft(name, "-"), opts)
	}
	if name, ok := strings.CutPrefix(text, "flag needs an argument: -"); ok {
		return needsValue(strings.TrimLeft(name, "-"))
	}
	return &fault.Error{Kind: fault.Usage, What: "cannot read the options",
		Hint: "write them as --name VALUE; vaultexec --help lists them"}
}

func noOption(name string, opts []option) error {
	names := make([]string, len(opts))
	for i, o := range opts {
		names[i] = o.name
	}
	e := &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("no option --%s", name), Hint: "vaultexec --help lists them"}
	if near := vault.Nearest(name, names); near != "" {
		e.Hint = fmt.Sprintf("did you mean --%s?", near)
	}
	return e
}

func needsValue(name string) error {
	return &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("--%s needs a value", name),
		Hint: "vaultexec --help shows its form"}
}

// withoutSeparator says what a command without -- should have been. Of the command itself only the first word is
// repeated.
func (a *app) withoutSeparator(words []string) error {
	line := []string{"vaultexec"}
	for i, w := range a.head[:len(a.head)-len(words)] {
		switch option, _, joined := strings.Cut(w, "="); {
		case i > 0 && strings.Trim(a.head[i-1], "-") == "role-id": // half a credential
			w = vault.Hidden
		case joined && strings.Trim(option, "-") == "role-id":
			w = option + "=" + vault.Hidden
		}
		line = append(line, shellQuote(w))
	}
	line = append(line, "--", shellQuote(words[0]))
	if len(words) > 1 {
		line = append(line, "…")
	}
	return &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("%q is not a command of vaultexec", words[0]),
		Hint: commandHint(words[0]) + "to start a program, put -- before it: " + strings.Join(line, " ")}
}
