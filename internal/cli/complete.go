package cli

import (
	"context"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/agenticverz/vaultexec/internal/vault"
	"github.com/agenticverz/vaultexec/launcher"
)

// completeWord is the hidden command that the completion scripts run: `vaultexec __complete WORD...`, with the words
// from after the program's name up to the cursor. Only the last, which is being written, may be "--": the scripts leave
// what follows a -- to the shell.
//
// The answer's first line says what is completed: words (the lines that follow, each a whole word), files, dirs or
// commands (which the shell knows better). Nothing is ever written on standard error, and the exit code is 0.
const completeWord = "__complete"

// completionLimit is what Vault may take. With the start of the process the person waits less than 300 ms.
const completionLimit = 250 * time.Millisecond

// What the shell is to complete.
const (
	completeWords    = "words"
	completeFiles    = "files"
	completeDirs     = "dirs"
	completeCommands = "commands"
)

// completer is one question of a completion script.
type completer struct {
	app     *app
	command string // the subcommand among the words; "" for none
	opts    []option
	given   *given
	words   []string // what is neither an option nor its value, the subcommand left out
	prefix  string   // of the current word, before what is completed: "--path="
}

// complete answers the script. At the limit the process ends and leaves behind whatever blocks: a Vault that does not
// answer, a token file that is a pipe.
func (a *app) complete(words []string) {
	type answer struct {
		kind  string
		words []string
	}
	done := make(chan answer, 1)
	ctx, cancel := context.WithTimeout(context.Background(), completionLimit)
	defer cancel()
	quiet := &app{environ: a.environ, ui: newUI(io.Discard, io.Discard), terminal: a.terminal}
	go func() {
		kind, list := quiet.candidates(ctx, words)
		done <- answer{kind, list}
	}()
	select {
	case got := <-done:
		a.ui.printf("%s\n", got.kind)
		for _, w := range got.words {
			if !strings.ContainsFunc(w, unseen) { // a line each, and what it looks like
				a.ui.printf("%s\n", w)
			}
		}
	case <-ctx.Done():
	}
}

// candidates finds out what the last word may become.
func (a *app) candidates(ctx context.Context, words []string) (kind string, list []string) {
	if len(words) == 0 {
		words = []string{""}
	}
	words, current := words[:len(words)-1], words[len(words)-1]
	c := &completer{app: a, opts: options, given: newGiven()}
	pending, ok := c.parse(words)
	switch {
	case !ok:
		return completeWords, nil
	case pending != nil:
		return c.value(ctx, *pending, current)
	case strings.HasPrefix(current, "-"):
		name, value, hasValue := strings.Cut(current, "=")
		if !hasValue {
			return completeWords, startingWith(current, c.optionNames())
		}
		o, ok := c.find(strings.TrimLeft(name, "-"))
		if !ok || o.arg == "" {
			return completeWords, nil
		}
		c.prefix = name + "="
		return c.value(ctx, o, value)
	case c.command == "":
		return completeWords, startingWith(current, append(commandNames(), "help"))
	}
	return c.word(ctx, current)
}

func commandNames() []string {
	names := []string{"run", "check"}
	for _, c := range adminCommands {
		names = append(names, c.name)
	}
	return names
}

func startingWith(prefix string, names []string) []string {
	return slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, prefix) })
}

// parse sorts the finished words. It returns the option whose value comes next, if any, and false for a line that
// cannot become right.
func (c *completer) parse(words []string) (*option, bool) {
	for i := 0; i < len(words); i++ {
		w := words[i]
		if w == "-" || !strings.HasPrefix(w, "-") {
			switch {
			case c.command != "":
				c.words = append(c.words, w)
			case !c.begin(w):
				return nil, false
			}
			continue
		}
		name, value, hasValue := strings.Cut(strings.TrimLeft(w, "-"), "=")
		o, ok := c.find(name)
		switch {
		case !ok:
			return nil, false
		case o.arg == "" && !hasValue:
			value = "true"
		case !hasValue:
			if i++; i == len(words) {
				return &o, true
			}
			value = words[i]
		}
		_ = flagValue{c.given, o}.Set(value) // never fails
	}
	return nil, true
}

// begin takes a word as the subcommand.
func (c *completer) begin(word string) bool {
	c.command = word
	switch admin := findCommand(word); {
	case admin != nil:
		c.opts = admin.options()
	case word == "check":
		c.opts = checkOptions()
	case word == "help":
		c.opts = helpOptions()
	case word != "run":
		return false
	}
	return true
}

