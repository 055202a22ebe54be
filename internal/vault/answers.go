package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// Texts that stand in several places. No code goes by them: see fault.Cause.
const (
	whyBadToken    = "the token is not valid"
	whyNoSecret    = "no such secret"
	whyNoNamespace = "no such namespace"
	whyNoLease     = "Vault knows no such lease"
	whyUnsupported = "the path does not support this operation"
	hintTooLarge   = "spread it over several paths, or keep it elsewhere, encrypted with a key that is in Vault"
)

// NoSecret is the failure of what needs a secret that does not exist.
func NoSecret(what string) *fault.Error {
	return &fault.Error{Kind: fault.Missing, Cause: fault.NoSecret, What: what, Why: whyNoSecret}
}

// rule maps an answer to the taxonomy. The first rule that fits decides. A rule without a status fits any; without text
// it fits any errors; exact wants the one error to be the text.
type rule struct {
	status int
	text   string
	exact  bool
	kind   fault.Kind
	cause  fault.Cause
	why    string // the server's own words when empty
	hint   string
}

// answers says what an error answer of Vault or OpenBao means, for everything but a login. It was measured on Vault
// 1.21 and OpenBao 2.5; both word these errors alike.
var answers = []rule{
	{status: 400, text: "Client sent an HTTP request to an HTTPS server", kind: fault.Address, why: "the server speaks TLS, and the address says http", hint: "write the address as https://"},
	{status: 400, text: "Upgrading from non-versioned to versioned data", kind: fault.Away, why: "the KV engine is being upgraded"},
	{status: 400, text: "Waiting for the primary to upgrade", kind: fault.Away, why: "the KV engine is being upgraded"},
	{status: 400, text: "check-and-set parameter required", kind: fault.Denied, why: "the engine insists on check-and-set, and the version is not known", hint: "allow read on the secret itself, on its subkeys or on its metadata"},
	{status: 400, text: "check-and-set", kind: fault.Conflict, why: "somebody else changed it at the same time"},
	{status: 400, text: "LDAP Result Code 200", kind: fault.Away, why: "Vault cannot reach the directory"},
	{status: 400, text: noEntity, kind: fault.Denied, hint: "a token that no auth method gave (root, `vault token create`) belongs to no entity: log in with one, as approle or kubernetes"},
	{status: 400, text: "lease not found", kind: fault.Missing, cause: fault.NoLease, why: whyNoLease},
	{status: 400, text: "invalid lease", kind: fault.Missing, cause: fault.NoLease, why: whyNoLease},
	{status: 400, text: "lease expired", kind: fault.Missing, cause: fault.NoLease, why: whyNoLease},
	{status: 400, text: "unknown role: ", kind: fault.Missing, hint: "the engine has no such role: `vault list MOUNT/roles` shows those that it has"},
	{status: 400, text: "replication DR secondary", kind: fault.Away, why: "the server is a disaster recovery secondary, which serves no secrets", hint: "give the address of the primary cluster"},
	{status: 401, kind: fault.Refused, why: "HTTP 401: something wants credentials that are not Vault's", hint: "something in front of Vault asks for a login of its own: name the Vault behind it, or give what it wants in VAULT_HEADERS"},
	{status: 403, text: "invalid token", kind: fault.BadToken, why: whyBadToken},
	{status: 403, text: "permission denied", exact: true, kind: fault.BadToken, why: whyBadToken},
	{status: 403, text: "bad token", kind: fault.BadToken, why: whyBadToken},
	{status: 403, text: "preflight capability check", kind: fault.Denied, why: "no policy of the token reaches the mount, or it does not exist"},
	{status: 403, text: "permission denied", kind: fault.Denied, why: "permission denied"},
	{status: 403, kind: fault.Denied},
	{status: 404, text: "no handler for route", kind: fault.Missing, cause: fault.NoMount, why: "no such mount"},
	{status: 404, text: "namespace not found", kind: fault.Missing, cause: fault.NoNamespace, why: whyNoNamespace, hint: "correct --namespace or VAULT_NAMESPACE"},
	{status: 404, text: "unsupported path", kind: fault.Missing, cause: fault.NoPath, why: "not a path of this engine"},
	{status: 404, kind: fault.Missing, cause: fault.NoSecret, why: whyNoSecret},
	{status: 408, kind: fault.Away, why: "the request took too long for the server"},
	{status: 472, kind: fault.Away, why: "the server is a disaster recovery secondary, which serves no secrets", hint: "give the address of the primary cluster"},
	{status: 473, kind: fault.Away, why: "the server is a performance standby that cannot answer now", hint: "give the address of a load balancer or of the active node"},
	{status: 405, kind: fault.Missing, cause: fault.Unsupported, why: whyUnsupported},
	{status: 412, text: "X-Vault-Request", kind: fault.Defect, why: "the request lacks a header"},
	{status: 412, kind: fault.Away, why: "the server has not caught up with an earlier write"},
	{status: 413, kind: fault.Value, why: "the request is too large for Vault", hint: hintTooLarge},
	{status: 429, text: "rate limit quota exceeded", kind: fault.Away, why: "a rate limit quota of Vault is exceeded"},
	{status: 429, kind: fault.Away, why: "too many requests"},
	{status: 500, text: "failed to look up namespace from the token", kind: fault.BadToken, why: "the token is of another namespace or cluster"},
	{status: 500, text: "no namespace", kind: fault.BadToken, why: "the token is of another namespace or cluster"},
	{status: 500, text: "illegal base64", kind: fault.BadToken, why: "the token is damaged, or of another cluster"},
	{status: 500, text: "is not an allowed role", kind: fault.Missing, hint: "the connection does not allow this role: add it to allowed_roles (`vault write MOUNT/config/NAME allowed_roles=...`)"},
	{status: 500, text: "JSON string value exceeds", kind: fault.Value, why: "a value is too long for Vault", hint: hintTooLarge},
	{status: 500, text: "JSON object exceeds", kind: fault.Value, why: "too many keys for Vault", hint: "spread them over several paths"},
	{status: 500, text: "value being too large", kind: fault.Value, why: "the secret is too large for Vault's storage", hint: hintTooLarge},
	{status: 500, text: "malformed JSON", kind: fault.Value, why: "Vault cannot read the request"},
	{status: 500, text: "duplicate key", kind: fault.Value, why: "a key is given twice"},
	{status: 500, text: "past the max TTL", kind: fault.Denied, why: "the token has reached its longest life"},
	{status: 500, text: "local node not active but active cluster node not found", kind: fault.Away, why: "the cluster has no leader yet"},
	{status: 503, text: "Vault is sealed", kind: fault.Away, why: "Vault is sealed", hint: "run `vaultexec unseal`, or `vault operator init` if Vault was never initialized"},
	{status: 400, kind: fault.Usage},
}

