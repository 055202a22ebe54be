package cli

import (
	"strings"

	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// proxyVars name the proxy for Vault alone.
var proxyVars = append(vaultVar("PROXY_ADDR"), vaultVar("HTTP_PROXY")...)

// connection is how to reach an address, by the options for it.
func (a *app) connection(s *settings, address string) vault.Config {
	from, proxy := a.first(proxyVars)
	srv := a.firstOf(vaultVar("SRV_LOOKUP"))
	a.noteSecrets()
	return vault.Config{
		Secrets: a.secrets, Address: address, Namespace: s.str("namespace"),
		CACert: s.str("ca-cert"), CACertBytes: a.firstOf(vaultVar("CACERT_BYTES")), CAPath: s.str("ca-path"),
		ClientCert: s.str("client-cert"), ClientKey: s.str("client-key"), TLSServerName: s.str("tls-server-name"),
		AllowOwner: s.owners(), SkipVerify: s.bool("tls-skip-verify"),
		Headers:      vault.NewText(a.firstOf(vaultVar("HEADERS"))),
		SRVLookup:    srv == "true" || srv == "1",
		ProxyAddress: vault.NewText(proxy), ProxyFrom: from,
		Skipped: func(files []string) {
			a.warnOnce("--ca-path: files that hold no certificate are skipped", "first", files[0], "files", len(files))
		},
		Timeout: s.duration("timeout"), UserAgent: "vaultexec/" + version(),
	}
}

// session sets the connection and the login up, without a request.
func (a *app) session(s *settings) *vault.Session {
	agent := ""
	if s.one("address").origin != fromOption {
		agent = a.firstOf(vaultVar("AGENT_ADDR"))
	}
	cfg := a.clientConfig(s)
	if agent != "" {
		cfg.Address = agent
	}
	login := a.loginConfig(s, agent != "")
	cfg.Agent = login.Method == vault.AuthAgent
	client := a.client(s, cfg)
	if client == nil {
		return nil
	}
	return vault.NewSession(client, login)
}

// clientConfig is how to reach the Vault of --address, and where its tokens are.
func (a *app) clientConfig(s *settings) vault.Config {
	cfg := a.connection(s, s.str("address"))
	if ns := s.str("auth-namespace"); ns != "" {
		cfg.AuthNamespace = strings.Trim(ns, "/")
		if cfg.AuthNamespace == "" { // "/"
			cfg.AuthNamespace = vault.RootNamespace
		}
	}
	// A file would win over the certificate itself, and that over the folder, wherever they come from.
	file, folder := s.one("ca-cert").origin, s.one("ca-path").origin
	if folder > file || cfg.CACertBytes != "" && file < fromVariable {
		cfg.CACert = ""
	}
	if folder > fromVariable && folder > file {
		cfg.CACertBytes = ""
	}
	return cfg
}

// client connects, without a request; nil when something is wrong.
func (a *app) client(s *settings, cfg vault.Config) *vault.Client {
	allowHTTP := s.bool("allow-http")
	if len(s.faults) > 0 {
		return nil
	}
	client, err := vault.New(cfg)
	if err != nil {
		s.faults = append(s.faults, fault.Of(err))
		return nil
	}
	if to := client.Exposed(); to != "" && !allowHTTP {
		if client.Unverified() {
			a.warnOnce("the server's certificate is not verified (--tls-skip-verify), and the token and the secrets go to whoever answers for "+
				client.Where(), "readers", to, "acknowledge", "--allow-http")
		} else {
			a.warnOnce("the token and the secrets cross the network unencrypted to "+client.Where(),
				"readers", to, "acknowledge", "--allow-http")
		}
	}
	return client
}

// noteSecrets takes down what is secret in the environment, used or not.
func (a *app) noteSecrets() {
	for _, kv := range a.environ {
		name, value, _ := strings.Cut(kv, "=")
		switch {
		case strings.HasSuffix(name, "_HEADERS") && environ.IsCredential(name):
			a.secrets.AddHeaders(value)
		case environ.IsCredential(name):
			a.secrets.Add(vault.NewText(strings.TrimSpace(value)))
		case environ.HasPassword(name, value):
			a.secrets.AddAddress(value)
		}
	}
}

// first is the first of the variables that is set and not empty, and its value.
func (a *app) first(names []string) (name, value string) {
	for _, n := range names {
		if v := a.getenv(n); v != "" {
			return n, v
		}
	}
	return "", ""
}

// firstOf is the value of first.
func (a *app) firstOf(names []string) string {
	_, value := a.first(names)
	return value
}
