package vault_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// relay is a TLS server in front of a real Vault whose configuration a test can change between two handshakes.
func relay(t *testing.T, srv *vaulttest.Server, conf func() *tls.Config) string {
	t.Helper()
	p := vaulttest.NewProxy(t, srv)
	front := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req, err := http.NewRequestWithContext(r.Context(), r.Method, p.Addr+r.URL.RequestURI(), r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		req.Header = r.Header
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		defer resp.Body.Close()
		w.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(w, resp.Body)
	}))
	front.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return conf(), nil }}
	front.Config.ErrorLog = log.New(io.Discard, "", 0)
	front.StartTLS()
	t.Cleanup(front.Close)
	return front.URL
}

func pairOf(t *testing.T, k *vaulttest.KeyPair) tls.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(k.CertFile, k.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func copyTo(t *testing.T, to, from string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to+".new", b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(to+".new", to); err != nil {
		t.Fatal(err)
	}
}

// The server's CA is replaced, on disk too: no request fails. Without the change on disk it does.
func TestCAIsReadAgain(t *testing.T) {
	srv := vaulttest.Dev(t)
	old, next := vaulttest.NewCA(t, "old"), vaulttest.NewCA(t, "next")
	oldPair, nextPair := pairOf(t, old.Server(t, vaulttest.CertOpts{})), pairOf(t, next.Server(t, vaulttest.CertOpts{}))
	dir := t.TempDir()
	file := filepath.Join(dir, "ca.pem")
	for _, c := range []struct {
		name string
		cfg  vault.Config
		env  string
	}{
		{"--ca-cert", vault.Config{CACert: file}, ""},
		{"--ca-path", vault.Config{CAPath: dir}, ""},
		{"SSL_CERT_FILE", vault.Config{}, file},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.env != "" {
				t.Setenv("SSL_CERT_FILE", c.env)
				t.Setenv("SSL_CERT_DIR", filepath.Join(dir, "none"))
			}
			copyTo(t, file, old.File)
			var pair atomic.Pointer[tls.Certificate]
			pair.Store(&oldPair)
			c.cfg.Address = relay(t, srv, func() *tls.Config {
				return &tls.Config{Certificates: []tls.Certificate{*pair.Load()}, MinVersion: tls.VersionTLS12}
			})
			client := newClient(t, c.cfg)
			client.SetToken(vault.NewText(srv.RootToken))
			look := func() error {
				client.CloseIdle() // as after a restart of the server
				_, err := client.LookupToken(t.Context())
				return err
			}
			// Go reads the system's own CAs once a process, so that only the change shows here.
			if err := look(); err != nil && c.env == "" {
				t.Fatal(err)
			}
			pair.Store(&nextPair)
			refused(t, look(), fault.Address, "unknown authority")
			copyTo(t, file, next.File)
			for range 2 {
				if err := look(); err != nil {
					t.Fatalf("after the change: %v", err)
				}
			}
		})
	}
}

// A client certificate is replaced: the next login shows the new one, over a connection of its own; half a pair is not used.
func TestClientCertIsReadAgain(t *testing.T) {
	srv := tlsServer(t, nil)
	clients := vaulttest.NewCA(t, "clients")
	srv.Must(t, "POST", "sys/auth/cert", map[string]any{"type": "cert"})
	srv.Must(t, "POST", "auth/cert/certs/app", map[string]any{"certificate": string(clients.PEM), "allowed_common_names": "second", "token_policies": "default"})
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	first, second := clients.Client(t, vaulttest.CertOpts{Name: "first"}), clients.Client(t, vaulttest.CertOpts{Name: "second"})
	copyTo(t, cert, first.CertFile)
	copyTo(t, key, first.KeyFile)
	client := newClient(t, vault.Config{Address: srv.Addr, CACert: srv.CACert, ClientCert: cert, ClientKey: key})
	try := func() error {
		return vault.NewSession(client, vault.LoginConfig{Method: vault.AuthCert}).Login(t.Context())
	}
	refused(t, try(), fault.Refused, "--client-cert")
	copyTo(t, cert, second.CertFile)
	refused(t, try(), fault.Refused, "--client-cert")
	copyTo(t, key, second.KeyFile)
	if err := try(); err != nil {
		t.Fatalf("the new certificate is not shown: %v", err)
	}
}