// logins says what an error answer to a login means. What is not here is looked up in answers. A refused login is
// mostly 400.
var logins = []rule{
	{status: 400, text: "Client sent an HTTP request to an HTTPS server", kind: fault.Address, why: "the server speaks TLS, and the address says http", hint: "write the address as https://"},
	{status: 400, text: "LDAP Result Code 200", kind: fault.Away, why: "Vault cannot reach the directory"},
	{status: 400, text: "tls connection required", kind: fault.Refused, cause: fault.NoTLS, why: "certificates can only be shown over TLS", hint: "write the address as https://"},
	{status: 400, text: "wrapping token is not valid or does not exist", kind: fault.Refused, why: "the wrapping token was used already or has expired", hint: "if none of your own people or programs used it (Vault does not tell), it may have been intercepted: revoke what it held. Have a new one issued"},
	{status: 400, text: "invalid role or secret ID", kind: fault.Refused, why: "invalid role id or secret id", hint: "a wrong, expired or used-up secret id look the same to Vault: have a new one issued, and compare the role id"},
	{status: 400, kind: fault.Refused},
	{status: 403, text: "permission denied", exact: true, kind: fault.Refused, cause: fault.PlainDenial, why: "permission denied", hint: "no such auth mount, or the account is locked after wrong tries, or Vault cannot check the credential: compare --auth-mount"},
	{status: 403, kind: fault.Refused},
	{status: 404, text: "namespace not found", kind: fault.Refused, cause: fault.NoNamespace, why: whyNoNamespace, hint: "correct --namespace or VAULT_NAMESPACE"},
	{status: 404, kind: fault.Refused, why: "no such auth mount or role", hint: "compare --auth-mount and --role"},
	{status: 500, text: "failed to verify client's certificate", kind: fault.Refused, why: "the client certificate is not accepted", hint: "it may have expired: compare --client-cert"},
	{status: 500, text: "does not match bound subject", kind: fault.Refused},
	{status: 500, text: "password cannot be of zero length", kind: fault.Refused, why: "the password is empty"},
	{status: 500, text: "failed to determine alias name", kind: fault.Refused, why: "Vault cannot tell who this is"},
	{status: 500, text: "missing role_id", kind: fault.Refused, why: "the role id is missing"},
}

