package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/agenticverz/vaultexec/internal/cloud"
	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// cloudInputs are what a login with gcp or azure may be made of, beside what the machine has by itself.
type cloudInputs struct {
	gcpKey          credential // always a file
	gcpType         setting
	azureResource   setting
	azureClientID   setting
	azureResourceID setting
}

func (a *app) cloudInputs(s *settings) cloudInputs {
	return cloudInputs{
		gcpKey: a.credential(s, "gcp-credentials-file", nil), gcpType: s.one("gcp-type"), azureResource: s.one("azure-resource"),
		azureClientID: s.one("azure-client-id"), azureResourceID: s.one("azure-resource-id"),
	}
}

// drop takes out what came from there.
func (in *cloudInputs) drop(from origin) {
	if in.gcpKey.origin == from {
		in.gcpKey = credential{}
	}
	for _, v := range []*setting{&in.gcpType, &in.azureResource, &in.azureClientID, &in.azureResourceID} {
		if v.origin == from {
			*v = setting{}
		}
	}
}

// gcpLogin takes the key of a service account, where one is named, or asks the metadata server.
func (a *app) gcpLogin(s *settings, in cloudInputs, conf *vault.LoginConfig) {
	if conf.Role == "" {
		s.lacks(conf.Method, "a role", "name it with --role")
	}
	kind, key := s.choice("gcp-type"), in.gcpKey
	switch {
	case kind == "gce" && key.given() && key.origin == in.gcpType.origin:
		s.faults = append(s.faults, &fault.Error{Kind: fault.Usage, What: "cannot log in with gcp",
			Why:  fmt.Sprintf("%s is gce, and %s is for iam", in.gcpType.from, key.from),
			Hint: "take one of them out: the metadata server needs no file"})
	case kind == "gce" && key.origin < in.gcpType.origin:
		key = credential{}
	case kind != "gce" && !key.given():
		// Of Google's own, for the command perhaps: it says how to log in with gcp, and not that gcp is meant.
		if v := a.getenv("GOOGLE_APPLICATION_CREDENTIALS"); v != "" {
			key = credential{from: "GOOGLE_APPLICATION_CREDENTIALS", file: v, allow: s.owners()}
		}
	}
	role := conf.Role
	if key.file == "" {
		if kind == "iam" {
			s.lacks(conf.Method, "a service account's key",
				"name its JSON file with --gcp-credentials-file, or set GOOGLE_APPLICATION_CREDENTIALS")
		}
		host := a.getenv("GCE_METADATA_HOST")
		conf.Proof = func(ctx context.Context) (map[string]vault.Text, error) {
			token, err := cloud.GoogleToken(ctx, host, role)
			if err != nil {
				return nil, err
			}
			return a.proof(token, cloud.Subject(token), nil), nil
		}
		return
	}
	read, name := vault.DocumentSource(key.from, key.file, key.allow...), fmt.Sprintf("%s %q", key.from, key.file)
	conf.Proof = func(ctx context.Context) (map[string]vault.Text, error) {
		document, err := read(ctx)
		if err != nil {
			return nil, err
		}
		var secret struct {
			Key vault.Text `json:"private_key"`
		}
		_ = json.Unmarshal([]byte(document.Reveal()), &secret) // GoogleJWT says what is wrong
		a.secrets.Add(secret.Key)
		token, who, err := cloud.GoogleJWT(name, document.Reveal(), role, time.Now())
		if err != nil {
			return nil, err
		}
		return a.proof(token, who, nil), nil
	}
}

// azureLogin takes the identity that the platform gives, in the order of Microsoft's own libraries.
func (a *app) azureLogin(s *settings, in cloudInputs, conf *vault.LoginConfig) {
	if conf.Role == "" {
		s.lacks(conf.Method, "a role", "name it with --role")
	}
	if in.azureResource.text == "" {
		s.bad(in.azureResource, "it is empty", "give the same as resource in the mount's configuration (`vault read auth/azure/config`)")
	}
	z := &cloud.Azure{
		Resource: in.azureResource.text, ClientID: cmp.Or(in.azureClientID.text, a.getenv("AZURE_CLIENT_ID")), ResourceID: in.azureResourceID.text,
		Tenant: a.getenv("AZURE_TENANT_ID"), Authority: a.getenv("AZURE_AUTHORITY_HOST"),
		Endpoint: a.getenv("IDENTITY_ENDPOINT"), Arc: a.isSet("IMDS_ENDPOINT"), Fabric: a.isSet("IDENTITY_SERVER_THUMBPRINT"),
		IMDS:  a.getenv("AZURE_POD_IDENTITY_AUTHORITY_HOST"),
		Owner: a.getenv("WEBSITE_OWNER_NAME"), Group: a.getenv("WEBSITE_RESOURCE_GROUP"), Site: a.getenv("WEBSITE_SITE_NAME"),
	}
	if v := a.getenv("IDENTITY_HEADER"); v != "" {
		header := vault.NewText(v)
		a.secrets.Add(header)
		z.Header = header.Reveal
	}
	if file := a.getenv("AZURE_FEDERATED_TOKEN_FILE"); file != "" {
		read := vault.FileSource("AZURE_FEDERATED_TOKEN_FILE", file, s.owners()...)
		z.Federated = func(ctx context.Context) (string, error) {
			t, err := read(ctx)
			a.secrets.Add(t)
			return t.Reveal(), err
		}
		if err := vault.CheckNamedRoots(s.owners()...); err != nil { // the token goes to whoever they vouch for
			s.faults = append(s.faults, fault.Of(err))
		}
	}
	if f := z.Check(); f != nil {
		s.faults = append(s.faults, f)
	}
	conf.Proof = func(ctx context.Context) (map[string]vault.Text, error) {
		token, err := z.Token(ctx)
		if err != nil {
			return nil, err
		}
		fields, err := z.Fields(ctx)
		if err != nil {
			return nil, err
		}
		return a.proof(token, cloud.Subject(token), fields), nil
	}
}

// proof is the body of a login with a JWT. Fields beside it are no secret.
func (a *app) proof(token, who string, fields map[string]string) map[string]vault.Text {
	jwt := vault.NewText(token)
	a.secrets.Add(jwt)
	body := map[string]vault.Text{"jwt": jwt, vault.ProvenBy: vault.NewText(who)}
	for name, value := range fields {
		body[name] = vault.NewText(value)
	}
	return body
}