// A folder as Kubernetes projects it, with folders below, links that go round, and files that are no PEM.
func TestCAPath(t *testing.T) {
	srv := vaulttest.Dev(t)
	ca := vaulttest.NewCA(t, "ours")
	addr := vaulttest.NewTLSProxy(t, srv, ca.Server(t, vaulttest.CertOpts{})).Addr
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	try := func(skipped *[]string) error {
		client, err := vault.New(vault.Config{Address: addr, CAPath: dir, Skipped: func(files []string) { *skipped = files }})
		if err != nil {
			return err
		}
		t.Cleanup(client.CloseIdle)
		return vault.NewTokenSession(client, text(srv.RootToken)).Login(t.Context())
	}
	refused(t, try(nil), fault.Usage, "no file in --ca-path")
	must(os.WriteFile(filepath.Join(dir, "token"), []byte("x"), 0o600))
	refused(t, try(nil), fault.Usage, "no certificate in --ca-path", "/token\"")
	data := filepath.Join(dir, "..2026_01_01_00_00_00.1")
	must(os.MkdirAll(filepath.Join(data, "sub"), 0o700))
	copyTo(t, filepath.Join(data, "sub", "ca.crt"), ca.File)
	must(os.Symlink(filepath.Base(data), filepath.Join(dir, "..data")))
	must(os.Symlink("..data/sub", filepath.Join(dir, "sub")))
	must(os.Symlink(".", filepath.Join(dir, "round")))
	must(os.Symlink("nowhere", filepath.Join(dir, "dangling")))
	var skipped []string
	must(try(&skipped))
	if len(skipped) == 0 || filepath.Base(skipped[0]) != "token" {
		t.Errorf("skipped %q", skipped)
	}
}

// Each way in which TLS fails has a cause and a remedy of its own.
func TestTLSCauses(t *testing.T) {
	srv := vaulttest.Dev(t)
	ca := vaulttest.NewCA(t, "ours")
	good := pairOf(t, ca.Server(t, vaulttest.CertOpts{}))
	client := ca.Client(t, vaulttest.CertOpts{Name: "app"})
	expired := ca.Client(t, vaulttest.CertOpts{Name: "app", Expired: true})
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.PEM)
	with := func(certs ...tls.Certificate) *tls.Config {
		return &tls.Config{Certificates: certs, MinVersion: tls.VersionTLS12}
	}
	strict := func() *tls.Config {
		c := with(good)
		c.ClientCAs, c.ClientAuth = pool, tls.RequireAndVerifyClientCert
		return c
	}
	for _, c := range []struct {
		name  string
		conf  *tls.Config
		cfg   vault.Config
		words []string
	}{
		{"good", with(good), vault.Config{}, nil},
		{"common name only", with(pairOf(t, ca.Server(t, vaulttest.CertOpts{DNS: []string{}, IPs: []net.IP{}}))), vault.Config{}, []string{"common name", "subjectAltName"}},
		{"not for servers", with(pairOf(t, ca.Client(t, vaulttest.CertOpts{IPs: []net.IP{net.IPv4(127, 0, 0, 1)}}))), vault.Config{}, []string{"not one for servers", "serverAuth"}},
		{"TLS 1.1", &tls.Config{Certificates: []tls.Certificate{good}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, vault.Config{}, []string{"no TLS 1.2", "tls_min_version"}},
		{"no client certificate", strict(), vault.Config{}, []string{"wants a client certificate", "--client-cert"}},
		{"expired client certificate", strict(), vault.Config{ClientCert: expired.CertFile, ClientKey: expired.KeyFile}, []string{"client certificate has expired"}},
		{"client certificate", strict(), vault.Config{ClientCert: client.CertFile, ClientKey: client.KeyFile}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.cfg.Address, c.cfg.CACert = relay(t, srv, func() *tls.Config { return c.conf }), ca.File
			cl := newClient(t, c.cfg)
			cl.SetToken(vault.NewText(srv.RootToken))
			_, err := cl.LookupToken(t.Context())
			if c.words == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			refused(t, err, fault.Address, c.words...)
		})
	}
	t.Run("unknown name", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Read(make([]byte, 4096))
				_, _ = c.Write([]byte{21, 3, 3, 0, 2, 2, 112}) // a fatal alert, unrecognized_name (RFC 6066, 3)
				_ = c.Close()
			}
		}()
		_, err = newClient(t, vault.Config{Address: "https://" + l.Addr().String(), CACert: ca.File}).LookupToken(t.Context())
		refused(t, err, fault.Address, "does not know the name", "--tls-server-name")
	})
}

