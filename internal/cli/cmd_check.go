package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
	"github.com/agenticverz/vaultexec/launcher"
)

// checkOptions are the launcher's but the one that is check itself, so that the command line of a run can be checked as it
// stands.
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
		return &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("unexpected word %q", words[0]), Hint: "vaultexec check [OPTIONS]; secrets are named with --path and --env"}
	}
	o := a.launchOptions(s)
	session := a.session(s)
	if err := fault.Join(s.faults); err != nil {
		return err
	}
	o.Session = session
	return a.inspect(s, o, false)
}

// checked is everything that check shows.
type checked struct {
	*launcher.Report
	where    string
	warnings []string
	listed   bool // --names was given
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
		c.warnings = append(c.warnings, "this is a root token: it may do everything, and everybody who gets at it, too; make a role whose policies allow these paths only")
	}
	if s.str("namespace") != "" && c.Server.Version != "" && c.Server.IgnoresNamespaces() {
		c.warnings = append(c.warnings, fmt.Sprintf("the server has no namespaces (Vault %s, community edition) and ignores --namespace %s", c.Server.Version, s.str("namespace")))
	}
	if ns := s.str("auth-namespace"); ns != "" && c.Server.Version != "" && c.Server.IgnoresNamespaces() {
		c.warnings = append(c.warnings, fmt.Sprintf("the server has no namespaces (Vault %s, community edition) and ignores --auth-namespace %s", c.Server.Version, ns))
	}
	if c.Token.Uses > 0 {
		c.warnings = append(c.warnings, fmt.Sprintf("the token is good for %d requests only, and this check has used some", c.Token.Uses))
	}
}

