package cli

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
	"github.com/agenticverz/vaultexec/launcher"
)

// checkOptions are the launcher's options except the one that is check itself. So the command line of a run can be
// checked as it stands.
func checkOptions() []option {
	return slices.DeleteFunc(slices.Clone(options), func(o option) bool { return o.name == "dry-run" })
}

// check is `vaultexec check [OPTIONS]`: what stands after -- is not started either, but looked for.
func (a *app) check(g *given, words []string) error {
	s := &settings{opts: options, given: g, environ: a.getenv}
	if s.bool("help") {
		return a.help(nil)
	}
	if err := a.begin(s); err != nil {
		return err
	}
	if len(words) > 0 {
		return &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("unexpected word %q", words[0]),
			Hint: "vaultexec check [OPTIONS]; secrets are named with --path and --env"}
	}
	o := a.launchOptions(s)
	session := a.session(s)
	if err := fault.Join(s.faults); err != nil {
		return err
	}
	o.Session = session
	if !a.ui.json { // then the report is for a program
		a.ui.leaveOutReport(s)
	}
	return a.inspect(s, o, false)
}

// checked is everything that check shows.
type checked struct {
	*launcher.Report
	where    string
	warnings []string
	listed   bool // --names was given
	lock     *lockCheck
}

// inspect is check and --dry-run, which shows the variables, too.
func (a *app) inspect(s *settings, o launcher.Options, variables bool) error {
	c := checked{where: o.Session.Client.Where(), listed: o.Rules.Names != nil}
	var err error
	c.Report, err = launcher.Inspect(o)
	var killed *launcher.Killed
	if errors.As(err, &killed) {
		return err
	}
	if err != nil {
		if a.ui.json {
			a.ui.checkJSON(&checked{Report: &launcher.Report{Faults: fault.All(err)}, where: c.where}, false)
		}
		return err
	}
	c.warn(s)
	if !variables {
		c.lock = checkLock(o.RestartLock, s.duration("timeout"))
	}
	if a.ui.json {
		a.ui.checkJSON(&c, variables)
	} else {
		a.ui.checkText(&c, variables)
	}
	return c.verdict()
}

// warn collects what works and yet should be known.
func (c *checked) warn(s *settings) {
	if slices.Contains(c.Token.Policies, "root") {
		c.warnings = append(c.warnings,
			"this is a root token: it may do everything, and everybody who gets at it, too; make a role whose policies allow these paths only")
	}
	if s.str("namespace") != "" && c.Server.Version != "" && c.Server.IgnoresNamespaces() {
		c.warnings = append(c.warnings,
			fmt.Sprintf("the server has no namespaces (Vault %s, community edition) and ignores --namespace %s",
				c.Server.Version, s.str("namespace")))
	}
	if ns := s.str("auth-namespace"); ns != "" && c.Server.Version != "" && c.Server.IgnoresNamespaces() {
		c.warnings = append(c.warnings,
			fmt.Sprintf("the server has no namespaces (Vault %s, community edition) and ignores --auth-namespace %s",
				c.Server.Version, ns))
	}
	if k := c.Copy; k != nil && !k.None && k.Flaw != nil {
		c.warnings = append(c.warnings, fmt.Sprintf("the last-good copy %q cannot be used: %s", k.File, k.Flaw))
	}
	for _, p := range c.Paths {
		if c.Copy != nil && p.Leased {
			c.warnings = append(c.warnings, fmt.Sprintf("no last-good copy is written: %s is in no KV engine", p.Path))
		}
	}
	if c.Token.Uses > 0 {
		c.warnings = append(c.warnings,
			fmt.Sprintf("the token is good for %s only, and this check has used some", requests(c.Token.Uses)))
	}
}

// requests is a number of them.
func requests(n int) string {
	if n == 1 {
		return "1 request"
	}
	return fmt.Sprintf("%d requests", n)
}

