package cloud

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// roleLife is how long credentials of a role live, in seconds: they sign one request, and this is the least that STS gives.
const roleLife = "900"

// sessionName is what AWS' log calls a session of a role that nobody named.
const sessionName = "vaultexec"

// refusedPause is the distance between tries that STS or a container's endpoint refuses, for somebody who keeps on trying.
const refusedPause = time.Minute

// webIdentity changes the token of a Kubernetes service account, or of another OIDC provider, for credentials of a role.
func (p *awsProver) webIdentity(ctx context.Context, from, file, role, session string) (*awsKeys, error) {
	if role == "" {
		return nil, awsFailure(fault.Usage, from+" is set, and there is no role",
			"set AWS_ROLE_ARN: on EKS the annotation eks.amazonaws.com/role-arn of the service account does that")
	}
	token, err := p.Read(ctx, from, file)
	if err != nil {
		return nil, err
	}
	token = strings.TrimSpace(token)
	if token == "" || !isToken(token) {
		return nil, awsFailure(fault.Usage, "the file of "+from+" holds no token", "it has to hold one JWT, and nothing else")
	}
	p.hide(token)
	p.basis("web identity", role, token)
	form := roleForm("AssumeRoleWithWebIdentity", role, session) + "&WebIdentityToken=" + url.QueryEscape(token)
	return p.askSTS(ctx, form, nil, "the web identity")
}

