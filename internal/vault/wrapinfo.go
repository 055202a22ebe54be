package vault

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// A token file may hold JSON: what an Agent with wrap_ttl writes, in its sink or its method, and what the Vault CLI
// prints with -format=json. A token in it is a token; a wrapping token is unwrapped.
//
// Where a wrapping token is expected (--wrapped-token-file), a login or auth/token/create must have made it. A sink
// wraps with sys/wrapping/wrap, and so would a thief who wraps again what he has unwrapped. So the JSON changes nothing
// about that there. A file of --token-file has no such promise: whoever writes it decides about the token anyway.

// wrapInfo is the Err of the failure of a credential that is the JSON of a wrapping token: a source of wrapping tokens
// can do with it, no other.
type wrapInfo struct{ token Text }

func (*wrapInfo) Error() string { return "a wrapping token" }

// wrapInfoIn returns the wrapping token that a credential turned out to be, nil when it did not.
func wrapInfoIn(err error) *wrapInfo {
	var w *wrapInfo
	if errors.As(err, &w) {
		return w
	}
	return nil
}

// inJSON reads a credential that is valid JSON. name names it in the error.
func inJSON(name, s string) (Text, error) {
	e := &fault.Error{Kind: fault.Usage, What: "cannot use " + name}
	type wrap struct {
		Token    string `json:"token"`
		TTL      any    `json:"ttl"`
		Accessor string `json:"wrapped_accessor"`
		Path     string `json:"creation_path"`
	}
	var d struct {
		wrap
		WrapInfo *wrap `json:"wrap_info"`
		Auth     *struct {
			Token string `json:"client_token"`
		} `json:"auth"`
		Payload string `json:"encrypted_payload"`
	}
	_ = json.Unmarshal([]byte(s), &d) // of another shape: no token in it
	w := &d.wrap
	if d.WrapInfo != nil && d.WrapInfo.Token != "" {
		w = d.WrapInfo
		w.TTL = "" // it is what it is
	}
	switch {
	case w.Token != "" && (w.TTL != nil || w.Accessor != "" || w.Path != ""):
		e.Why, e.Hint = "it is the JSON of a wrapping token",
			"an option for wrapped credentials takes it: --wrapped-token-file, --wrapped-secret-id-file"
		t, err := CheckCredential(name, w.Token)
		if err != nil {
			return t, err
		}
		e.Err = &wrapInfo{t}
	case w.Token != "":
		return CheckCredential(name, w.Token)
	case d.Auth != nil && d.Auth.Token != "":
		return CheckCredential(name, d.Auth.Token)
	case d.Payload != "":
		e.Why, e.Hint = "it is encrypted for somebody else: the Agent's sink has a dh_type",
			"have the Agent write a sink without dh_type for vaultexec"
	default:
		e.Why, e.Hint = "it is JSON without a token", "put the credential there, and nothing else"
	}
	return Text{}, e
}

// unwrapHandedIn returns the token behind a wrapping token that stood in a token file. The wrapping token is good for
// one time. Found there again, after it was used up, it is a stale token and no theft.
func (s *Session) unwrapHandedIn(ctx context.Context, w Text) (grant, error) {
	if s.conf.noUnwrap {
		return grant{}, &fault.Error{Kind: fault.Usage, What: "cannot log in", Why: "the token is wrapped"}
	}
	if w.Equal(s.spent) {
		return grant{}, &fault.Error{Kind: fault.BadToken, What: "cannot log in again", Why: whyBadToken,
			Hint: "the wrapping token in the token file is used up: have a new one written there; it is read again"}
	}
	l := &authenticator{client: s.Client, conf: LoginConfig{Method: AuthToken, ThroughAgent: s.conf.ThroughAgent,
		sink: true}}
	g, err := l.unwrapToken(ctx, w)
	if err == nil {
		s.spent = w
	}
	return grant{token: g.token}, err // handed in, whatever it was wrapped in
}

// ofSink takes the token that an Agent's sink wrapped. It is the Agent's own: never ours to revoke.
func (l *authenticator) ofSink(a *Answer) (grant, error) {
	var d struct {
		Token Text `json:"token"`
	}
	if a.Data.into(&d) != nil || d.Token.Empty() {
		return grant{}, &fault.Error{Kind: fault.Refused, What: l.what(), Why: "the wrapping token held no token",
			Hint: "name the sink of an Agent, or make it with `vault token create -wrap-ttl=5m`"}
	}
	return grant{token: d.Token}, nil
}