// verdict is the failure of a run, with its exit code and the hint of the first fault. The report has all of them, but
// it may have gone elsewhere.
func (c *checked) verdict() error {
	if len(c.Faults) == 0 {
		return c.lock.verdict()
	}
	first := c.Faults[0]
	why := first.Error()
	if n := len(c.Faults) - 1; n > 0 {
		why += fmt.Sprintf(" (and %d more)", n)
	}
	return &fault.Error{Kind: first.Kind, What: "a run would fail", Why: why, Hint: first.Cure(), Exit: first.Code()}
}

// pathState is the mark of a path.
func pathState(p launcher.PathReport) string {
	switch {
	case p.Fault != nil:
		return "FAILED"
	case p.Absent != nil:
		return "absent"
	case p.Leased:
		return "leased"
	}
	return "ok"
}

// checkTones are the colours of the words in front.
var checkTones = map[string]tone{"ok": goodTone, "leased": goodTone, "FAILED": badTone, "warning": doubtTone, "absent": doubtTone}

// line prints one line of check: a word in front, and what it is about.
func (u *ui) line(head, format string, args ...any) {
	u.row(9, head, checkTones[head], fmt.Sprintf(format, args...), plainTone)
}

// failure prints one that belongs to text, with its hint.
func (u *ui) failure(text string, f *fault.Error) {
	u.line("FAILED", "%s", text)
	if f.Hint != "" {
		u.line("", "  hint: %s", f.Hint)
	}
}

// checkText prints the report for a person.
func (u *ui) checkText(c *checked, variables bool) {
	server := c.where
	if c.Server.Version != "" {
		server += " (version " + c.Server.Version + ")"
	}
	u.line("vault", "%s", server)
	u.line("login", "%s", loginText(c.Token))
	if c.Token.Method != vault.AuthAgent {
		u.line("token", "%s", tokenText(c.Token, c.TokenFault))
	}
	for _, w := range c.warnings {
		u.line("warning", "%s", w)
	}
	for _, p := range c.Paths {
		u.pathText(p)
		if p.Fault == nil {
			u.capabilitiesText(p)
		}
	}
	for _, f := range c.Faults {
		if !slices.ContainsFunc(c.Paths, func(p launcher.PathReport) bool { return p.Fault == f }) {
			u.failure(f.Error(), f)
		}
	}
	if k := c.Copy; k != nil && k.None {
		u.line("copy", "%s: there is none yet, a run writes it", k.File)
	} else if k != nil && k.Flaw == nil {
		u.line("copy", "%s: %s old, a start without Vault would use it", k.File, k.Age.Truncate(time.Second))
	}
	u.lockText(c.lock)
	if names := givenNames(c); len(names) > 0 && !variables {
		u.line("names", "--names %s takes these from --path, and nothing that somebody adds later",
			strings.Join(names, ","))
	}
	if variables && c.Env != nil {
		u.printf("\n")
		u.showEnv(c.Env)
		for _, s := range c.Unread {
			u.printf("%s\n", oneLine(unreadText(s)))
		}
	}
}

// lockText prints what there is of a restart lock.
func (u *ui) lockText(l *lockCheck) {
	switch {
	case l == nil:
		return
	case len(l.faults) == 0 && l.limit == 1:
		u.line("ok", "restart lock %s: its place can be taken", l.name)
	case len(l.faults) == 0:
		u.line("ok", "restart lock %s: its %d places can be taken", l.name, l.limit)
	}
	for _, f := range l.faults {
		u.failure(f.Error(), f)
	}
}

