package vault

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// Browser is the person's part of a login with oidc. Vault gives an address of a provider. The person goes there with a
// browser and logs in, and the provider sends the browser back to a port of this machine, with a code that only Vault
// can make anything of. The way is that of the Vault CLI (hashicorp/vault-plugin-auth-jwt, cli.go).
type Browser interface {
	// Callback makes ready for the browser to come back, and says where.
	Callback(ctx context.Context) (redirectURI string, err error)
	// Visit sends a person to an address, and waits for their browser to come back with this state.
	Visit(ctx context.Context, address, state string) (Return, error)
	// Close tells the person's browser how the login ended.
	Close(err error)
}

// Return is what a browser comes back with. It refuses to be printed.
type Return struct {
	Code, IDToken Text
	Refusal       string // the provider's words, of a login that it refused
}

// Format prints "***" for every verb.
func (r Return) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(Hidden)) }

// maxAddress bounds the address of a provider.
const maxAddress = 16 << 10

// visit logs in with a browser, unless that was done already.
func (s *Session) visit(ctx context.Context, patience Patience) error {
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.unlock()
	if g, _ := s.state(); g != nil {
		return nil
	}
	g, err := s.auth.visit(ctx, patience)
	if err == nil {
		s.set(&g)
	}
	return err
}

// visit asks Vault for the provider's address, sends the person there, and hands Vault the code that comes back. Vault
// binds the three to each other: by the state, by PKCE, and by the nonce, which only this process and Vault know.
func (l *authenticator) visit(ctx context.Context, patience Patience) (g grant, err error) {
	browser := l.conf.Browser
	callback, err := browser.Callback(ctx)
	if err != nil {
		return grant{}, err
	}
	defer func() { browser.Close(err) }()
	nonce := NewText(rand.Text())
	l.client.Secrets.Add(nonce)
	var address, state string
	patience.Start = time.Time{} // of the call
	err = patience.Do(ctx, func(ctx context.Context) (err error) {
		address, state, err = l.address(ctx, callback, nonce)
		return err
	})
	if err != nil {
		return grant{}, err
	}
	back, err := browser.Visit(ctx, address, state)
	if err != nil {
		return grant{}, err
	}
	l.client.Secrets.Add(back.Code, back.IDToken)
	if back.Refusal != "" {
		return grant{}, &fault.Error{Kind: fault.Refused, What: l.what(),
			Why:  "the provider refused it: " + request{}.serverWords(l.client.Secrets, []string{back.Refusal}),
			Hint: "log in again, as a user whom the provider lets in; its administrator knows more"}
	}
	return l.redeem(ctx, state, nonce, back)
}

// address asks Vault where the person is to go.
func (l *authenticator) address(ctx context.Context, callback string, nonce Text) (address, state string, err error) {
	body := func() any {
		return map[string]string{"role": l.conf.Role, "redirect_uri": callback, "client_nonce": nonce.Reveal()}
	}
	a, err := l.write(ctx, request{path: "auth/" + l.mount() + "/oidc/auth_url", body: body, token: &Text{}}, l.compare)
	if err != nil {
		return "", "", err
	}
	var d struct {
		URL  string `json:"auth_url"`
		Mode string `json:"callback_mode"`
	}
	if a.Data.into(&d) != nil {
		return "", "", notVaults(l.what(), "")
	}
	if d.Mode != "" && d.Mode != "client" {
		return "", "", &fault.Error{Kind: fault.Refused, What: l.what(),
			Why:  "the role has another callback_mode than client",
			Hint: "vaultexec can only have the browser come back to this machine: set callback_mode of the role to client, or log in with another method"}
	}
	if d.URL == "" { // Vault tells nobody why who is not logged in
		return "", "", &fault.Error{Kind: fault.Refused, What: l.what(),
			Why: "Vault gives no address to log in at",
			Hint: fmt.Sprintf("compare --role, and add %s to its allowed_redirect_uris (`vault read auth/%s/role/NAME`); Vault's own log says more",
				callback, l.mount())}
	}
	u, err := url.Parse(d.URL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || len(d.URL) > maxAddress ||
		u.Query().Get("state") == "" {
		return "", "", &fault.Error{Kind: fault.Refused, What: l.what(),
			Why:  "nobody can log in at the address that Vault gives",
			Hint: fmt.Sprintf("look at the provider's address in `vault read auth/%s/config`", l.mount())}
	}
	return u.String(), u.Query().Get("state"), nil
}

// redeem hands Vault what the browser came back with. It asks once: Vault forgets the state at the first try.
func (l *authenticator) redeem(ctx context.Context, state string, nonce Text, back Return) (grant, error) {
	ctx, cancel := outlast(ctx, lastLogin)
	defer cancel()
	path := "auth/" + l.mount() + "/oidc/callback"
	if !back.IDToken.Empty() { // it has to be posted first; the answer is a page for a browser
		_, _ = l.client.do(ctx, request{what: l.what(), method: http.MethodPut, path: path, auth: true, quiet: true, token: &Text{},
			body: func() any {
				return map[string]string{"state": state, "code": back.Code.Reveal(), "id_token": back.IDToken.Reveal()}
			}})
	}
	at := time.Now()
	a, err := l.write(ctx, request{method: http.MethodGet, path: path, token: &Text{}, query: url.Values{
		"state": {state}, "code": {back.Code.Reveal()}, "client_nonce": {nonce.Reveal()},
	}}, l.compare)
	if err != nil {
		return grant{}, err
	}
	return l.grantOf(a, at)
}

// again is the failure of a second login.
func (l *authenticator) again() error {
	return &fault.Error{Kind: fault.Refused, What: l.what(), RetryAfter: refusalDelay(5),
		Why:  "a person would have to do it again, with a browser",
		Hint: "start vaultexec again; for what runs for long choose a method that needs nobody (vaultexec help login)"}
}

// pushTime is how long a login may take during which a person has to take up a telephone.
const pushTime = time.Minute

// challenged is the body of a login with okta, and looks for the number that a person may have to choose on their
// telephone until done is called. Each login has a nonce of its own, by which Vault knows which number is asked for.
func (l *authenticator) challenged(ctx context.Context, a *attempt) (body func() any, done func()) {
	nonce := rand.Text()
	body = func() any {
		m := revealed(a.body)
		m["nonce"] = nonce
		return m
	}
	if l.conf.ShowNumber == nil {
		return body, func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		for sleep(ctx, time.Second) {
			answer, err := l.client.do(ctx, request{what: "cannot look the number up", auth: true, token: &Text{}, quiet: true,
				path: "auth/" + l.mount() + "/verify/" + nonce})
			var d struct {
				Number Value `json:"correct_answer"`
			}
			if err != nil || answer.Status != http.StatusOK || answer.Data.into(&d) != nil {
				continue
			}
			if number, err := d.Number.Text(); err == nil && strings.Trim(number.Reveal(), "0123456789") == "" {
				l.conf.ShowNumber(number.Reveal())
				return
			}
		}
	}()
	return body, cancel
}