// unreached are words of Go's network errors, and of the libraries that the auth methods use. Vault says them when it
// cannot reach what it checks a login with: keys of a JWT's issuer, a directory, a cluster's API. It words them as a
// refusal (400), or as a failure of its own.
var unreached = []string{
	"connection refused", "connection reset", "no such host", "i/o timeout", "no route to host",
	"network is unreachable", "host is down",
	"TLS handshake timeout", "context deadline exceeded", "Client.Timeout", "server misbehaving",
	"fetching keys", "get keys failed", "error fetching OIDC", "502 Bad Gateway", "503 Service Unavailable",
	"504 Gateway",
	`LDAP Result Code 51 "Busy"`, `LDAP Result Code 52 "Unavailable"`,
}

// cannotCheck reports whether an error answer to a login is not about the credential.
func cannotCheck(a *Answer) bool {
	if a.Status != http.StatusBadRequest && a.Status < http.StatusInternalServerError {
		return false
	}
	return slices.ContainsFunc(a.Errors, func(e string) bool {
		return slices.ContainsFunc(unreached, func(words string) bool { return strings.Contains(e, words) })
	})
}

func (r rule) fits(status int, errs []string) bool {
	switch {
	case r.status != status:
		return false
	case r.exact:
		return len(errs) == 1 && errs[0] == r.text
	}
	return r.text == "" || slices.ContainsFunc(errs, func(e string) bool { return strings.Contains(e, r.text) })
}

// understand turns a response into an Answer, or into a failure when it is an error or not Vault's.
func (c *Client) understand(r request, resp *http.Response, body []byte) (*Answer, error) {
	a := &Answer{Status: resp.StatusCode, raw: holdValue(body), tls: resp.TLS}
	a.Date, _ = http.ParseTime(resp.Header.Get("Date"))
	switch a.Status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect,
		http.StatusSeeOther:
		return a, c.redirected(r, resp)
	case http.StatusNoContent:
		return a, nil
	}
	var wire struct {
		LeaseID       string          `json:"lease_id"`
		LeaseDuration int             `json:"lease_duration"`
		Renewable     bool            `json:"renewable"`
		Data          Value           `json:"data"`
		WrapInfo      json.RawMessage `json:"wrap_info"`
		Auth          *Auth           `json:"auth"`
		Warnings      words           `json:"warnings"`
		Errors        words           `json:"errors"`
		RequestID     string          `json:"request_id"`
	}
	isVault := len(body) > 0 && json.Unmarshal(body, &wire) == nil
	if a.Status >= 400 && wire.Errors == nil && wire.RequestID == "" && !r.quiet {
		isVault = false // the JSON of an API gateway; Vault's errors have a list of them, empty or not
	}
	if !isVault {
		return a, c.judgeForeign(r, a, resp, body)
	}
	a.LeaseID, a.LeaseDuration, a.Renewable = wire.LeaseID, wire.LeaseDuration, wire.Renewable
	a.Data, a.Auth, a.Warnings, a.Errors = wire.Data, wire.Auth, wire.Warnings, wire.Errors
	a.Wrapped = len(wire.WrapInfo) > 0 && string(wire.WrapInfo) != "null"
	if wide(body) {
		return a, tooWide(r.what)
	}
	if string(a.Data.raw()) == "null" {
		a.Data = Value{}
	}
	if a.Status < 400 || r.quiet {
		return a, nil
	}
	return a, c.judge(r, a, resp)
}

// judgeForeign judges an answer that is not Vault's: an ingress, a portal or a half-dead proxy gives it. It is never
// "no such secret". The plain-text answer of a TLS port to plain HTTP is the one text that is looked for.
func (c *Client) judgeForeign(r request, a *Answer, resp *http.Response, body []byte) error {
	if a.Status == http.StatusBadRequest && strings.Contains(string(body), answers[0].text) {
		a.Errors = []string{answers[0].text}
		return c.judge(r, a, resp)
	}
	if a.Status == http.StatusTooManyRequests {
		return c.judge(r, a, resp)
	}
	if name := c.proxy(); name != "" && (c.url.Scheme == "http" || a.Status == http.StatusProxyAuthRequired) &&
		a.Status >= 400 {
		e := &fault.Error{What: r.what, RetryAfter: retryAfter(resp)}
		c.proxyRefused(e, a.Status)
		return e
	}
	e := notVaults(r.what, fmt.Sprintf("HTTP %d, %s", a.Status, c.where))
	e.RetryAfter = retryAfter(resp)
	return e
}