func (c *completer) find(name string) (option, bool) {
	i := slices.IndexFunc(c.opts, func(o option) bool { return o.name == name })
	if i < 0 {
		return option{}, false
	}
	return c.opts[i], true
}

// optionNames leaves out what was given already and counts once.
func (c *completer) optionNames() []string {
	var names []string
	for _, o := range c.opts {
		if o.list || !c.given.has(o.name) {
			names = append(names, "--"+o.name)
		}
	}
	return names
}

// word completes a word of a subcommand by the way in which its words are written: "PATH KEY [VALUE | -]".
func (c *completer) word(ctx context.Context, current string) (string, []string) {
	n := len(c.words)
	admin := findCommand(c.command)
	switch {
	case c.command == "help" && n == 0:
		return completeWords, startingWith(current, helpTopics())
	case c.command == "completion":
		return completeWords, startingWith(current, completionWords(c.words))
	case c.command == "fallback" && n == 0:
		return completeWords, startingWith(current, []string{"key", "show"})
	case c.command == "fallback":
		return completeFiles, nil
	case admin == nil:
		return completeWords, nil
	}
	forms := strings.Fields(admin.args)
	if n >= len(forms) && strings.HasSuffix(admin.args, "...") {
		n = len(forms) - 1
	}
	if n >= len(forms) {
		return completeWords, nil
	}
	if c.command == "list" {
		folders := slices.DeleteFunc(c.paths(ctx, current), func(p string) bool { return !strings.HasSuffix(p, "/") })
		return completeWords, folders
	}
	return c.form(ctx, forms[n], current)
}

// value completes the value of an option, by its placeholder where that says enough.
func (c *completer) value(ctx context.Context, o option, current string) (kind string, list []string) {
	switch o.name {
	case "mount":
		kind, list = completeWords, c.mounts(ctx, current)
	case "auth":
		kind, list = completeWords, startingWith(current, methodNames())
	default:
		kind, list = c.form(ctx, o.arg, current)
	}
	for i := range list {
		list[i] = c.prefix + list[i]
	}
	return kind, list
}

// form completes what a placeholder stands for.
func (c *completer) form(ctx context.Context, form, current string) (string, []string) {
	name, rest, hasRest := strings.Cut(current, "=")
	switch {
	case form == "DIR", form == "[DIR|-]":
		return completeDirs, nil
	case form == "PROGRAM":
		return completeCommands, nil
	case form == "SIGNAL":
		return completeWords, startingWith(current, signalNames())
	case (form == "KEY" || strings.HasPrefix(form, "[KEY")) && len(c.words) > 0:
		return completeWords, startingWith(current, c.keys(ctx, c.words[0]))
	case form == "VERSION" && len(c.words) > 0:
		return completeWords, startingWith(current, c.versions(ctx, c.words[0]))
	case strings.HasPrefix(form, "FILE"), form == "DIR|FILE", strings.HasSuffix(form, "=PATH]") && hasRest: // --file NAME=PATH
		return completeFiles, nil
	case strings.HasPrefix(form, "NAME=PATH"): // --env
		if !hasRest {
			return completeWords, nil
		}
		list := c.reference(ctx, rest, true)
		for i := range list {
			list[i] = name + "=" + list[i]
		}
		return completeWords, list
	case strings.Contains(form, "#KEY"):
		return completeWords, c.reference(ctx, current, false)
	case strings.HasPrefix(form, "PATH"):
		return completeWords, c.paths(ctx, current)
	case form == "[PATH]", form == "A", form == "B": // of import, which takes a file alone, too, and diff
		if list := c.paths(ctx, current); len(list) > 0 {
			return completeWords, list
		}
		return completeFiles, nil
	case strings.HasPrefix(current, "signal:") && strings.Contains(form, "signal:"): // --on-change
		var list []string
		for _, sig := range signalNames() {
			list = append(list, "signal:"+sig)
		}
		return completeWords, startingWith(current, list)
	}
	// error|first|last, DURATION|forever: what is written in small letters is meant as it is.
	var list []string
	for alternative := range strings.SplitSeq(form, "|") {
		end := strings.IndexFunc(alternative, func(r rune) bool { return unicode.IsUpper(r) || r == '[' })
		if end < 0 {
			end = len(alternative)
		}
		if end > 0 {
			list = append(list, alternative[:end])
		}
	}
	return completeWords, startingWith(current, list)
}

func signalNames() []string {
	var names []string
	for _, sig := range []string{"HUP", "INT", "QUIT", "USR1", "USR2", "TERM", "WINCH", "CONT"} {
		if _, ok := launcher.ParseSignal(sig); ok {
			names = append(names, "SIG"+sig)
		}
	}
	return names
}

