package cli

import (
	"io"
	"strings"
	"testing"

	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// Which method the inputs say, and which of them are an error before the network is touched.
func TestLoginChoice(t *testing.T) {
	for _, c := range []struct {
		args []string
		env  []string
		want vault.Method
		says string // what a failure says
	}{
		{nil, nil, vault.AuthToken, ""},
		{nil, []string{"VAULT_TOKEN=x"}, vault.AuthToken, ""},
		{nil, []string{"VAULT_AGENT_ADDR=http://127.0.0.1:1"}, vault.AuthAgent, ""},
		{nil, []string{"VAULT_AGENT_ADDR=http://127.0.0.1:1", "VAULT_TOKEN=x"}, vault.AuthToken, ""},
		{nil, []string{"VAULT_AGENT_ADDR=http://127.0.0.1:1", "VAULT_ROLE_ID=x"}, vault.AuthAppRole, ""},
		{[]string{"--role-id", "x", "--secret-id-file", "f"}, nil, vault.AuthAppRole, ""},
		{[]string{"--role-id-file", "f"}, nil, vault.AuthAppRole, ""},
		{[]string{"--role-id", "x"}, []string{"VAULT_TOKEN=x"}, vault.AuthToken, ""},
		{[]string{"--auth", "approle", "--role-id", "x"}, []string{"VAULT_TOKEN=x"}, vault.AuthAppRole, ""},
		{nil, []string{"BAO_ROLE_ID=x", "BAO_SECRET_ID=y"}, vault.AuthAppRole, ""},
		{nil, []string{"VAULTEXEC_WRAPPED_TOKEN=x"}, vault.AuthToken, ""},
		{[]string{"--jwt-file", "f", "--role", "r"}, nil, vault.AuthJWT, ""},
		{[]string{"--auth", "aws", "--aws-region", "eu-central-1", "--aws-server-id", "x"}, nil, vault.AuthAWS, ""},
		{nil, []string{"AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=y", "VAULTEXEC_AWS_REGION=eu-central-1"}, vault.AuthToken, ""},
		{[]string{"--auth", "kubernetes", "--role", "r"}, nil, vault.AuthKubernetes, ""},
		{[]string{"--auth", "gcp", "--role", "r"}, nil, vault.AuthGCP, ""},
		{[]string{"--gcp-type", "gce", "--role", "r"}, nil, vault.AuthGCP, ""},
		{[]string{"--gcp-type", "gce", "--role", "r"}, []string{"GOOGLE_APPLICATION_CREDENTIALS=f"}, vault.AuthGCP, ""},
		{[]string{"--gcp-type", "gce", "--role", "r"}, []string{"VAULTEXEC_GCP_CREDENTIALS_FILE=f"}, vault.AuthGCP, ""},
		{[]string{"--gcp-type", "iam", "--role", "r"}, []string{"GOOGLE_APPLICATION_CREDENTIALS=f"}, vault.AuthGCP, ""},
		{[]string{"--role", "r"}, []string{"VAULTEXEC_GCP_CREDENTIALS_FILE=f"}, vault.AuthGCP, ""},
		{nil, []string{"GOOGLE_APPLICATION_CREDENTIALS=f"}, vault.AuthToken, ""},
		{[]string{"--auth", "azure", "--role", "r"}, nil, vault.AuthAzure, ""},
		{[]string{"--azure-client-id", "i", "--role", "r"}, nil, vault.AuthAzure, ""},
		{nil, []string{"AZURE_CLIENT_ID=i", "IDENTITY_ENDPOINT=http://x", "AZURE_FEDERATED_TOKEN_FILE=f"}, vault.AuthToken, ""},
		{[]string{"--auth", "ldap", "--username", "u", "--password-file", "f"}, nil, vault.AuthLDAP, ""},
		{[]string{"--auth", "userpass", "--username", "u"}, []string{"VAULTEXEC_PASSWORD=p"}, vault.AuthUserpass, ""},
		{[]string{"--auth", "cert", "--client-cert", "f", "--client-key", "f"}, nil, vault.AuthCert, ""},
		{[]string{"--client-cert", "f", "--client-key", "f"}, nil, vault.AuthToken, ""},
		{[]string{"--auth", "agent"}, []string{"VAULT_TOKEN=x"}, vault.AuthAgent, ""},

		{[]string{"--role-id", "x", "--jwt-file", "f"}, nil, "", "--role-id is for approle, and --jwt-file is for jwt"},
		{[]string{"--wrapped-token-file", "f"}, []string{"VAULT_ROLE_ID=x"}, "", "--wrapped-token-file is for token, and VAULT_ROLE_ID is for approle"},
		{[]string{"--username", "u"}, nil, "", "--username is for userpass, ldap, okta and radius"},
		{[]string{"--role", "r"}, nil, "", "--role alone fits several methods"},
		{[]string{"--auth", "amazon"}, nil, "", "no such method"},
		{[]string{"--auth", "aws", "--aws-region", "eu.example"}, nil, "", "not a region"},
		{[]string{"--auth", "approle"}, nil, "", "a role id is missing"},
		{[]string{"--role-id", "x", "--secret-id-file", "f", "--wrapped-secret-id-file", "g"}, nil, "", "both --secret-id-file and --wrapped-secret-id-file"},
		{[]string{"--auth", "kubernetes"}, nil, "", "a role is missing"},
		{[]string{"--auth", "jwt"}, nil, "", "a JWT is missing"},
		{[]string{"--auth", "gcp"}, nil, "", "a role is missing"},
		{[]string{"--gcp-type", "iam", "--role", "r"}, nil, "", "a service account's key is missing"},
		{[]string{"--gcp-type", "gke", "--role", "r"}, nil, "", "not one of gce, iam"},
		{[]string{"--gcp-type", "gce", "--gcp-credentials-file", "f", "--role", "r"}, nil, "", "--gcp-type is gce, and --gcp-credentials-file is for iam"},
		{[]string{"--gcp-type", "gce", "--azure-client-id", "i"}, nil, "", "--azure-client-id is for azure, and --gcp-type is for gcp"},
		{[]string{"--auth", "azure"}, nil, "", "a role is missing"},
		{[]string{"--auth", "azure", "--role", "r", "--azure-resource", ""}, nil, "", "cannot use --azure-resource"},
		{[]string{"--auth", "azure", "--role", "r"}, []string{"AZURE_FEDERATED_TOKEN_FILE=f"}, "", "AZURE_TENANT_ID is not"},
		{[]string{"--auth", "azure", "--role", "r"}, []string{"IDENTITY_ENDPOINT=http://x"}, "", "IDENTITY_HEADER is not"},
		{[]string{"--auth", "cert"}, nil, "", "a client certificate is missing"},
		{[]string{"--auth", "ldap"}, nil, "", "a user name is missing"},
		{[]string{"--auth", "okta"}, nil, "", "a user name is missing"},
		{[]string{"--auth", "radius", "--username", "..", "--password-file", "f"}, nil, "", "cannot be part of a path"},
		{[]string{"--auth", "github"}, nil, "", "a personal access token is missing"},
		{nil, []string{"VAULTEXEC_GITHUB_TOKEN=x"}, vault.AuthGitHub, ""},
		{[]string{"--github-token-file", "f", "--role-id", "x"}, nil, "", "--role-id is for approle, and --github-token-file is for github"},
		{[]string{"--auth", "ldap", "--username", "a/b", "--password-file", "f"}, nil, "", "cannot be part of a path"},
		{[]string{"--auth", "approle", "--role-id", "x", "--auth-mount", "../sys"}, nil, "", "--auth-mount"},
	} {
		t.Run(strings.Join(append(c.env, c.args...), " "), func(t *testing.T) {
			given := newGiven()
			for i := 0; i < len(c.args); i += 2 {
				name := strings.TrimPrefix(c.args[i], "--")
				given.count++
				given.values[name] = append(given.values[name], givenValue{c.args[i+1], given.count})
			}
			a := newApp(c.env, io.Discard, io.Discard)
			s := &settings{opts: options, given: given, environ: a.getenv}
			conf := a.loginConfig(s, a.getenv("VAULT_AGENT_ADDR") != "")
			if c.says == "" {
				if len(s.faults) > 0 || conf.Method != c.want {
					t.Fatalf("got %q and %v, want %q", conf.Method, fault.Join(s.faults), c.want)
				}
				return
			}
			err := fault.Join(s.faults)
			if err == nil || !strings.Contains(err.Error(), c.says) || fault.Of(err).Code() != 125 {
				t.Fatalf("got %v, want %q with 125", err, c.says)
			}
		})
	}
}

// Every variable that a login takes a credential from is one that the command does not get.
func TestCredentialVariables(t *testing.T) {
	for _, vars := range [][]string{secretIDVars, wrappedSecretIDVars, wrappedTokenVars, jwtVars, passwordVars, tokenVars, ownVar("ROLE_ID"), vaultVar("ROLE_ID"), vaultVar("HEADERS")} {
		for _, name := range vars {
			if !environ.IsCredential(name) {
				t.Errorf("the command gets %s", name)
			}
		}
	}
}