// judge finds the failure that an error answer means.
func (c *Client) judge(r request, a *Answer, resp *http.Response) error {
	e := &fault.Error{What: r.what, RetryAfter: retryAfter(resp)}
	if r.login && cannotCheck(a) {
		e.Kind, e.Why = fault.Away, "Vault cannot check the login now: "+r.serverWords(c.Secrets, a.Errors)
		e.Hint = "Vault itself must reach what the method asks: the JWT's issuer, the directory or the cluster's API"
		return e
	}
	known := ruleFor(r, a)
	e.Kind, e.Cause, e.Why, e.Hint = known.kind, known.cause, known.why, known.hint
	if known.why == "" {
		e.Why = fmt.Sprintf("HTTP %d", a.Status)
		if words := r.serverWords(c.Secrets, a.Errors); words != "" {
			e.Why = words
		}
	}
	switch {
	case e.Kind == fault.BadToken && c.agent:
		// The Agent has not logged in yet, or is doing it again.
		e.Kind, e.Why, e.Hint = fault.Away, "the Vault Agent has no valid token", "look at the Agent's own log"
	case e.Kind == fault.BadToken:
		e.Hint = tokenHint
	case e.Kind == fault.Denied && e.Hint == "" && r.denied != nil:
		r.denied(e)
	}
	return e
}

// ruleFor finds what the answer to a request means. What no rule knows is the server's failure, or ours.
func ruleFor(r request, a *Answer) rule {
	tables := [][]rule{answers}
	if r.login {
		tables = [][]rule{awsLogins, cloudLogins, logins, answers}
	}
	for _, table := range tables {
		if i := slices.IndexFunc(table, func(r rule) bool { return r.fits(a.Status, a.Errors) }); i >= 0 {
			return table[i]
		}
	}
	if a.Status < 500 {
		return rule{kind: fault.Usage}
	}
	return rule{kind: fault.Away}
}

// wrappedAnswer is the failure of an answer that holds a wrapping token in place of what was asked for.
func wrappedAnswer(what string) *fault.Error {
	return &fault.Error{Kind: fault.Denied, What: what, Why: "Vault gave a wrapping token in place of the answer",
		Hint: "a control group requires the approval of others first, and vaultexec does not wait for that: use a path without one. If there is none, something in front of Vault adds X-Vault-Wrap-TTL: take that out"}
}

const tokenHint = "it may have expired or been revoked or used up, or may not be used from this address: log in again (`vaultexec login`), or give another token"

// notVaults is the failure of an answer that cannot be one of Vault's.
func notVaults(what, detail string) *fault.Error {
	why := "the answer is not Vault's"
	if detail != "" {
		why += " (" + detail + ")"
	}
	return &fault.Error{Kind: fault.Away, Cause: fault.NotVault, What: what, Why: why,
		Hint: "something else answers at this address, such as a proxy whose Vault is away: check --address"}
}

// serverWords joins the errors of Vault's own JSON into one line, without what the request carried, and what else is
// secret: whatever answers may quote what it was asked with.
func (r request) serverWords(known *Secrets, errs []string) string {
	words := known.Clean(strings.Join(errs, "; "), r.secrets())
	return shortened(strings.Join(strings.Fields(words), " "), maxWord)
}

// secrets lists what the request carries that nobody may see, the longest first: the token, and every text in its body
// that is no name. A text of less than four bytes cannot be told from other words.
func (r request) secrets() []string {
	var list []string
	if r.token != nil {
		list = append(list, r.token.Reveal())
	}
	if r.body != nil && !r.public {
		if raw, err := json.Marshal(r.body()); err == nil {
			var body any
			_ = json.Unmarshal(raw, &body)
			list = appendTexts(list, body, !r.values)
		}
	}
	list = slices.DeleteFunc(list, func(s string) bool { return len(s) < leastSecret })
	slices.SortFunc(list, func(a, b string) int { return len(b) - len(a) })
	return list
}

// appendTexts adds every text in decoded JSON, but those that are names, if there are any.
func appendTexts(list []string, x any, names bool) []string {
	switch x := x.(type) {
	case string:
		return append(list, x)
	case []any:
		for _, e := range x {
			list = appendTexts(list, e, names)
		}
	case map[string]any:
		for key, e := range x {
			if !names || !slices.Contains([]string{"role", "name", "paths", "lease_id", "subscription_id", "resource_group_name", "vm_name", "vmss_name", "resource_id"}, key) {
				list = appendTexts(list, e, names)
			}
		}
	}
	return list
}