func orDefault(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// assumeRole changes credentials for those of the role of a profile.
func (p *awsProver) assumeRole(ctx context.Context, profile *awsProfile, keys *awsKeys) (*awsKeys, error) {
	role := profile.get("role_arn")
	p.basis("role", role)
	form := roleForm("AssumeRole", role, profile.get("role_session_name"))
	if id := profile.get("external_id"); id != "" {
		form += "&ExternalId=" + url.QueryEscape(id)
	}
	return p.askSTS(ctx, form, keys, "the role of "+profile.title())
}

// roleForm is a question for credentials of a role.
func roleForm(action, role, session string) string {
	return "Action=" + action + "&Version=" + stsVersion + "&DurationSeconds=" + roleLife + "&RoleArn=" + url.QueryEscape(role) +
		"&RoleSessionName=" + url.QueryEscape(orDefault(session, sessionName))
}

// askSTS sends a request to STS, signed with keys if there are any. what is what it is asked for.
func (p *awsProver) askSTS(ctx context.Context, form string, keys *awsKeys, what string) (*awsKeys, error) {
	region, endpoint, err := p.endpoint(ctx)
	if err != nil {
		return nil, err
	}
	r, err := question(ctx, http.MethodPost, endpoint, form, "Content-Type", formType, "Accept", "application/json") // otherwise it is XML
	if err != nil {
		return nil, err
	}
	if keys != nil {
		if err := p.sign(r, form, keys, region, "sts"); err != nil {
			return nil, err
		}
	}
	// Through the proxy of the environment, as AWS' SDK does, but only with TLS: nothing in between may read a token.
	proxy := http.ProxyFromEnvironment
	if r.URL.Scheme != "https" {
		proxy = nil
	}
	a, err := exchange(ctx, r, proxy)
	if err != nil {
		return nil, unanswered(ctx, "STS ("+r.URL.Host+")", err,
			"this machine must reach STS itself: over the internet, through HTTPS_PROXY, or by a VPC endpoint of the region")
	}
	who := "STS (" + r.URL.Host + ")"
	switch {
	case a.status < http.StatusBadRequest && a.status != http.StatusOK:
		return nil, notTheirs(who)
	case a.status != http.StatusOK:
		return nil, stsRefusal(what, a.status, a.body)
	}
	var wire struct {
		AssumeRoleResponse struct {
			AssumeRoleResult struct{ Credentials wireKeys }
		}
		AssumeRoleWithWebIdentityResponse struct {
			AssumeRoleWithWebIdentityResult struct{ Credentials wireKeys }
		}
	}
	if json.Unmarshal(a.body, &wire) != nil {
		return nil, notTheirs(who)
	}
	given := &wire.AssumeRoleResponse.AssumeRoleResult.Credentials
	if keys == nil {
		given = &wire.AssumeRoleWithWebIdentityResponse.AssumeRoleWithWebIdentityResult.Credentials
	}
	if given.id() == "" {
		return nil, notTheirs(who)
	}
	return p.given("the answer of STS", given)
}

// stsRefusal judges an error answer of STS.
func stsRefusal(what string, status int, answer []byte) *fault.Error {
	var wire struct{ Error struct{ Code string } }
	_ = json.Unmarshal(answer, &wire)
	code := errorCode(wire.Error.Code, status)
	if isPassing(status) || code == "IDPCommunicationError" || strings.HasPrefix(code, "Throttl") || strings.HasPrefix(code, "RequestLimit") {
		return awsFailure(fault.Away, "STS cannot give "+what+" now ("+code+")", hintBusy)
	}
	hint := "compare the role's trust policy with who asks: its Principal, and the conditions on sub and aud of an OIDC token"
	switch code {
	case "ExpiredTokenException", "ExpiredToken":
		hint = "what was shown to STS has expired: renew it where it comes from; and compare this machine's clock"
	case "SignatureDoesNotMatch":
		hint = "the secret access key is not that of the access key id, or this machine's clock is off by more than five minutes"
	case "InvalidClientTokenId":
		hint = "AWS does not know the access key: it may be deleted, or lack its AWS_SESSION_TOKEN"
	case "RegionDisabledException":
		hint = "STS is not active in this region for the account: choose another one with --aws-region"
	}
	f := awsFailure(fault.Refused, "STS refuses "+what+" ("+code+")", hint)
	f.RetryAfter = refusedPause
	return f
}

// isPassing reports whether a status says that the next try may go better.
func isPassing(status int) bool { return status >= 500 || status == http.StatusTooManyRequests }

// errorCode is the code of an error if it is one word, as AWS' are, and otherwise the status. Their longer texts may quote anything.
func errorCode(code string, status int) string {
	if code != "" && len(code) <= 60 && strings.IndexFunc(code, func(r rune) bool { return !isWord(r) }) < 0 {
		return code
	}
	return "HTTP " + strconv.Itoa(status)
}

// isWord is for what the codes and names of AWS are made of.
func isWord(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '.' || r == '_'
}

// wireKeys are credentials in JSON: of STS, of the metadata service, of a container's endpoint.
type wireKeys struct {
	AccessKeyID, SecretAccessKey, SessionToken, Token wireText
	Code                                              string // of an error, or "Success"
}

func (w *wireKeys) id() string { return w.AccessKeyID.Reveal() }

// wireText is a text in JSON that does not print.
type wireText struct{ Secret }

// UnmarshalJSON takes a JSON string.
func (w *wireText) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return errors.New("no string") // the error of encoding/json may quote
	}
	w.Secret = newSecret(s)
	return nil
}

// given makes credentials of an answer.
func (p *awsProver) given(from string, w *wireKeys) (*awsKeys, error) {
	return p.keys(from, w.id(), w.SecretAccessKey.Reveal(), w.SessionToken.Reveal()+w.Token.Reveal())
}

// unanswered is the failure of a question that got no answer. The error's own text is not used: it may quote the request.
func unanswered(ctx context.Context, who string, err error, hint string) *fault.Error {
	why := who + " gives no usable answer"
	var unknown x509.UnknownAuthorityError
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		why = who + ": " + errno.Error()
	case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
		why = who + " does not answer"
	case errors.As(err, &unknown):
		why, hint = who+" shows a certificate of an unknown CA", "if something in between has to read along, name its CA with SSL_CERT_FILE"
	}
	f := awsFailure(fault.Away, why, hint)
	f.Err = err
	return f
}

// notTheirs is the failure of an answer that cannot be that of who was asked.
//
//go:noinline
func notTheirs(who string) *fault.Error {
	return awsFailure(fault.Away, who+" gives an answer that is not its own", "something else answers in its place: look at the address, and what stands in between")
}

// headersJSON are headers as Vault wants them.
func headersJSON(h http.Header) Secret {
	b, _ := json.Marshal(h) // never fails
	return newSecret(string(b))
}
