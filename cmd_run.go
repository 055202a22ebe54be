package main

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"slices"
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
	switch {
	case len(words) > 0 && a.command == nil:
		return a.withoutSeparator(words)
	case len(words) > 0:
		return &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("unexpected word %q before --", words[0]), Hint: "what belongs to the command stands after --"}
	case len(a.command) == 0 && !s.bool("dry-run"):
		return &fault.Error{Kind: fault.Usage, What: "no command", Hint: "vaultexec [OPTIONS] -- COMMAND [ARG...]"}
	}
	o := a.launchOptions(s)
	session := a.session(s)
	if err := fault.Join(s.faults); err != nil {
		return err
	}
	o.Session = session
	if s.bool("dry-run") {
		return a.dryRun(o)
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
	o.Sources = a.sources(s, o.Rules.AllowNames)
	return o
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
		if err == nil && launcher.IsDangerous(src.Name) && !slices.Contains(allowed, src.Name) {
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

// session sets the connection and the login up, without a request.
func (a *app) session(s *settings) *vault.Session {
	agent := ""
	if !s.given.has("address") {
		agent = firstOf(a.getenv, vaultVar("AGENT_ADDR"))
	}
	cfg := vault.Config{
		Address: s.str("address"), Namespace: s.str("namespace"),
		CACert: s.str("ca-cert"), CACertBytes: firstOf(a.getenv, vaultVar("CACERT_BYTES")), CAPath: s.str("ca-path"),
		ClientCert: s.str("client-cert"), ClientKey: s.str("client-key"), TLSServerName: s.str("tls-server-name"),
		SkipVerify: s.bool("tls-skip-verify"), Headers: firstOf(a.getenv, vaultVar("HEADERS")),
		SRVLookup:    firstOf(a.getenv, vaultVar("SRV_LOOKUP")) == "true" || firstOf(a.getenv, vaultVar("SRV_LOOKUP")) == "1",
		ProxyAddress: firstOf(a.getenv, append(vaultVar("PROXY_ADDR"), vaultVar("HTTP_PROXY")...)),
		Timeout:      s.duration("timeout"), UserAgent: "vaultexec/" + version(),
	}
	if agent != "" {
		cfg.Address = agent
	}
	source, needsToken := a.tokenSource(s, agent != "")
	cfg.Agent = !needsToken
	if len(s.faults) > 0 {
		return nil
	}
	client, err := vault.New(cfg)
	if err != nil {
		s.faults = append(s.faults, fault.Of(err))
		return nil
	}
	if clearText(cfg.Address) && !s.bool("allow-http") {
		a.ui.log.Warn("the token and the secrets cross the network unencrypted to "+client.Where(), "acknowledge", "--allow-http")
	}
	return vault.NewTokenSession(client, source)
}

// clearText reports whether the address leaves this machine without TLS.
func clearText(address string) bool {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" {
		return false
	}
	host := u.Hostname()
	ip := net.ParseIP(host)
	return host != "localhost" && !strings.HasSuffix(host, ".localhost") && (ip == nil || !ip.IsLoopback())
}

// tokenSource says where the token comes from: --token-file, VAULT_TOKEN, VAULTEXEC_TOKEN_FILE, an Agent in front, the
// Vault CLI's own store.
func (a *app) tokenSource(s *settings, agent bool) (source func(context.Context) (vault.Text, error), needsToken bool) {
	file := s.one("token-file")
	token := firstOf(a.getenv, vaultVar("TOKEN"))
	switch {
	case file.from == "--token-file" || file.from != "" && token == "":
		return func(context.Context) (vault.Text, error) { return vault.ReadCredential(file.from, file.text) }, true
	case token != "":
		return func(context.Context) (vault.Text, error) { return vault.CheckCredential("VAULT_TOKEN", token) }, true
	case agent:
		return func(context.Context) (vault.Text, error) { return vault.Text{}, nil }, false
	}
	return func(context.Context) (vault.Text, error) {
		return vault.StoredToken(a.getenv("HOME"), a.getenv("VAULT_CONFIG_PATH"), a.environ)
	}, true
}

func firstOf(getenv func(string) string, names []string) string {
	for _, n := range names {
		if v := getenv(n); v != "" {
			return v
		}
	}
	return ""
}

func (g *given) has(name string) bool { return len(g.values[name]) > 0 }

// dryRun shows what a run would do.
func (a *app) dryRun(o launcher.Options) error {
	env, err := launcher.Inspect(context.Background(), o)
	if err != nil {
		return err
	}
	a.ui.showEnv(env)
	return nil
}