// What is wrong with a PEM file is said by its name.
func TestPEMFiles(t *testing.T) {
	ca := vaulttest.NewCA(t, "ours")
	pair := ca.Client(t, vaulttest.CertOpts{Name: "app"})
	other := ca.Client(t, vaulttest.CertOpts{Name: "other"})
	dir := t.TempDir()
	put := func(name, content string) string {
		path := filepath.Join(dir, name)
		rewrite(t, path, content)
		return path
	}
	keyPEM, err := os.ReadFile(pair.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	vaulttest.Secret(string(keyPEM))
	sealed := string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("anything")}))
	old := string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}, Bytes: []byte("anything")}))
	const bom = "\xef\xbb\xbf"
	for _, c := range []struct {
		name  string
		cfg   vault.Config
		words []string
	}{
		{"BOM", vault.Config{CACert: put("bom", bom+string(ca.PEM)), ClientCert: put("bomcert", bom+string(pair.CertPEM)), ClientKey: put("bomkey", bom+string(keyPEM))}, nil},
		{"BOM in the text", vault.Config{CACertBytes: bom + string(ca.PEM)}, nil},
		{"UTF-16", vault.Config{CACert: put("utf16", "\xff\xfe-\x00-\x00")}, []string{"utf16", "UTF-16"}},
		{"empty", vault.Config{CACert: put("empty", "")}, []string{"empty\"", "is empty"}},
		{"DER", vault.Config{CACert: put("der", "\x30\x82\x01\x00")}, []string{"der\"", "-inform der"}},
		{"one line", vault.Config{CACert: put("line", "-----BEGIN CERTIFICATE----- MIIB -----END CERTIFICATE-----")}, []string{"does not go on as PEM", "line break"}},
		{"a key as CA", vault.Config{CACert: pair.KeyFile}, []string{"but a private key"}},
		{"exchanged", vault.Config{ClientCert: pair.KeyFile, ClientKey: pair.CertFile}, []string{"but a private key"}},
		{"a certificate as key", vault.Config{ClientCert: pair.CertFile, ClientKey: pair.CertFile}, []string{"but a certificate"}},
		{"another key", vault.Config{ClientCert: pair.CertFile, ClientKey: other.KeyFile}, []string{"is not the key of"}},
		{"encrypted", vault.Config{ClientCert: pair.CertFile, ClientKey: put("sealed", sealed)}, []string{"sealed", "passphrase", "openssl pkey"}},
		{"encrypted, old", vault.Config{ClientCert: pair.CertFile, ClientKey: put("old", old)}, []string{"passphrase"}},
		{"missing", vault.Config{ClientCert: pair.CertFile, ClientKey: filepath.Join(dir, "missing")}, []string{"--client-key", "no such file"}},
		{"CA of nobody", vault.Config{CACertBytes: "/etc/ca.pem"}, []string{"VAULT_CACERT_BYTES"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.cfg.Address = "https://127.0.0.1:1"
			_, err := vault.New(c.cfg)
			if c.words == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			refused(t, err, fault.Usage, c.words...)
		})
	}
}
