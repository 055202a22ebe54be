package vault

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// Method is a way to prove to Vault who one is.
type Method string

// The methods of --auth.
const (
	AuthToken      Method = "token"
	AuthAppRole    Method = "approle"
	AuthAWS        Method = "aws" // of its two types iam
	AuthAzure      Method = "azure"
	AuthGCP        Method = "gcp"
	AuthKubernetes Method = "kubernetes"
	AuthJWT        Method = "jwt"
	AuthCert       Method = "cert"
	AuthUserpass   Method = "userpass"
	AuthLDAP       Method = "ldap"
	AuthOkta       Method = "okta"
	AuthRADIUS     Method = "radius"
	AuthGitHub     Method = "github"
	AuthOIDC       Method = "oidc"  // a person, with a browser
	AuthAgent      Method = "agent" // no token: a Vault Agent or Proxy in front adds one
)

// Methods lists them all.
var Methods = []Method{AuthToken, AuthAppRole, AuthAWS, AuthAzure, AuthGCP, AuthKubernetes, AuthJWT, AuthCert, AuthUserpass, AuthLDAP,
	AuthOkta, AuthRADIUS, AuthGitHub, AuthOIDC, AuthAgent}

// KubernetesJWTFile is where Kubernetes puts the token of a pod's service account.
const KubernetesJWTFile = "/var/run/secrets/kubernetes.io/serviceaccount/token"

// ProvenBy is the entry of a proof that is not sent. It says who proves it and with what, where the proof itself is another one each
// time: a JWT that ends later, a signature of the current time.
const ProvenBy = ""

// Source gives a credential. It is asked at every login, because files are rotated under us.
type Source func(context.Context) (Text, error)

// LoginConfig says how to log in. Of the sources only those of the method are asked.
type LoginConfig struct {
	Method   Method
	Mount    string // of the auth method, below auth/; the method's own name when empty
	Role     string
	Username string

	Token           Source // handed in; one of Token and WrappedToken
	WrappedToken    Source // the token is the answer that this one unwraps
	RoleID          Source
	SecretID        Source // may be nil: AppRole roles can do without
	WrappedSecretID Source // the secret id is the answer that this one unwraps
	JWT             Source
	Password        Source
	GitHubToken     Source
	Browser         Browser                                        // of the person that logs in with oidc
	ShowNumber      func(number string)                            // that okta wants a person to choose; may be nil
	Proof           func(context.Context) (map[string]Text, error) // the body of a login that is more than a credential and a role
	Ask             func(context.Context) error                    // asks a person for one of them; nil when nothing is to be asked

	// ThroughAgent says that an Agent or Proxy stands between, although the login is our own. What would be revoked
	// through it might be its token in place of ours.
	ThroughAgent bool

	noUnwrap bool // a wrapping token in a token file is left alone
	sink     bool // a wrapping token may be an Agent's sink
}

// TextSource gives a credential that was handed over itself, by a variable. name names it in errors.
func TextSource(name, text string) Source {
	return func(context.Context) (Text, error) { return CheckCredential(name, text) }
}

// FileSource reads a credential from a file at every login. option names where the path came from, and allow the users
// whose files count as one's own.
func FileSource(option, path string, allow ...int) Source {
	return rereadable(option, path, func() (Text, error) { return ReadCredential(option, path, allow...) })
}

// DocumentSource is FileSource for a file that holds more than a credential, as the JSON of a key.
func DocumentSource(option, path string, allow ...int) Source {
	return rereadable(option, path, func() (Text, error) {
		s, err := readSmall(option, path, allow)
		if err == nil && strings.TrimSpace(s) == "" {
			err = &fault.Error{Kind: fault.Usage, Cause: fault.Empty, What: fmt.Sprintf("cannot use %s %q", option, path),
				Why: "it is empty", Hint: "name the file that holds the credential"}
		}
		return NewText(s), err
	})
}

// Unwrapping makes a source of a wrapping token of one that may be the JSON which Vault and its Agent write of it.
func Unwrapping(source Source) Source {
	return func(ctx context.Context) (Text, error) {
		t, err := source(ctx)
		if w := wrapInfoIn(err); w != nil {
			return w.token, nil
		}
		return t, err
	}
}

