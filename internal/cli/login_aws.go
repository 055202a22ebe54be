package cli

import (
	"context"
	"encoding/base64"
	"sync"

	"github.com/agenticverz/vaultexec/internal/cloud"
	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// awsLogin signs a request that Vault has AWS' STS asked. Nothing implies the method: AWS' variables are there for the command. They
// stay in its environment, too.
func (a *app) awsLogin(s *settings, conf *vault.LoginConfig) {
	region := s.one("aws-region")
	if region.text != "" && !cloud.IsAWSRegion(region.text) {
		s.bad(region, "not a region", "write it as eu-central-1")
	}
	chain := cloud.AWS{Getenv: a.getenv, Read: textReader(s.owners()), Region: region.text, ServerID: s.str("aws-server-id")}
	conf.Proof = func(ctx context.Context) (map[string]vault.Text, error) {
		r, err := chain.Prove(ctx)
		if err != nil {
			return nil, err
		}
		for _, secret := range r.Secrets {
			a.secrets.Add(vault.NewText(secret.Reveal()))
		}
		proof := map[string]vault.Text{"iam_http_request_method": vault.NewText(r.Method), vault.ProvenBy: vault.NewText(r.By)}
		for i, part := range []string{r.URL, r.Body, r.Headers.Reveal()} {
			name := []string{"iam_request_url", "iam_request_body", "iam_request_headers"}[i]
			proof[name] = vault.NewText(base64.StdEncoding.EncodeToString([]byte(part)))
		}
		return proof, nil
	}
}

// textReader reads files that decide who vaultexec is, each with one reader for good: a file that hangs is not asked again beside.
func textReader(allow []int) func(ctx context.Context, what, path string) (string, error) {
	var mu sync.Mutex
	sources := map[string]vault.Source{}
	return func(ctx context.Context, what, path string) (string, error) {
		mu.Lock()
		source := sources[path]
		if source == nil {
			source = vault.DocumentSource(what, path, allow...)
			sources[path] = source
		}
		mu.Unlock()
		t, err := source(ctx)
		if fault.Has(err, fault.Empty) { // as a file of profiles may be
			err = nil
		}
		return t.Reveal(), err
	}
}