// client connects where a token is at hand: handed in, stored, or an Agent's. It is nil where anything else would be
// needed. A login leaves a token behind in Vault, a wrapping token can be used once, and a token helper is a program
// that may ask.
func (c *completer) client(ctx context.Context) (*vault.Client, *settings) {
	s := &settings{opts: options, given: c.given, environ: c.app.getenv}
	if _, err := s.configure(); err != nil {
		return nil, s
	}
	session := c.app.session(s)
	if session == nil || session.Own() || session.Client.Exposed() != "" && !s.bool("allow-http") {
		return nil, s
	}
	if session.Method() == vault.AuthToken && !c.app.inputs(s).token.given() &&
		vault.HasTokenHelper(c.app.getenv("HOME"), c.app.getenv("VAULT_CONFIG_PATH"), s.owners()...) {
		return nil, s
	}
	session.LeaveWrapped()
	if session.Login(ctx) != nil {
		return nil, s
	}
	return session.Client, s
}

// mounts are the KV mounts that the token can see.
func (c *completer) mounts(ctx context.Context, current string) []string {
	client, _ := c.client(ctx)
	if client == nil {
		return nil
	}
	var list []string
	for _, e := range kvMounts(ctx, client) {
		list = append(list, e.Mount)
	}
	return startingWith(current, list)
}

func kvMounts(ctx context.Context, client *vault.Client) []vault.Engine {
	engines, _ := client.VisibleMounts(ctx)
	return slices.DeleteFunc(engines, func(e vault.Engine) bool { return e.KV == 0 })
}

// paths are the secrets and folders that current may become: in the mount of --mount, or with the mount after a leading
// slash.
func (c *completer) paths(ctx context.Context, current string) []string {
	client, s := c.client(ctx)
	if client == nil {
		return nil
	}
	var list []string
	mount, absolute := s.mount(), strings.HasPrefix(current, "/")
	for _, e := range kvMounts(ctx, client) {
		root := ""
		if absolute {
			root = "/" + vault.EscapePath(e.Mount) + "/"
		} else if e.Mount != mount {
			continue
		}
		if rest, ok := strings.CutPrefix(current, root); ok {
			return startingWith(current, below(ctx, client, e, root, rest))
		}
		list = append(list, root)
	}
	return startingWith(current, list)
}

// below lists the folder that rest is in.
func below(ctx context.Context, client *vault.Client, e vault.Engine, root, rest string) []string {
	folder, dir := rest[:strings.LastIndexByte(rest, '/')+1], ""
	if folder != "" {
		p, err := vault.ParseDir(folder, e.Mount)
		if err != nil || p.Mount != e.Mount {
			return nil
		}
		dir = p.Name + "/"
	}
	names, _ := client.List(ctx, e, dir)
	for i, n := range names {
		names[i] = root + folder + vault.EscapePath(n)
	}
	return names
}

// reference completes PATH#KEY. Where a key has to follow, the # comes with the path.
func (c *completer) reference(ctx context.Context, current string, needsKey bool) []string {
	path, _, hasKey := strings.Cut(current, "#")
	if hasKey {
		list := c.keys(ctx, path)
		for i := range list {
			list[i] = path + "#" + vault.EscapePath(list[i])
		}
		return startingWith(current, list)
	}
	list := c.paths(ctx, current)
	for i := range list {
		if needsKey && !strings.HasSuffix(list[i], "/") {
			list[i] += "#"
		}
	}
	return list
}

// keys are the names in one secret. A path that creates something by being read is not read.
func (c *completer) keys(ctx context.Context, path string) []string {
	client, s := c.client(ctx)
	if client == nil {
		return nil
	}
	p, err := vault.ParsePath(path, s.mount())
	if err != nil {
		return nil
	}
	secret, err := client.Read(ctx, p, vault.ReadOptions{KVVersion: s.kvVersion(), NoLease: true})
	if err != nil {
		return nil
	}
	return slices.Sorted(maps.Keys(secret.Values))
}

// versions are the numbers of those of one secret that can be brought back.
func (c *completer) versions(ctx context.Context, path string) (numbers []string) {
	client, s := c.client(ctx)
	if client == nil {
		return nil
	}
	p, err := vault.ParsePath(path, s.mount())
	if err == nil && p.Fields == "" {
		p, _, err = client.Resolve(ctx, p, s.kvVersion())
	}
	if err != nil {
		return nil
	}
	list, _ := client.Versions(ctx, p)
	for _, v := range list {
		if v.State == "live" {
			numbers = append(numbers, strconv.Itoa(v.Version))
		}
	}
	return numbers
}