// PasswordFileSource is FileSource for a password. That may hold blanks and any letters; only the line's end is
// dropped.
func PasswordFileSource(option, path string, allow ...int) Source {
	return rereadable(option, path, func() (Text, error) {
		s, err := readSmall(option, path, allow)
		if err != nil {
			return Text{}, err
		}
		return CheckPassword(fmt.Sprintf("%s %q", option, path), strings.TrimSuffix(strings.TrimSuffix(s, "\n"), "\r"))
	})
}

// CheckPassword refuses what could not be a password: Vault answers an empty one with an internal error.
func CheckPassword(name, s string) (Text, error) {
	if s == "" {
		return Text{}, &fault.Error{Kind: fault.Usage, Cause: fault.Empty, What: "cannot use " + name,
			Why: "it is empty", Hint: "put the password there, on one line"}
	}
	return NewText(s), nil
}

// grant is what a login gave.
type grant struct {
	token     Text
	own       bool // vaultexec obtained it: it is revoked at the end
	policies  []string
	kind      string        // "service", "batch"; "" when not known
	at        time.Time     // when life began to count: before the request was sent
	life      time.Duration // from at; 0 for a token that never ends
	known     bool          // life, renewable, kind and uses are known
	renewable bool
	uses      int       // how many requests it is good for; 0 for any number
	stuck     int       // renewals in a row that did not move the end
	asked     bool      // Vault was asked about it (lookup-self), perhaps in vain
	died      time.Time // when it was found to be no longer valid; zero for one that may be
}

// granted makes a grant of the auth part of an answer.
func granted(a *Auth, at time.Time) grant {
	life := time.Duration(a.LeaseDuration) * time.Second
	return grant{
		token: a.ClientToken, own: true, policies: a.Policies, kind: a.TokenType,
		at: at, life: life, known: true, renewable: a.Renewable && a.TokenType != "batch", uses: a.NumUses,
	}
}

// attempt is one login before it is sent.
type attempt struct {
	path    string
	body    map[string]Text
	wrapped Text // has to be unwrapped first
	by      Text // says who proves what the body proves, where that is another one each time
}

// same reports whether a login with a would prove nothing that b did not.
func (a *attempt) same(b *attempt) bool {
	if b != nil && !a.by.Empty() {
		return a.path == b.path && a.by.Equal(b.by) && a.body["role"].Equal(b.body["role"])
	}
	return b != nil && a.path == b.path && a.wrapped.Equal(b.wrapped) && maps.EqualFunc(a.body, b.body, Text.Equal)
}

// authenticator performs the logins of one configuration.
type authenticator struct {
	client *Client
	conf   LoginConfig

	// An unwrapped secret id is kept while its file is unchanged: the wrapping token is good for one time only.
	unwrapped struct{ by, secretID Text }
	// lost says that the answer to the last try did not arrive: what is good for one time may be used up by ourselves.
	lost bool
}

func (l *authenticator) mount() string {
	if l.conf.Mount != "" {
		return l.conf.Mount
	}
	return string(l.conf.Method)
}

// what is the text of every failure of a login.
func (l *authenticator) what() string {
	switch l.conf.Method {
	case AuthToken:
		return "cannot log in with a wrapped token"
	default:
		return fmt.Sprintf("cannot log in with %s at auth/%s", l.conf.Method, l.mount())
	}
}

