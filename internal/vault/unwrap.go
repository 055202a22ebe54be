package vault

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// wrapping is what sys/wrapping/lookup tells of a wrapping token without using it up.
type wrapping struct {
	CreationPath string `json:"creation_path"`
}

// lookupWrapping asks where a wrapping token comes from. No token is sent with it.
func (l *authenticator) lookupWrapping(ctx context.Context, w Text) (string, error) {
	a, err := l.write(ctx, request{path: "sys/wrapping/lookup",
		body: func() any { return map[string]string{"token": w.Reveal()} }, token: &Text{}}, nil)
	if err != nil {
		return "", err
	}
	var info wrapping
	if a.Data.into(&info) != nil || info.CreationPath == "" {
		return "", notVaults(l.what(), "no creation path in it")
	}
	return info.CreationPath, nil
}

// unwrap uses the wrapping token up. It is its own token: in the body alone Vault refuses it.
func (l *authenticator) unwrap(ctx context.Context, w Text) (*Answer, error) {
	return l.write(ctx, request{path: "sys/wrapping/unwrap", token: &w}, nil)
}

// wrapPath makes wrapping tokens of what anybody sends it.
const wrapPath = "sys/wrapping/wrap"

// rewrapped says that a wrapping token was not made where it should have been. It is not used up then.
func (l *authenticator) rewrapped(from, want string) error {
	e := &fault.Error{Kind: fault.Refused, What: l.what(),
		Why:  fmt.Sprintf("the wrapping token was made by %q, not by %s", from, want),
		Hint: "somebody may have intercepted it and wrapped it again: revoke what it held, and have a new one issued. If it is so on purpose, correct --auth-mount and --role"}
	if from == wrapPath && l.conf.Method == AuthToken {
		e.Why = "the wrapping token was made by sys/wrapping/wrap"
		e.Hint = "an Agent's sink with wrap_ttl makes it so: name the file as the Agent writes it, in JSON, with --token-file, or set wrap_ttl in the Agent's method. So does whoever has unwrapped a token and wrapped it again: if it is no sink, treat the token as intercepted, revoke it and have a new one issued"
	}
	return e
}

// unwrapSecretID returns the secret id behind a wrapping token that was made by the AppRole method itself.
func (l *authenticator) unwrapSecretID(ctx context.Context, w Text) (Text, error) {
	if l.unwrapped.by.Equal(w) {
		return l.unwrapped.secretID, nil
	}
	from, err := l.lookupWrapping(ctx, w)
	if err != nil {
		return Text{}, err
	}
	if !l.madeByRole(from) {
		want := fmt.Sprintf("%q", "auth/"+l.mount()+"/role/"+orNAME(l.conf.Role)+"/secret-id")
		return Text{}, l.rewrapped(from, want)
	}
	a, err := l.unwrap(ctx, w)
	if err != nil {
		return Text{}, err
	}
	var d struct {
		SecretID Text `json:"secret_id"`
	}
	if a.Data.into(&d) != nil || d.SecretID.Empty() {
		return Text{}, &fault.Error{Kind: fault.Refused, What: l.what(), Why: "the wrapping token held no secret id",
			Hint: "make it with `vault write -wrap-ttl=5m -f auth/" + l.mount() + "/role/" +
				orNAME(l.conf.Role) + "/secret-id`"}
	}
	l.client.Secrets.Add(d.SecretID)
	l.unwrapped.by, l.unwrapped.secretID = w, d.SecretID
	return l.unwrapped.secretID, nil
}

func orNAME(role string) string {
	if role == "" {
		return "NAME"
	}
	return role
}

// madeByRole checks the path that made a wrapping token: auth/MOUNT/role/NAME/secret-id or /custom-secret-id, with the
// name of the role where it is known. Vault writes names of roles in small letters, whoever asks may not.
func (l *authenticator) madeByRole(from string) bool {
	rest, ok := strings.CutPrefix(from, "auth/"+l.mount()+"/role/")
	if !ok {
		return false
	}
	name, last, ok := strings.Cut(rest, "/")
	return ok && name != "" && (last == "secret-id" || last == "custom-secret-id") &&
		(l.conf.Role == "" || strings.EqualFold(name, l.conf.Role))
}

// unwrapToken returns the token behind a wrapping token. Nobody else has it and nobody can get it again, so we renew
// and revoke it.
func (l *authenticator) unwrapToken(ctx context.Context, w Text) (grant, error) {
	from, err := l.lookupWrapping(ctx, w)
	if err != nil {
		return grant{}, err
	}
	sink := from == wrapPath && l.conf.sink
	if !strings.HasPrefix(from, "auth/") && !sink {
		return grant{}, l.rewrapped(from, "auth/token/create or a login")
	}
	at := time.Now()
	a, err := l.unwrap(ctx, w)
	if err != nil {
		return grant{}, err
	}
	if sink {
		return l.ofSink(a)
	}
	if a.Auth == nil {
		return grant{}, &fault.Error{Kind: fault.Refused, What: l.what(), Why: "the wrapping token held no token",
			Hint: "make it with `vault token create -wrap-ttl=5m`"}
	}
	return l.grantOf(a, at)
}
