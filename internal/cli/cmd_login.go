package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

var loginCommand = &command{
	name: "login", args: "[OPTIONS]", summary: "log in, and keep the token for the runs that follow",
	about: `
The token goes where the Vault CLI keeps its own: to the token helper that
~/.vault (or VAULT_CONFIG_PATH) names, else to ~/.vault-token, which only its
owner can read. vaultexec and vault find it there. It is not revoked at the end;
vaultexec logout does that. What is printed says until when it lives and which
policies it has, never the token itself.

--auth takes every method of a run but agent. Without it, what is given decides,
as for a run; when nothing is given, it asks for a token, as "vault login" does.
What VAULT_TOKEN holds is not stored: it wins over the store as long as it is set.

  vaultexec login --auth oidc --role dev       in the browser
  vaultexec login --auth userpass --username ada
  vaultexec login --token-file FILE            or /dev/stdin

With oidc the browser comes back to http://localhost:8250/oidc/callback, as with
the Vault CLI: the role (allowed_redirect_uris) and the provider have to allow it.
Without a browser on this machine open the address on yours, and bring the port
along: ssh -L 8250:localhost:8250 HOST.
`,
	own: []option{jsonOption}, shared: withLogin, report: true,
	do: (*app).login,
}

var logoutCommand = &command{
	name: "logout", args: "[OPTIONS]", summary: "revoke the stored token, and remove it",
	about: `
The token is the one that vaultexec login, or vault login, stored: the token
helper's, or that of ~/.vault-token. It is revoked with everything that was made
with it (leases, further tokens), and then removed. One that is no longer valid,
or cannot be revoked, is removed all the same, and the output says so. While Vault
is away nothing is removed.

What VAULT_TOKEN holds is left alone. A root token is removed and
not revoked: it may be the only one there is.
`,
	own: []option{jsonOption}, shared: append([]string{groupConfig, groupConnection, "--wait", "--timeout", "--auth-namespace"}, withAll...), report: true,
	do: (*app).logout,
}

// store is the Vault CLI's place for a token.
func (a *app) store(ctx context.Context, s *settings) (*vault.Store, error) {
	return vault.FindStore(ctx, a.getenv("HOME"), a.getenv("VAULT_CONFIG_PATH"), helperEnviron(a.environ), s.owners()...)
}

// loginReport is what login says.
type loginReport struct {
	Method    vault.Method `json:"method"`
	Mount     string       `json:"mount,omitempty"` // of the auth method
	Known     bool         `json:"known"`           // what follows is known
	Name      string       `json:"name,omitempty"`  // who the token is for, as Vault names it
	Type      string       `json:"type,omitempty"`
	Policies  []string     `json:"policies,omitempty"`
	Expires   *time.Time   `json:"expires"` // null for a token that never ends, or if that is not known
	Renewable bool         `json:"renewable"`
	Uses      int          `json:"uses,omitempty"` // requests it is good for; 0 for any number
	File      string       `json:"file,omitempty"`
	Helper    string       `json:"token_helper,omitempty"`

	info vault.Info
}

func (a *app) login(ctx context.Context, s *settings, _ []string) error {
	a.storing = true
	session := a.session(s)
	if session != nil && session.Method() == vault.AuthAgent {
		s.bad(s.one("auth"), "an Agent keeps its token to itself", "choose the method by which you log in yourself")
	}
	if err := fault.Join(s.faults); err != nil {
		return err
	}
	store, err := a.store(ctx, s)
	if err == nil {
		err = store.Check(ctx)
	}
	if err != nil {
		return err
	}
	stored := false
	defer func() {
		if !stored {
			session.Revoke(context.WithoutCancel(ctx)) // bounds itself
		}
	}()
	if err := a.logIn(ctx, s, session); err != nil {
		return err
	}
	r := &loginReport{File: store.File()}
	if store.Helper() != "" {
		r.File, r.Helper = "", store.Helper()
	}
	var unknown error
	err = a.patience(s).Do(ctx, func(ctx context.Context) (err error) {
		r.info, err = session.Info(ctx)
		return err
	})
	if unknown = err; err != nil && !fault.Is(err, fault.Denied) { // it may be of use all the same
		return err
	}
	i := &r.info
	if i.Known && i.Uses == 0 { // the question costs a use
		if about, err := session.Client.LookupToken(ctx); err == nil {
			r.Name, i.Policies = about.Name, about.Policies
		}
	}
	if i.Known && i.Life > 0 {
		ends := time.Now().Add(i.Life).UTC().Truncate(time.Second)
		r.Expires = &ends
	}
	r.Method, r.Mount, r.Known, r.Type, r.Policies = i.Method, i.Mount, i.Known, i.Type, i.Policies
	r.Renewable, r.Uses = i.Renewable, i.Uses
	if err := store.Put(ctx, session.Client.Token()); err != nil {
		return err
	}
	stored = true
	if name, _ := a.first(tokenVars); name != "" {
		a.warnOnce(name+" is set, and wins over the token that is stored now", "hint", "unset "+name)
	}
	a.showLogin(s, r, unknown)
	return nil
}

