package cli

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// Variables that hold a credential themselves. An option never does: everybody can read the command line. All of them
// are taken out of the command's environment (internal/environ/credentials.go).
var (
	tokenVars           = vaultVar("TOKEN")
	secretIDVars        = append(ownVar("SECRET_ID"), vaultVar("SECRET_ID")...)
	wrappedSecretIDVars = ownVar("WRAPPED_SECRET_ID")
	wrappedTokenVars    = append(ownVar("WRAPPED_TOKEN"), vaultVar("WRAPPED_TOKEN")...)
	jwtVars             = ownVar("JWT")
	passwordVars        = ownVar("PASSWORD")
	githubTokenVars     = ownVar("GITHUB_TOKEN")
)

// credential is one credential as it was given: in a file, or itself in a variable.
type credential struct {
	from   string // "--jwt-file", "VAULTEXEC_JWT_FILE", "VAULTEXEC_JWT"; "" when it was not given
	origin origin
	file   string
	allow  []int      // whose files count as one's own
	text   vault.Text // from a variable
}

func (c credential) given() bool { return c.from != "" }

// credential finds one credential: the option, the variable that holds it, the variable that names a file, the
// configuration file. An option wins. Of the two variables the one with the value wins, as VAULT_TOKEN does over a
// token file.
func (a *app) credential(s *settings, fileOption string, vars []string) credential {
	file := s.one(fileOption)
	if file.origin == fromOption {
		return credential{from: file.from, origin: file.origin, file: file.text, allow: s.owners()}
	}
	if name, v := a.first(vars); name != "" {
		return credential{from: name, origin: fromVariable, text: vault.NewText(v)}
	}
	if file.from != "" {
		return credential{from: file.from, origin: file.origin, file: file.text, allow: s.owners()}
	}
	return credential{}
}

// read is nil for a credential that was not given.
func (c credential) read() vault.Source {
	switch {
	case c.file != "":
		return vault.FileSource(c.from, c.file, c.allow...)
	case !c.text.Empty():
		return vault.TextSource(c.from, c.text.Reveal())
	}
	return nil
}

// readWrapped is read for a wrapping token.
func (c credential) readWrapped() vault.Source {
	if source := c.read(); source != nil {
		return vault.Unwrapping(source)
	}
	return nil
}

// inputs are everything that a login may be made of.
type inputs struct {
	token, wrappedToken, secretID, wrappedSecretID, jwt, password, githubToken credential

	clouds cloudInputs

	roleID     setting // itself: half a secret
	roleIDFile setting
	username   setting
}

func (a *app) inputs(s *settings) inputs {
	return inputs{
		token:           a.credential(s, "token-file", a.tokenVars()),
		wrappedToken:    a.credential(s, "wrapped-token-file", wrappedTokenVars),
		secretID:        a.credential(s, "secret-id-file", secretIDVars),
		wrappedSecretID: a.credential(s, "wrapped-secret-id-file", wrappedSecretIDVars),
		jwt:             a.credential(s, "jwt-file", jwtVars),
		password:        a.credential(s, "password-file", passwordVars),
		clouds:          a.cloudInputs(s),
		githubToken:     a.credential(s, "github-token-file", githubTokenVars),
		roleID:          s.one("role-id"), roleIDFile: s.one("role-id-file"), username: s.one("username"),
	}
}

// without leaves out what came from there.
func (in inputs) without(from origin) inputs {
	for _, c := range []*credential{&in.token, &in.wrappedToken, &in.secretID,
		&in.wrappedSecretID, &in.jwt, &in.password, &in.githubToken} {
		if c.origin == from {
			*c = credential{}
		}
	}
	in.clouds.drop(from)
	for _, v := range []*setting{&in.roleID, &in.roleIDFile, &in.username} {
		if v.origin == from {
			*v = setting{}
		}
	}
	return in
}

// implied lists the methods whose inputs are given, with the input that shows it. --role and a client certificate show
// nothing: several methods have the one, and connections that log in with a token may need the other.
func (in inputs) implied() (methods []vault.Method, by []string) {
	add := func(m vault.Method, from ...string) {
		for _, f := range from {
			if f != "" {
				methods, by = append(methods, m), append(by, f)
				return
			}
		}
	}
	add(vault.AuthToken, in.wrappedToken.from)
	add(vault.AuthAppRole, in.roleID.from, in.roleIDFile.from, in.secretID.from, in.wrappedSecretID.from)
	add(vault.AuthAzure, in.clouds.azureResource.from, in.clouds.azureClientID.from, in.clouds.azureResourceID.from)
	add(vault.AuthGCP, in.clouds.gcpKey.from, in.clouds.gcpType.from)
	add(vault.AuthJWT, in.jwt.from)
	add(vault.AuthGitHub, in.githubToken.from)
	add(vault.AuthUserpass, in.username.from, in.password.from) // or another of passwordMethods
	return methods, by
}

