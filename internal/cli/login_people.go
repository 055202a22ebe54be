package cli

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/browser"
	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/listen"
	"github.com/agenticverz/vaultexec/internal/trust"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// The logins of people: oidc with a browser, github, and for `vaultexec login` a token that somebody types.

// passwordMethods are the methods with a user name and a password.
const passwordMethods = "userpass, ldap, okta and radius"

// tokenVars are the variables that hold a token for a login. A token in VAULT_TOKEN is in use already: nobody wants it
// stored for when the variable is gone.
func (a *app) tokenVars() []string {
	if a.storing {
		return nil
	}
	return tokenVars
}

// typedToken asks for the token that is to be stored.
func (a *app) typedToken(s *settings, conf *vault.LoginConfig) {
	if !isTerminal(os.Stdin) {
		s.lacks(conf.Method, "a token", "choose how to log in with --auth, or name the token's file with --token-file (/dev/stdin for a pipe)")
		return
	}
	conf.Token = once(func(context.Context) (vault.Text, error) {
		line, err := a.terminal.readHidden("Token (it is not shown): ")
		if err != nil {
			return vault.Text{}, cannotAsk("the token", "name its file with --token-file, or choose how to log in with --auth", err)
		}
		return vault.CheckCredential("the token", line)
	})
	conf.Ask = func(ctx context.Context) error {
		_, err := conf.Token(ctx)
		return err
	}
}

func (a *app) githubLogin(s *settings, in inputs, conf *vault.LoginConfig) {
	if conf.GitHubToken = in.githubToken.read(); conf.GitHubToken == nil {
		s.lacks(conf.Method, "a personal access token",
			"name its file with --github-token-file, or set VAULTEXEC_GITHUB_TOKEN; "+vault.StrippedHint)
	}
}

// oidcLogin sends a person to their browser. A run does that only where there is one: at a terminal.
func (a *app) oidcLogin(s *settings, conf *vault.LoginConfig) {
	if !a.storing && !isTerminal(os.Stdin) && !isTerminal(os.Stderr) {
		s.faults = append(s.faults, &fault.Error{Kind: fault.Usage, What: "cannot log in with oidc",
			Why:  "it takes a person, and there is no terminal",
			Hint: "log in with `vaultexec login --auth oidc` first: without --auth, a run uses the token that it stores"})
	}
	v := s.one("oidc-port")
	port, err := strconv.ParseUint(v.text, 10, 16)
	if err != nil || port == 0 {
		s.bad(v, "not a port", "give a number from 1 to 65535")
	}
	conf.Browser = &visit{app: a, port: uint16(port), opens: !s.bool("no-browser"), allow: s.owners()}
}

// visit is one login with a browser.
type visit struct {
	app    *app
	port   uint16
	opens  bool
	allow  []int // users who count as this one
	server *browser.Server
}

// Callback implements vault.Browser. Which of its addresses a browser takes localhost for is its own affair, so that
// both have to be this process's.
func (v *visit) Callback(ctx context.Context) (string, error) {
	var sockets []*listen.Socket
	defer func() {
		for _, s := range sockets {
			s.Close() // the listeners have descriptors of their own
		}
	}()
	var listeners []net.Listener
	fail := func(err error) (string, error) {
		for _, l := range listeners {
			l.Close()
		}
		f := *fault.Of(err)
		if errors.Is(err, unix.EADDRINUSE) {
			f.Hint = "finish or end the login that waits there, or choose another port with --oidc-port, which the role has to allow"
		}
		return "", &f
	}
	for _, host := range []string{"127.0.0.1", "::1"} {
		bound, err := listen.Bind(ctx, []listen.Spec{{Host: host, Port: v.port}})
		if len(sockets) > 0 && (errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAFNOSUPPORT)) {
			continue // a machine without IPv6
		}
		if err != nil {
			return fail(err)
		}
		sockets = append(sockets, bound...)
		if err := bound[0].Listen(); err != nil {
			return fail(err)
		}
		l, err := bound[0].Listener()
		if err != nil {
			return fail(err)
		}
		listeners = append(listeners, l)
	}
	var said sync.Map // whoever may ask must not fill the terminal, nor push the address out of it
	v.server = browser.Serve(v.port, listeners, v.known, func(why string) {
		if _, before := said.LoadOrStore(why, true); !before {
			v.app.ui.log.Warn("what came to the port of the login was refused", "why", why)
		}
	})
	return v.server.Redirect(), nil
}

// known reports whether a connection may be that of this user's browser. Another user could have seen the address, and
// would log this one in as somebody else. root forwards for others, and whoever --allow-owner names counts as well.
func (v *visit) known(c net.Conn) bool {
	uid, known := listen.Peer(c)
	return !known || uid == 0 || uid == os.Geteuid() || slices.Contains(v.allow, uid) || slices.Contains(v.allow, trust.Anyone)
}

// visitLimit is how long a person may take: Vault forgets the login then (oidcRequestTimeout of the plugin).
const visitLimit = 10 * time.Minute

// Visit implements vault.Browser.
func (v *visit) Visit(ctx context.Context, address, state string) (vault.Return, error) {
	a := v.app
	v.server.Expect(state)
	text := "to log in, open this address in a browser; Ctrl-C gives up"
	if v.opens && browser.Open(address, helperEnviron(a.environ), a.getenv) == nil {
		text = "your browser opens this address, where you log in; Ctrl-C gives up"
	}
	if a.ui.json { // like a question, it has no level that leaves it out
		a.ui.log.Error("log in at this address with a browser", "address", address)
	} else {
		a.ui.errorf("vaultexec: %s:\n\n    %s\n\n", text, oneLine(address))
	}
	ctx, cancel := context.WithTimeout(ctx, visitLimit)
	defer cancel()
	a.ui.waits("waiting for the login in the browser", time.Now().Add(visitLimit))
	defer a.waited()
	back, err := v.server.Wait(ctx)
	if err != nil {
		return vault.Return{}, &fault.Error{Kind: fault.Refused, What: "cannot log in with oidc", Err: err,
			Why:  "nobody logged in within " + visitLimit.String(),
			Hint: "run it again, and log in at the address that it shows"}
	}
	r := vault.Return{Code: vault.NewText(back.Code), IDToken: vault.NewText(back.IDToken), Refusal: back.Error}
	if back.Description != "" && back.Error != "" {
		r.Refusal += ": " + back.Description
	}
	return r, nil
}

// Close implements vault.Browser.
func (v *visit) Close(err error) { v.server.Close(err == nil) }