func (a *app) showLogin(s *settings, r *loginReport, unknown error) {
	if s.bool("json") {
		a.ui.reportJSON(r)
		return
	}
	how := loginText(r.info)
	if r.Name != "" {
		how += ", as " + r.Name
	}
	a.ui.line("login", "%s", how)
	about := &fault.Error{}
	if unknown != nil {
		about = fault.Of(unknown)
	}
	text := tokenText(r.info, about)
	if r.Expires != nil {
		text = strings.Replace(text, ", ", fmt.Sprintf(" (%s), ", r.Expires.Format(time.RFC3339)), 1)
	}
	a.ui.line("token", "%s", text)
	if r.Helper != "" {
		a.ui.line("stored", "with the token helper %s", r.Helper)
	} else {
		a.ui.line("stored", "in %s", r.File)
	}
}

// logoutReport is what logout says.
type logoutReport struct {
	Outcome string `json:"outcome"` // "revoked", "ended", "kept" for what is removed and not revoked, "none"
	Why     string `json:"why,omitempty"`

	expires bool // nobody can revoke what is kept
}

func (a *app) logout(ctx context.Context, s *settings, _ []string) error {
	cfg := a.clientConfig(s)
	client := a.client(s, cfg)
	if err := fault.Join(s.faults); err != nil {
		return err
	}
	store, err := a.store(ctx, s)
	if err != nil {
		return err
	}
	if name, _ := a.first(tokenVars); name != "" {
		a.warnOnce(name+" is set, and left alone", "hint", "unset it; its token stays valid")
	}
	token, err := store.Token(ctx)
	switch {
	case fault.Has(err, fault.NoToken), fault.Has(err, fault.Empty):
		a.showLogout(s, logoutReport{Outcome: "none"}, client.Where())
		return nil
	case err != nil:
		return err
	}
	client.SetToken(token)
	var r logoutReport
	if err := a.patience(s).Do(ctx, func(ctx context.Context) (err error) {
		r, err = end(ctx, client)
		return err
	}); err != nil {
		f := *fault.Of(err)
		f.AddHint("the token is still stored, and valid")
		return &f
	}
	if err := store.Erase(ctx, token); err != nil {
		f := *fault.Of(err)
		if r.Outcome != "kept" {
			f.AddHint("it is no longer valid")
		}
		return &f
	}
	a.showLogout(s, r, client.Where())
	return nil
}

// end revokes the token of the client, and says what became of it. The error is that of a Vault which cannot be asked.
func end(ctx context.Context, c *vault.Client) (logoutReport, error) {
	info, err := c.LookupToken(ctx)
	if err == nil && slices.Contains(info.Policies, "root") {
		return logoutReport{Outcome: "kept", Why: "it is a root token"}, nil
	}
	if err == nil || fault.Is(err, fault.Denied) {
		err = c.RevokeToken(ctx)
	}
	switch {
	case err == nil:
		return logoutReport{Outcome: "revoked"}, nil
	case fault.Is(err, fault.BadToken):
		return logoutReport{Outcome: "ended"}, nil
	case fault.Is(err, fault.Denied, fault.Usage): // the latter is a batch token
		return logoutReport{Outcome: "kept", Why: fault.Of(err).Why, expires: fault.Is(err, fault.Usage)}, nil
	}
	return logoutReport{}, err
}

func (a *app) showLogout(s *settings, r logoutReport, where string) {
	if s.bool("json") {
		a.ui.reportJSON(r)
		return
	}
	switch r.Outcome {
	case "revoked":
		a.ui.line("token", "revoked at %s, and removed", where)
	case "ended":
		a.ui.line("token", "was no longer valid at %s; removed", where)
	case "none":
		a.ui.line("token", "none is stored")
	default:
		a.ui.line("token", "removed here, and not revoked at %s: %s", where, r.Why)
		if r.expires {
			a.ui.line("", "  whoever has it can use it until it expires")
			return
		}
		a.ui.line("", "  whoever has it can still use it: `vault token revoke` ends it")
	}
}