// redirected judges a redirect, which is never followed: it would carry the token to wherever it points. A standby
// whose leader is gone names the dead leader.
func (c *Client) redirected(r request, resp *http.Response) error {
	loc, err := resp.Location()
	if err != nil || loc.Host == "" {
		return notVaults(r.what, "a redirect to nowhere")
	}
	if resp.Request != nil && loc.Scheme == resp.Request.URL.Scheme && loc.Host == resp.Request.URL.Host {
		if loc.EscapedPath() == resp.Request.URL.EscapedPath() {
			// It knows itself as the leader, and has not taken the lead yet: the moment after an unsealing.
			return &fault.Error{Kind: fault.Away, What: r.what,
				Why:  c.where + " is about to take the lead, and redirects to itself",
				Hint: "it answers in a moment; if it does not, look at its log"}
		}
		return &fault.Error{Kind: fault.Usage, What: r.what, Why: "Vault does not accept the path as it is written",
			Hint: "write it without empty segments, dots and odd characters"}
	}
	to := (&url.URL{Scheme: loc.Scheme, Host: loc.Host}).String()
	if resp.Request != nil && resp.Request.URL.Scheme == "http" && loc.Scheme == "https" &&
		loc.Hostname() == resp.Request.URL.Hostname() {
		return &fault.Error{Kind: fault.Away, What: r.what,
			Why: fmt.Sprintf("Vault redirects to %s (not followed)", to), Hint: "write the address as " + to}
	}
	return &fault.Error{Kind: fault.Away, What: r.what,
		Why:  fmt.Sprintf("a standby redirects to %s (not followed)", to),
		Hint: "give the address of a load balancer or of the active node, not " + c.where}
}

// retryAfter reads the Retry-After header, in seconds or as a date (RFC 9110, 10.2.3).
func retryAfter(resp *http.Response) time.Duration {
	h := resp.Header.Get("Retry-After")
	if n, err := strconv.Atoi(h); err == nil && n > 0 {
		return time.Duration(min(n, 3600)) * time.Second
	}
	if t, err := http.ParseTime(h); err == nil {
		return min(max(time.Until(t), 0), time.Hour)
	}
	return 0
}

// transportError judges a request that got no answer, or half of one. It does not use the error's own text, which holds
// the URL.
func (c *Client) transportError(r request, err error) error {
	e := &fault.Error{Kind: fault.Away, What: r.what, Err: err}
	at := " (" + c.where + ")"
	if name := c.proxy(); name != "" {
		at = fmt.Sprintf(" (%s, through %s)", c.where, name)
	}
	var (
		dns      *net.DNSError
		op       *net.OpError
		errno    syscall.Errno
		netError net.Error
	)
	switch {
	case lacks(err, e):
	case c.proxyTrouble(e, err):
	case c.tlsTrouble(e, err, at):
	case errors.As(err, &dns):
		e.Why, e.Hint = "no address found for the host"+at, "check --address or VAULT_ADDR"
	case errors.Is(err, syscall.ECONNREFUSED):
		e.Why, e.Hint = "connection refused"+at, "check --address or VAULT_ADDR, and that Vault runs"
	case errors.Is(err, context.Canceled):
		e.Why = "cancelled"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, errNoSlot),
		errors.As(err, &netError) && netError.Timeout():
		e.Why, e.Hint = "no answer in time"+at, "check --address, VAULT_ADDR and the network"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET),
		errors.Is(err, syscall.EPIPE):
		e.Why = "the connection was cut" + at
	case errors.As(err, &op) && errors.As(err, &errno):
		e.Why, e.Hint = errno.Error()+at, "check --address or VAULT_ADDR"
	default:
		e.Why = "no usable answer" + at
	}
	return e
}

// lacks judges an error that says nothing of Vault: this process, or its machine, is out of something. It is tried
// again all the same: other requests give descriptors back, and so do other programs.
func lacks(err error, e *fault.Error) bool {
	errnos := []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL}
	i := slices.IndexFunc(errnos, func(errno syscall.Errno) bool {
		return errors.Is(err, errno) || strings.HasSuffix(errText(err), ": "+errno.Error()) // DNS keeps the text only
	})
	if i < 0 {
		return false
	}
	e.Why, e.Hint = "this machine has no connection to give: "+errnos[i].Error(),
		"it lacks memory, descriptors or local ports; Vault was not asked"
	if errnos[i] == syscall.EMFILE {
		e.Why, e.Hint = "vaultexec has no file descriptor left: "+errnos[i].Error(),
			"raise the limit (ulimit -n, LimitNOFILE= of systemd); Vault was not asked"
	}
	return true
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
