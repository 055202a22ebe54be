package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
	"github.com/agenticverz/vaultexec/launcher"
)

// command is a subcommand that starts no program: it does one thing, most in Vault, and reports it.
type command struct {
	name    string
	args    string // how its words are written: "PATH KEY [VALUE | -]"
	summary string // one line, for the list of commands
	about   string // what help says further
	own     []option
	shared  []string // groups of the launcher's options, or single ones as "--mount"
	least   int      // words
	most    int
	report  bool // what it prints is a report about its work, which --quiet leaves out
	run     bool // takes the command line of a run: what stands after -- is no word of its own
	secret  int  // words from this one on may be values, and are not repeated in an error; 0 for none
	do      func(a *app, ctx context.Context, s *settings, words []string) error
}

const groupOwn = "Options"

// Options that several commands have.
var (
	jsonOption   = option{name: "json", group: groupOwn, usage: "report as JSON, for a script"}
	dryRunOption = option{name: "dry-run", group: groupOwn, usage: "look and say what would be done, and do nothing"}
)

// withAll is what every command shares.
var withAll = []string{"--log-level", "--quiet", "--log-format", "--help"}

// withLogin is what every command shares that talks to Vault with a token.
var withLogin = append([]string{groupConfig, groupConnection, groupLogin, "--wait", "--timeout"}, withAll...)

// withKV is the same for commands on secrets.
var withKV = append([]string{"--mount", "--kv-version"}, withLogin...)

// adminCommands is filled by init, because help refers to it and is referred to by its functions.
var adminCommands []*command

func init() {
	adminCommands = []*command{getCommand, listCommand, diffCommand, rotateCommand, setCommand, rollbackCommand, importCommand,
		scanCommand, loginCommand, logoutCommand, unsealCommand, statusCommand,
		psCommand, fallbackCommand, installCommand, configCommand, completionCommand}
}

func findCommand(name string) *command {
	i := slices.IndexFunc(adminCommands, func(c *command) bool { return c.name == name })
	if i < 0 {
		return nil
	}
	return adminCommands[i]
}

// options is the command's part of the option table; its own options go before shared ones of the same name.
func (c *command) options() []option {
	opts := slices.Clone(c.own)
	has := func(name string) bool {
		return slices.ContainsFunc(opts, func(o option) bool { return o.name == name })
	}
	for _, o := range options {
		if (slices.Contains(c.shared, o.group) || slices.Contains(c.shared, "--"+o.name)) && !has(o.name) {
			opts = append(opts, o)
		}
	}
	return opts
}

func (c *command) find(name string) (option, bool) {
	for _, o := range c.options() {
		if o.name == name {
			return o, true
		}
	}
	return option{}, false
}

// cli makes the parser's end of the command. The options before the command's name were collected in the same place.
func (c *command) cli(a *app, g *given) *cli.Command {
	return &cli.Command{
		Name: c.name, HideHelp: true, Flags: g.flags(c.options()),
		OnUsageError: func(_ *cli.Context, err error, _ bool) error { return a.parseError(err, c.options()) },
		Action:       func(ctx *cli.Context) error { return a.administer(c, g, ctx.Args().Slice()) },
	}
}

// administer reads the rest of the command line and runs the command.
func (a *app) administer(c *command, g *given, args []string) error {
	words, err := c.split(g, args)
	s := &settings{opts: c.options(), given: g, environ: a.getenv}
	if err == nil && s.bool("help") {
		a.ui.printf("%s", c.help())
		return nil
	}
	if cerr := a.begin(s); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if c.report {
		a.ui.leaveOutReport(s)
	}
	for name := range g.values {
		if _, ok := c.find(name); !ok {
			return &fault.Error{Kind: fault.Usage,
				What: fmt.Sprintf("--%s does not belong to vaultexec %s", name, c.name),
				Hint: fmt.Sprintf("vaultexec help %s lists what does", c.name)}
		}
	}
	if !c.run {
		words = append(words, a.command...)
	}
	if len(words) < c.least || len(words) > c.most {
		why := "too few words"
		if len(words) > c.most {
			why = "too many words"
		}
		return c.misused(why)
	}
	return a.interruptible(func(ctx context.Context) error { return c.do(a, ctx, s, words) })
}

// misused is the failure of a command line with the wrong words.
func (c *command) misused(why string) error {
	return &fault.Error{Kind: fault.Usage, What: "cannot run vaultexec " + c.name, Why: why,
		Hint: "write it as " + c.usage()}
}

// split takes the options out of what follows the first word. Unlike the parser's own, they may stand anywhere before
// --.
func (c *command) split(g *given, args []string) (words []string, err error) {
	for i := 0; i < len(args); i++ {
		w := args[i]
		if w == "-" || !strings.HasPrefix(w, "-") {
			words = append(words, w)
			continue
		}
		name, value, hasValue := strings.Cut(strings.TrimLeft(w, "-"), "=")
		o, ok := c.find(name)
		switch {
		case !ok && c.secret > 0 && len(words) >= c.secret:
			// It may be a value that begins with a dash.
			return nil, &fault.Error{Kind: fault.Usage,
				What: fmt.Sprintf("no such option as word %d after %s", i+1, c.name),
				Hint: "a value that begins with - goes after --, or is read from standard input with -"}
		case !ok:
			return nil, noOption(name, c.options())
		case o.arg == "" && !hasValue:
			value = "true"
		case o.arg != "" && !hasValue:
			if i++; i == len(args) {
				return nil, needsValue(name)
			}
			value = args[i]
		}
		_ = flagValue{g, o}.Set(value) // never fails
	}
	return words, nil
}