// gather reads the credentials of one login. Nothing is sent.
func (l *authenticator) gather(ctx context.Context) (*attempt, error) {
	c := l.conf
	a := &attempt{path: "auth/" + l.mount() + "/login", body: map[string]Text{}}
	get := func(field string, s Source) error {
		t, err := s(ctx)
		if err != nil {
			return err
		}
		a.body[field] = t
		return nil
	}
	role := func(field string) {
		if c.Role != "" {
			a.body[field] = NewText(c.Role)
		}
	}
	var err error
	switch c.Method {
	case AuthToken:
		a.path = ""
		a.wrapped, err = c.WrappedToken(ctx)
	case AuthAppRole:
		if err = get("role_id", c.RoleID); err != nil {
			break
		}
		if c.WrappedSecretID != nil {
			a.wrapped, err = c.WrappedSecretID(ctx)
			if errors.Is(err, fs.ErrNotExist) && !l.unwrapped.secretID.Empty() {
				a.wrapped, err = l.unwrapped.by, nil // whoever delivered it has tidied up
			}
		} else if c.SecretID != nil {
			err = get("secret_id", c.SecretID)
		}
	case AuthKubernetes, AuthJWT:
		role("role")
		err = get("jwt", c.JWT)
	case AuthCert:
		role("name")
	case AuthUserpass, AuthLDAP, AuthOkta, AuthRADIUS:
		a.path += "/" + c.Username
		err = get("password", c.Password)
	case AuthGitHub:
		err = get("token", c.GitHubToken)
	case AuthOIDC:
		err = l.again()
	default:
		if c.Proof == nil {
			err = &fault.Error{Kind: fault.Defect, What: "cannot log in", Why: fmt.Sprintf("no method %q", c.Method)}
			break
		}
		if a.body, err = c.Proof(ctx); err == nil {
			a.by = a.body[ProvenBy]
			delete(a.body, ProvenBy)
			role("role")
		}
	}
	if err != nil {
		return nil, fault.Of(err)
	}
	return a, nil
}

// send performs the login: one write, after unwrapping what has to be.
func (l *authenticator) send(ctx context.Context, a *attempt) (grant, error) {
	ctx, cancel := outlast(ctx, lastLogin)
	defer cancel()
	switch {
	case l.conf.Method == AuthToken:
		return l.unwrapToken(ctx, a.wrapped)
	case !a.wrapped.Empty():
		id, err := l.unwrapSecretID(ctx, a.wrapped)
		if err != nil {
			return grant{}, err
		}
		a.body["secret_id"] = id
		defer delete(a.body, "secret_id")
	}
	if l.conf.Method == AuthCert {
		// A connection that stands shows the certificate of its handshake.
		l.client.freshTLS(ctx, l.client.pools.current())
	}
	r := request{path: a.path, body: func() any { return revealed(a.body) }, token: &Text{}}
	if l.conf.Method == AuthOkta || l.conf.Method == AuthRADIUS {
		r.least = pushTime
	}
	if l.conf.Method == AuthOkta {
		var done func()
		r.body, done = l.challenged(ctx, a)
		defer done()
	}
	at := time.Now()
	answer, err := l.write(ctx, r, l.compare)
	if err != nil {
		return grant{}, err
	}
	return l.grantOf(answer, at)
}

// lastLogin is how long a login may go on after it was given up. The answer holds a token that somebody has to revoke.
const lastLogin = 100 * time.Millisecond

// outlast makes a context that ends d after ctx.
func outlast(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(d, cancel) })
	return longer, func() {
		stop()
		cancel()
	}
}

// write sends a request of a login and notes whether its answer was lost. compare gives a refusal its hint, where the
// answer says nothing better; it may be nil.
func (l *authenticator) write(ctx context.Context, r request, compare func(*fault.Error)) (*Answer, error) {
	r.what, r.method, r.login, r.auth = l.what(), cmp.Or(r.method, http.MethodPut), true, true
	var sent atomic.Bool
	r.sent = &sent
	answer, err := l.client.do(ctx, r)
	if err == nil {
		l.lost = false
		return answer, nil
	}
	f := fault.Of(err)
	gateway := answer != nil && (answer.Status == http.StatusBadGateway || answer.Status == http.StatusGatewayTimeout)
	switch {
	case f.Cause == fault.NoNamespace && l.client.login != l.client.api:
		f.Hint = "correct --auth-namespace: the login has one of its own"
	case f.Kind == fault.Away && sent.Load() && (answer == nil || gateway):
		l.lost = true
		f.Why += "; whether the login was counted is not known"
	case f.Kind == fault.Refused && l.lost:
		// No theft alarm: the likeliest explanation is that we used it up ourselves.
		f.Hint = "the answer to an earlier try was lost on the way, and that try may have used up a wrapped or limited credential: have a new one issued"
	case f.Kind == fault.Refused && f.Cause != fault.NoNamespace && f.Cause != fault.NoTLS && compare != nil:
		compare(f)
	}
	return answer, err
}