// loginConfig says how to log in. throughAgent is true when VAULT_AGENT_ADDR names the address.
func (a *app) loginConfig(s *settings, throughAgent bool) vault.LoginConfig {
	in := a.inputs(s)
	mount := strings.TrimPrefix(strings.Trim(s.str("auth-mount"), "/"), "auth/")
	if mount != "" {
		if _, err := vault.ParseMount(mount); err != nil {
			s.fail(s.one("auth-mount"), err)
		}
	}
	known := len(s.faults)
	method := a.method(s, in, throughAgent)
	if len(s.faults) > known {
		return vault.LoginConfig{} // what else is missing depends on the method
	}
	conf := vault.LoginConfig{
		Method: method, Mount: mount, Role: s.str("role"), Username: in.username.text, ThroughAgent: throughAgent,
	}
	switch conf.Method {
	case vault.AuthToken:
		a.tokenLogin(s, in, &conf)
	case vault.AuthAppRole:
		a.approleLogin(s, in, &conf)
	case vault.AuthAWS:
		a.awsLogin(s, &conf)
	case vault.AuthAzure:
		a.azureLogin(s, in.clouds, &conf)
	case vault.AuthGCP:
		a.gcpLogin(s, in.clouds, &conf)
	case vault.AuthKubernetes, vault.AuthJWT:
		conf.JWT = in.jwt.read()
		if conf.JWT == nil && conf.Method == vault.AuthKubernetes {
			conf.JWT = vault.FileSource("the service account's token", vault.KubernetesJWTFile, s.owners()...)
		}
		if conf.JWT == nil {
			s.lacks(conf.Method, "a JWT", "name its file with --jwt-file, or set VAULTEXEC_JWT; "+vault.StrippedHint)
		}
		if conf.Role == "" && conf.Method == vault.AuthKubernetes {
			s.lacks(conf.Method, "a role", "name it with --role")
		}
	case vault.AuthCert:
		if s.str("client-cert") == "" || s.str("client-key") == "" {
			s.lacks(conf.Method, "a client certificate", "give --client-cert and --client-key")
		}
	case vault.AuthUserpass, vault.AuthLDAP, vault.AuthOkta, vault.AuthRADIUS:
		a.passwordLogin(s, in, &conf)
	case vault.AuthGitHub:
		a.githubLogin(s, in, &conf)
	case vault.AuthOIDC:
		a.oidcLogin(s, &conf)
	}
	return conf
}

// lacks notes an input that the method cannot do without.
func (s *settings) lacks(m vault.Method, what, hint string) {
	s.faults = append(s.faults, &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot log in with %s", m),
		Why: what + " is missing", Hint: hint})
}

// method is --auth, or what the inputs say: a token, the one method whose inputs are given, an Agent, the Vault CLI's
// store.
func (a *app) method(s *settings, in inputs, throughAgent bool) vault.Method {
	if v := s.one("auth"); v.text != "" {
		m := vault.Method(v.text)
		if !slices.Contains(vault.Methods, m) {
			s.bad(v, "no such method", "choose from: "+strings.Join(methodNames(), ", "))
		}
		return m
	}
	above := in.without(fromFile)
	if methods, _ := above.implied(); len(methods) > 0 || above.token.given() {
		in = above // the file says how to log in where nothing else does
	}
	methods, by := in.implied()
	if in.token.given() {
		for _, other := range by {
			if strings.HasPrefix(other, "--") {
				a.warnOnce(fmt.Sprintf("%s is not used: %s says how to log in", other, in.token.from),
					"hint", "choose with --auth")
				break
			}
		}
		return vault.AuthToken
	}
	switch {
	case len(methods) > 1:
		s.faults = append(s.faults, &fault.Error{Kind: fault.Usage, What: "cannot tell how to log in",
			Why: fmt.Sprintf("%s is for %s, and %s is for %s",
				by[0], methodOf(methods[0]), by[1], methodOf(methods[1])),
			Hint: "take one of them out, or choose with --auth"})
		return ""
	case len(methods) == 1 && methods[0] == vault.AuthUserpass:
		s.faults = append(s.faults, &fault.Error{Kind: fault.Usage, What: "cannot tell how to log in",
			Why:  by[0] + " is for " + passwordMethods,
			Hint: "choose one with --auth"})
		return ""
	case len(methods) == 1:
		return methods[0]
	case throughAgent && !a.storing:
		return vault.AuthAgent
	}
	if role := s.one("role"); role.origin == fromOption {
		e := &fault.Error{Kind: fault.Usage, What: "cannot tell how to log in",
			Why:  "--role alone fits several methods",
			Hint: "choose with --auth: " + strings.Join(methodNames(), ", ")}
		for _, name := range jwtVars {
			if a.isSet(name) { // a CI that was to put one there
				e.Why, e.Hint = name+" is set and empty", "the job has no identity token: look at its permissions"
			}
		}
		s.faults = append(s.faults, e)
	}
	return vault.AuthToken
}