// pathText prints what is at a path.
func (u *ui) pathText(p launcher.PathReport) {
	name := vault.Path{Mount: p.Path.Mount, Name: p.Path.Name, Fields: p.Path.Fields}.String()
	switch {
	case p.Fault != nil:
		u.failure(fmt.Sprintf("%s: %s", p.Path, p.Fault.Why), p.Fault)
	case p.Absent != nil && p.Member:
		u.line("absent", "%s: %s (it is left out of the folder)", p.Path, p.Absent.Why)
	case p.Absent != nil:
		u.line("absent", "%s: %s (it is optional)", p.Path, p.Absent.Why)
	case p.Folder != nil:
		u.line("ok", "%s: %s", p.Path, p.Folder.Engine)
		u.line("", "  secrets: %s", strings.Join(p.Folder.Names, ", "))
		if n := p.Folder.Folders; n > 0 {
			u.line("", "  folders in it, which are not entered: %d", n)
		}
	case p.Leased:
		u.line("leased", "%s: %s, not read, because reading %s", name, p.Secret.Engine, p.Secret.Engine.Creates(p.Path))
	default:
		u.line("ok", "%s: %s", name, secretText(p.Secret))
		u.line("", "  keys: %s", keysText(p.Secret))
	}
}

// capabilitiesText prints what the token may do at a path, as far as that says more than the read itself.
func (u *ui) capabilitiesText(p launcher.PathReport) {
	if p.Leased && p.Caps == nil {
		u.line("",
			"  whether the token may read it is not known: it may not ask for its capabilities (sys/capabilities-self)")
	}
	if p.Caps != nil {
		u.line("", "  may: %s on %s", strings.Join(p.Caps, ", "), p.API)
	}
	if p.MetaCaps != nil && !vault.Allows(p.MetaCaps, "read") {
		u.line("",
			"  may not read the metadata, so that --watch reads the data each time; rule: path %q { capabilities = [\"read\"] }",
			p.Metadata)
	}
}

// givenNames are the names that --path gives, where no --names lists them yet.
func givenNames(c *checked) (names []string) {
	if c.Env == nil || c.listed {
		return nil
	}
	for _, v := range c.Env.Vars {
		if v.Whole {
			names = append(names, v.Name)
		}
	}
	slices.Sort(names)
	return names
}

func unreadText(s environ.Source) string {
	if s.Name != "" {
		return fmt.Sprintf("%s  %s#%s (leased, not read)", s.Name, s.Path, s.Key)
	}
	return fmt.Sprintf("(every key of %s, which is leased and not read)", s.Path)
}

func loginText(t vault.Info) string {
	switch {
	case t.Method == vault.AuthAgent:
		return "by the Vault Agent or Proxy in front"
	case !t.Own:
		return "ok, with a token that was handed in"
	case t.Mount == "":
		return "ok, with a wrapped token"
	}
	return fmt.Sprintf("ok, with %s at auth/%s", t.Method, t.Mount)
}

func tokenText(t vault.Info, unknown *fault.Error) string {
	if !t.Known {
		return "nothing is known of it: " + unknown.Why + " (auth/token/lookup-self)"
	}
	var parts []string
	switch {
	case t.Life == 0:
		parts = append(parts, "never ends")
	default:
		parts = append(parts, "expires in "+roughly(t.Life))
	}
	switch {
	case t.Type == "batch":
		parts = append(parts, "a batch token")
	case t.Renewable:
		parts = append(parts, "renewable")
	case t.Life > 0:
		parts = append(parts, "not renewable")
	}
	if t.Uses > 0 {
		parts = append(parts, "good for "+requests(t.Uses))
	}
	return strings.Join(append(parts, "policies "+strings.Join(t.Policies, " ")), ", ")
}

func secretText(s *vault.Secret) string {
	text := s.Engine.String()
	if s.Version > 0 {
		text += fmt.Sprintf(", version %d", s.Version)
	}
	if d, ok := age(s); ok {
		text += fmt.Sprintf(", written %s ago (%s)", roughly(d), shortTime(s.CreatedTime))
	}
	return text
}

func keysText(s *vault.Secret) string {
	if len(s.Values) == 0 {
		return "none"
	}
	return strings.Join(slices.Sorted(maps.Keys(s.Values)), ", ")
}