// interruptible runs f with a context that a signal ends. A command makes one request to Vault at a time, and each is
// carried out or not. After a moment for giving the token back, the signal does what it always does.
func (a *app) interruptible(f func(context.Context) error) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	sigs := make(chan os.Signal, 1)
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT} {
		if !signal.Ignored(sig) { // nohup
			signal.Notify(sigs, sig)
		}
	}
	launcher.CatchQuit()
	defer signal.Stop(sigs)
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	select {
	case err := <-done:
		return err
	case sig := <-sigs:
		cancel()
		select {
		case <-done:
		case <-time.After(150 * time.Millisecond): // it ends within 200 ms
		}
		return &interrupted{sig.(syscall.Signal)}
	}
}

// interrupted is the end by a signal, which main makes true.
type interrupted struct{ signal syscall.Signal }

// Error names the signal.
func (e *interrupted) Error() string { return e.signal.String() }

// withVault runs f with a logged-in session, and gives the token back at the end.
func (a *app) withVault(ctx context.Context, s *settings, f func(context.Context, *vault.Client) error) error {
	session := a.session(s)
	if err := fault.Join(s.faults); err != nil {
		return err
	}
	defer session.Revoke(context.WithoutCancel(ctx)) // bounds itself
	if err := a.logIn(ctx, s, session); err != nil {
		return err
	}
	return session.Do(ctx, func(ctx context.Context) error { return f(ctx, session.Client) })
}

// logIn asks a person where the login needs one, and then logs in.
func (a *app) logIn(ctx context.Context, s *settings, session *vault.Session) error {
	if err := session.Prepare(ctx, a.patience(s)); err != nil {
		return err
	}
	return a.patience(s).Do(ctx, session.Login)
}

// patience is --wait, with one line that says what is waited for.
func (a *app) patience(s *settings) vault.Patience {
	wait, start := waitTime(s), time.Now()
	return vault.Patience{Wait: wait, Start: start, Over: a.waited, Notice: func(f *fault.Error) {
		until := vault.WaitEnd(start, wait)
		switch {
		case f.Passing && !a.ui.waits("waiting for a credential: "+f.Error(), until):
			a.ui.log.Info("waiting for a credential: " + f.Error())
		case !f.Passing && !a.ui.waits("waiting for Vault: "+f.Why, until):
			a.ui.log.Info("waiting for Vault: " + f.Why)
		}
	}}
}

// mount is --mount.
func (s *settings) mount() string {
	mount, err := vault.ParseMount(s.str("mount"))
	if err != nil {
		s.fail(s.one("mount"), err)
	}
	return mount
}

// kvVersion is --kv-version, 0 when it is to be found out.
func (s *settings) kvVersion() int {
	switch s.choice("kv-version") {
	case "1":
		return 1
	case "2":
		return 2
	}
	return 0
}

// advise betters the hint of a failure about a path.
func advise(ctx context.Context, c *vault.Client, s *settings, p vault.Path, err error) error {
	if err != nil {
		for _, f := range fault.All(err) {
			c.Advise(ctx, p, f, !s.isSet("mount"))
		}
	}
	return err
}

// misplaced refuses to make a new secret at a path that begins with its mount, which is how the Vault CLI takes paths.
// Nobody would look for it there. A path with a slash in front is taken at its word. So is one that begins with another
// mount's name where --mount was given.
func misplaced(ctx context.Context, c *vault.Client, s *settings, st vault.State, typed vault.Path) error {
	switch {
	case st.Exists, st.Gone != nil, !strings.Contains(typed.Name, "/"):
		return nil
	case st.Blind && !s.bool("create"): // a patch makes nothing
		return nil
	}
	hint := c.Meant(ctx, typed, !s.isSet("mount"))
	if hint == "" {
		return nil
	}
	return &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot make %s", st.Path),
		Why:  "it is new, and its path begins with a mount",
		Hint: hint + fmt.Sprintf("; for a new secret of this name write %q", "/"+vault.EscapePath(st.Path.String()))}
}

// resolve finds the engine of a path, waiting for a Vault that is away, and makes sure that it is KV.
func (a *app) resolve(
	ctx context.Context, c *vault.Client, s *settings, p vault.Path) (vault.Path, vault.Engine, error) {
	var e vault.Engine
	err := a.patience(s).Do(ctx, func(ctx context.Context) (err error) {
		p, e, err = c.Resolve(ctx, p, s.kvVersion())
		return err
	})
	if err != nil {
		return p, e, advise(ctx, c, s, p, err)
	}
	if e.KV == 0 {
		return p, e, &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot use %s", p),
			Why:  fmt.Sprintf("the mount %s is a %s engine, not a KV engine", e.Mount, e.Type),
			Hint: "`vaultexec list /` shows the mounts that the token can see"}
	}
	return p, e, nil
}

// usage is the command's line.
func (c *command) usage() string {
	return strings.TrimSpace("vaultexec " + c.name + " " + c.args)
}

// help is the text of `vaultexec help NAME`.
func (c *command) help() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n\n%s\n", c.usage(), c.summary, strings.Trim(c.about, "\n"))
	opts := c.options()
	for _, g := range append([]string{groupOwn}, groups...) {
		head := "\n" + g + ":\n"
		for _, o := range opts {
			if o.group == g {
				b.WriteString(head + optionText(o))
				head = ""
			}
		}
	}
	return b.String()
}

// commandHint names the subcommand that a first word may have been meant as.
func commandHint(word string) string {
	var names []string
	for _, c := range adminCommands {
		names = append(names, c.name)
	}
	near := vault.Nearest(word, append(names, "run", "check", "help"))
	if near == "" || near[0] != word[0] {
		return ""
	}
	return fmt.Sprintf("did you mean `vaultexec %s`? ", near)
}