// verdict is the failure of a run, with its exit code and the hint of the first: the report, which has them all, may have gone
// elsewhere.
func (c *checked) verdict() error {
	if len(c.Faults) == 0 {
		return nil
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

// checkText prints the report for a person.
func (u *ui) checkText(c *checked, variables bool) {
	line := func(head, format string, args ...any) {
		u.printf("%-9s %s\n", head, oneLine(fmt.Sprintf(format, args...)))
	}
	server := c.where
	if c.Server.Version != "" {
		server += " (version " + c.Server.Version + ")"
	}
	line("vault", "%s", server)
	line("login", "%s", loginText(c.Token))
	if c.Token.Method != vault.AuthAgent {
		line("token", "%s", tokenText(c))
	}
	for _, w := range c.warnings {
		line("warning", "%s", w)
	}
	for _, p := range c.Paths {
		name := vault.Path{Mount: p.Path.Mount, Name: p.Path.Name}.String()
		switch {
		case p.Fault != nil:
			line("FAILED", "%s: %s", p.Path, p.Fault.Why)
			if p.Fault.Hint != "" {
				line("", "  hint: %s", p.Fault.Hint)
			}
		case p.Absent != nil && p.Member:
			line("absent", "%s: %s (it is left out of the folder)", p.Path, p.Absent.Why)
		case p.Absent != nil:
			line("absent", "%s: %s (it is optional)", p.Path, p.Absent.Why)
		case p.Folder != nil:
			line("ok", "%s: %s", p.Path, p.Folder.Engine)
			line("", "  secrets: %s", strings.Join(p.Folder.Names, ", "))
			if n := p.Folder.Folders; n > 0 {
				line("", "  folders in it, which are not entered: %d", n)
			}
		case p.Leased:
			line("leased", "%s: %s, not read, because reading %s", name, p.Secret.Engine, p.Secret.Engine.Creates(p.Path))
		default:
			line("ok", "%s: %s", name, secretText(p.Secret))
			line("", "  keys: %s", keysText(p.Secret))
		}
		if p.Leased && p.Fault == nil && p.Caps == nil {
			line("", "  whether the token may read it is not known: it may not ask for its capabilities (sys/capabilities-self)")
		}
		if p.Caps != nil && p.Fault == nil {
			line("", "  may: %s on %s", strings.Join(p.Caps, ", "), p.API)
		}
		if p.MetaCaps != nil && p.Fault == nil && !vault.Allows(p.MetaCaps, "read") {
			line("", "  may not read the metadata, so that --watch reads the data each time; rule: path %q { capabilities = [\"read\"] }", p.Metadata)
		}
	}
	for _, f := range c.Faults {
		if slices.ContainsFunc(c.Paths, func(p launcher.PathReport) bool { return p.Fault == f }) {
			continue
		}
		line("FAILED", "%s", f.Error())
		if f.Hint != "" {
			line("", "  hint: %s", f.Hint)
		}
	}
	if names := givenNames(c); len(names) > 0 && !variables {
		line("names", "--names %s takes these from --path, and nothing that somebody adds later", strings.Join(names, ","))
	}
	if variables && c.Env != nil {
		u.printf("\n")
		u.showEnv(c.Env)
		for _, s := range c.Unread {
			u.printf("%s\n", oneLine(unreadText(s)))
		}
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

func unreadText(s launcher.Source) string {
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

func tokenText(c *checked) string {
	t := c.Token
	if !t.Known {
		return "nothing is known of it: " + c.TokenFault.Why + " (auth/token/lookup-self)"
	}
	var parts []string
	switch {
	case t.Life == 0:
		parts = append(parts, "never ends")
	default:
		parts = append(parts, "ends in "+roughly(t.Life))
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
		parts = append(parts, fmt.Sprintf("good for %d requests", t.Uses))
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
	return strings.Join(keysOf(s), ", ")
}

func keysOf(s *vault.Secret) []string {
	keys := make([]string, 0, len(s.Values))
	for k := range s.Values {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// age is the age of a version by the server's clock.
func age(s *vault.Secret) (time.Duration, bool) {
	created, err := time.Parse(time.RFC3339Nano, s.CreatedTime)
	if err != nil {
		return 0, false
	}
	now := s.Date
	if now.IsZero() {
		now = time.Now()
	}
	return max(now.Sub(created), 0), true
}

// roughly writes a duration in its two largest units.
func roughly(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= day:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

// The JSON of check. A field that is left out is not known.
type (
	checkJSON struct {
		OK        bool           `json:"ok"`
		Exit      int            `json:"exit"` // what a run would exit with; 0 when it would work
		Vault     string         `json:"vault"`
		Version   string         `json:"version,omitempty"`
		Token     *tokenJSON     `json:"token,omitempty"`
		Paths     []pathJSON     `json:"paths"`
		Names     []string       `json:"names,omitempty"` // what --names would list
		Warnings  []string       `json:"warnings"`
		Faults    []faultJSON    `json:"faults"`
		Variables []variableJSON `json:"variables,omitempty"`
		Stripped  []string       `json:"stripped,omitempty"`
	}
	tokenJSON struct {
		vault.Info
		EndsIn *int64 `json:"ends_in_seconds,omitempty"` // 0: never
	}
	pathJSON struct {
		Path         string              `json:"path"`
		State        string              `json:"state"` // ok, absent, leased, failed
		Optional     bool                `json:"optional,omitempty"`
		Engine       string              `json:"engine,omitempty"`
		KV           int                 `json:"kv_version,omitempty"`
		Version      int                 `json:"version,omitempty"`
		Created      string              `json:"created_time,omitempty"`
		Age          *int64              `json:"age_seconds,omitempty"`
		Keys         []string            `json:"keys,omitempty"`
		Secrets      []string            `json:"secrets,omitempty"`      // in a folder; each has an entry of its own
		Capabilities map[string][]string `json:"capabilities,omitempty"` // by path in policies
		Fault        *faultJSON          `json:"fault,omitempty"`
	}
	faultJSON struct {
		Kind string `json:"kind"`
		Text string `json:"text"`
		Hint string `json:"hint,omitempty"`
	}
	variableJSON struct {
		Name   string   `json:"name"`
		Source string   `json:"source"`
		Beat   []string `json:"beat,omitempty"`
		Kept   bool     `json:"kept_existing,omitempty"`
		File   string   `json:"file,omitempty"`   // its path, or "memory"
		Unread bool     `json:"unread,omitempty"` // leased; name is empty for every key of it
	}
)

func faultOf(f *fault.Error) *faultJSON {
	if f == nil {
		return nil
	}
	return &faultJSON{f.Kind.String(), f.Error(), f.Hint}
}

// checkJSON prints the report for a machine, as one line.
func (u *ui) checkJSON(c *checked, variables bool) {
	out := checkJSON{OK: len(c.Faults) == 0, Vault: c.where, Version: c.Server.Version, Paths: []pathJSON{}, Warnings: append([]string{}, c.warnings...), Faults: []faultJSON{}}
	if !variables {
		out.Names = givenNames(c)
	}
	if c.Token.Method != "" {
		out.Token = &tokenJSON{Info: c.Token}
		if c.Token.Known {
			s := int64(c.Token.Life / time.Second)
			out.Token.EndsIn = &s
		}
	}
	for _, p := range c.Paths {
		j := pathJSON{Path: p.Path.String(), State: strings.ToLower(pathState(p)), Optional: p.Optional, Fault: faultOf(p.Fault)}
		if p.Absent != nil {
			j.Fault = faultOf(p.Absent)
		}
		if s := p.Secret; s != nil {
			j.Engine, j.KV, j.Version, j.Created = s.Engine.Type, s.Engine.KV, s.Version, s.CreatedTime
			if !p.Leased {
				j.Keys = keysOf(s)
			}
			if d, ok := age(s); ok {
				n := int64(d / time.Second)
				j.Age = &n
			}
		}
		if f := p.Folder; f != nil {
			j.Engine, j.KV, j.Secrets = f.Engine.Type, f.Engine.KV, f.Names
		}
		for path, caps := range map[string][]string{p.API: p.Caps, p.Metadata: p.MetaCaps} {
			if caps != nil {
				if j.Capabilities == nil {
					j.Capabilities = map[string][]string{}
				}
				j.Capabilities[path] = caps
			}
		}
		out.Paths = append(out.Paths, j)
	}
	for i, f := range c.Faults {
		if i == 0 {
			out.Exit = f.Code()
		}
		out.Faults = append(out.Faults, *faultOf(f))
	}
	if variables && c.Env != nil {
		for _, v := range c.Env.Vars {
			out.Variables = append(out.Variables, variableJSON{Name: v.Name, Source: v.Origin, Beat: v.Beat, Kept: v.Kept, File: fileText(v, "memory")})
		}
		for _, s := range c.Unread {
			source := s.Path.String()
			if s.Key != "" {
				source += "#" + s.Key
			}
			out.Variables = append(out.Variables, variableJSON{Name: s.Name, Source: source, Unread: true})
		}
		out.Stripped = c.Env.Stripped
	}
	enc := json.NewEncoder(u.stdout)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(out)
}