func (l *authenticator) grantOf(answer *Answer, at time.Time) (grant, error) {
	refused := &fault.Error{Kind: fault.Refused, What: l.what()}
	switch {
	case answer.Wrapped:
		return grant{}, wrappedAnswer(l.what())
	case answer.Auth == nil:
		return grant{}, notVaults(l.what(), "no token in it")
	case answer.Auth.ClientToken.Empty() && len(answer.Auth.MFA.raw()) > 0 && string(answer.Auth.MFA.raw()) != "null":
		refused.Why = "a second factor (MFA) is demanded, which vaultexec cannot give"
		refused.Hint = "log in with `vault login` and use its token, or take this login out of the MFA enforcement (identity/mfa/login-enforcement)"
		return grant{}, refused
	case answer.Auth.ClientToken.Empty():
		refused.Why = "Vault gave no token"
		return grant{}, refused
	}
	return granted(answer.Auth, at), nil
}

// compare says what to compare when a login was refused.
func (l *authenticator) compare(f *fault.Error) {
	mount := l.mount()
	denied := f.Cause == fault.PlainDenial
	switch l.conf.Method {
	case AuthAWS:
		l.compareAWS(f)
	case AuthAzure:
		f.Hint = cmp.Or(f.Hint, fmt.Sprintf("compare --role with `vault list auth/%s/role`, the identity with what the role is bound to, and --azure-resource with `vault read auth/%s/config`",
			mount, mount))
	case AuthGCP:
		f.Hint = cmp.Or(f.Hint, fmt.Sprintf("compare --role with `vault list auth/%s/roles`, --gcp-type with the role's type, and the service account with those the role is bound to",
			mount))
	case AuthKubernetes:
		f.Hint = fmt.Sprintf("compare --role with `vault list auth/%s/role`, the service account and its namespace with those the role is bound to, and --auth-mount; Vault itself must be able to ask Kubernetes for a TokenReview",
			mount)
	case AuthJWT:
		f.Hint = fmt.Sprintf("compare --role and --auth-mount, and the token's issuer, audience and expiry with what the role is bound to (`vault read auth/%s/role/NAME`)",
			mount)
	case AuthCert:
		f.Hint = fmt.Sprintf("give the certificate with --client-cert and --client-key, and compare it with those of `vault list auth/%s/certs`; it may have expired",
			mount)
	case AuthGitHub:
		f.Hint = fmt.Sprintf("the token must still be valid and may need the scope read:org, and its user must be in the organization of `vault read auth/%s/config`",
			mount)
	case AuthOIDC:
		f.Hint = fmt.Sprintf("compare --role with `vault list auth/%s/role`, its type (oidc) and what it demands of a user (bound_claims), and --auth-mount",
			mount)
	case AuthUserpass, AuthLDAP, AuthOkta, AuthRADIUS:
		f.Hint = "compare --username, the password and --auth-mount; after several wrong tries Vault locks the account for some minutes"
		if denied {
			f.Why = "the account is locked, or no such auth mount"
			f.Hint = fmt.Sprintf("wait (15 minutes by default) or have it unlocked with `vault write -force sys/locked-users/MOUNT-ACCESSOR/unlock/%s`; and compare --auth-mount",
				l.conf.Username)
		}
	case AuthAppRole:
		switch {
		case denied:
			f.Why = "permission denied: there is no such auth mount, or the role is locked after wrong tries"
			f.Hint = "compare --auth-mount with `vault auth list`; wait 15 minutes after wrong tries"
		case l.conf.SecretID == nil && l.conf.WrappedSecretID == nil:
			f.Hint = "no secret id was given, which the role may want: --secret-id-file or VAULTEXEC_SECRET_ID; " +
				StrippedHint
		}
	}
}

// revealed is for the body of a request only.
func revealed(set map[string]Text) map[string]string {
	m := make(map[string]string, len(set))
	for k, v := range set {
		m[k] = v.Reveal()
	}
	return m
}