func methodOf(m vault.Method) string {
	if m == vault.AuthUserpass {
		return passwordMethods
	}
	return string(m)
}

func methodNames() []string {
	names := make([]string, len(vault.Methods))
	for i, m := range vault.Methods {
		names[i] = string(m)
	}
	return names
}

// tokenLogin takes a token that was handed in, or the one that the Vault CLI keeps.
func (a *app) tokenLogin(s *settings, in inputs, conf *vault.LoginConfig) {
	switch {
	case in.token.origin > fromFile, in.token.given() && in.wrappedToken.origin <= fromFile:
		conf.Token = in.token.read()
	case in.wrappedToken.given():
		conf.WrappedToken = in.wrappedToken.readWrapped()
	case a.storing:
		a.typedToken(s, conf)
	default:
		allow := s.owners()
		conf.Token = func(ctx context.Context) (vault.Text, error) {
			return vault.StoredToken(ctx, a.getenv("HOME"), a.getenv("VAULT_CONFIG_PATH"), helperEnviron(a.environ),
				allow...)
		}
	}
}

// helperEnviron is what a token helper gets: it is to find a credential, and needs none of ours.
func helperEnviron(inherited []string) []string {
	rest, _ := environ.WithoutCredentials(inherited)
	return rest
}

func (a *app) approleLogin(s *settings, in inputs, conf *vault.LoginConfig) {
	switch {
	case in.roleIDFile.origin == fromOption, in.roleIDFile.origin > in.roleID.origin:
		conf.RoleID = vault.FileSource(in.roleIDFile.from, in.roleIDFile.text, s.owners()...)
	case in.roleID.from != "":
		conf.RoleID = vault.TextSource(in.roleID.from, in.roleID.text)
	default:
		s.lacks(conf.Method, "a role id",
			"give it with --role-id or VAULTEXEC_ROLE_ID, or name its file with --role-id-file; "+vault.StrippedHint)
	}
	switch of, wrapped := in.secretID.origin, in.wrappedSecretID.origin; {
	case of > fromFile && wrapped == fromFile:
		in.wrappedSecretID = credential{}
	case of == fromFile && wrapped > fromFile:
		in.secretID = credential{}
	case in.secretID.given() && in.wrappedSecretID.given():
		s.faults = append(s.faults, &fault.Error{Kind: fault.Usage, What: "cannot log in with approle",
			Why:  fmt.Sprintf("both %s and %s are given", in.secretID.from, in.wrappedSecretID.from),
			Hint: "take one of them out: each gives a secret id"})
	}
	conf.SecretID, conf.WrappedSecretID = in.secretID.read(), in.wrappedSecretID.readWrapped()
}

// passwordLogin asks a person for the password only where there is one: at a terminal.
func (a *app) passwordLogin(s *settings, in inputs, conf *vault.LoginConfig) {
	if conf.Username == "" {
		s.lacks(conf.Method, "a user name", "give it with --username")
	} else if strings.ContainsFunc(conf.Username, func(r rune) bool { return r == '/' || r < ' ' || r == 0x7f }) ||
		conf.Username == "." || conf.Username == ".." {
		s.bad(in.username, "it cannot be part of a path", "give the name without a slash, as Vault knows it")
	}
	conf.ShowNumber = func(number string) { a.ui.log.Warn("choose this number in Okta Verify", "number", number) }
	switch p := in.password; {
	case p.file != "":
		conf.Password = vault.PasswordFileSource(p.from, p.file, p.allow...)
	case !p.text.Empty():
		conf.Password = func(context.Context) (vault.Text, error) {
			return vault.CheckPassword(p.from, p.text.Reveal())
		}
	case isTerminal(os.Stdin):
		question := fmt.Sprintf("Password of %s for %s: ", oneLine(conf.Username), conf.Method)
		conf.Password = once(func(context.Context) (vault.Text, error) { return a.terminal.askPassword(question) })
		conf.Ask = func(ctx context.Context) error {
			_, err := conf.Password(ctx)
			return err
		}
	default:
		s.lacks(conf.Method, "a password",
			"name its file with --password-file, set VAULTEXEC_PASSWORD, or run it at a terminal to be asked; "+
				vault.StrippedHint)
	}
}

// once keeps what a person typed: later logins happen while the terminal is the command's.
func once(ask vault.Source) vault.Source {
	var mu sync.Mutex
	var kept vault.Text
	return func(ctx context.Context) (vault.Text, error) {
		mu.Lock()
		defer mu.Unlock()
		if !kept.Empty() {
			return kept, nil
		}
		t, err := ask(ctx)
		if err == nil {
			kept = t
		}
		return t, err
	}
}
