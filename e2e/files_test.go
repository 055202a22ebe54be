package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// Secrets as files beyond what testdata/scripts/files.txtar shows.

// memoryDir makes a folder on a memory file system.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "vaultexec-test-")
	if err != nil {
		needs.Missing(t, "a memory file system at /dev/shm")
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// TestSignalReloadsNginx: a rotated key and certificate reach a running nginx by --file NAME=PATH and a SIGHUP: the same
// process serves the new certificate. Without the signal it has the new files and serves the old one.
func TestSignalReloadsNginx(t *testing.T) {
	t.Parallel()
	nginx := needs.Program(t, "nginx")
	for _, onChange := range []string{"signal:HUP", "none"} {
		t.Run(onChange, func(t *testing.T) {
			t.Parallel()
			w := newWatched(t, 2)
			dir := memoryDir(t)
			ca := vaulttest.NewCA(t, "nginx CA")
			put := func() (certificate string) {
				pair := ca.Server(t, vaulttest.CertOpts{})
				key, err := os.ReadFile(pair.KeyFile)
				if err != nil {
					t.Fatal(err)
				}
				w.srv.PutKV(t, w.mount, "tls", map[string]string{"KEY": string(key), "CERT": string(pair.CertPEM)})
				return string(pair.CertPEM)
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			addr := l.Addr().String()
			_ = l.Close()
			conf := fmt.Sprintf(`daemon off; error_log stderr; pid %[1]s/pid;
events {}
http { access_log off; client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
 server { listen %[2]s ssl; ssl_certificate %[3]s/crt; ssl_certificate_key %[3]s/key; location / { return 200 "$pid"; } } }
`, w.dir, addr, dir)
			if os.Getuid() == 0 {
				conf = "user root;\n" + conf
			}
			vaulttest.WriteFile(t, filepath.Join(w.dir, "nginx.conf"), conf, 0o600)
			roots := x509.NewCertPool()
			roots.AppendCertsFromPEM(ca.PEM)
			served := func() string {
				d := &net.Dialer{Timeout: time.Second}
				c, err := tls.DialWithDialer(d, "tcp", addr, &tls.Config{RootCAs: roots})
				if err != nil {
					return ""
				}
				defer func() { _ = c.Close() }()
				return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.ConnectionState().PeerCertificates[0].Raw}))
			}
			old := put()
			w.start("--path", "tls", "--file", "KEY="+dir+"/key", "--file", "CERT="+dir+"/crt", "--on-change", onChange,
				"--", nginx, "-p", w.dir, "-c", filepath.Join(w.dir, "nginx.conf"), "-e", "stderr")
			w.until("nginx to serve the first certificate", func() bool { return served() == old })
			pid, err := os.ReadFile(filepath.Join(w.dir, "pid"))
			if err != nil {
				t.Fatal(err)
			}
			fresh := put()
			if onChange == "none" {
				w.until("the new file", func() bool { b, _ := os.ReadFile(dir + "/crt"); return string(b) == fresh })
				w.waitLog("nothing is done as --on-change none asks", 1)
				if served() != old {
					t.Error("control: nginx serves the new certificate without a signal")
				}
			} else {
				w.until("nginx to serve the new certificate", func() bool { return served() == fresh })
			}
			if again, err := os.ReadFile(filepath.Join(w.dir, "pid")); err != nil || string(again) != string(pid) {
				t.Errorf("nginx was started anew: %s, then %s", pid, again)
			}
			w.wantLines(0, logRestart)
			w.signal(syscall.SIGQUIT) // nginx: end in order
			w.finish("0")
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("%s is left", left[0].Name())
			}
		})
	}
}

// TestLargeFile: a value of a million bytes, for which no variable has room, arrives byte for byte by --file, sealed in
// memory or at a path, as text or decoded, and nowhere else.
func TestLargeFile(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	dir := memoryDir(t)
	text := vaulttest.Canary("large")
	text = (text + strings.Repeat("\n"+strings.Repeat("a line of the value ", 10), 5000))[:1_000_000]
	binary := make([]byte, 700_000) // its base64 is a little under Vault's own limit of a million bytes a string
	for i := range binary {
		binary[i] = byte(i * i >> 3)
	}
	r.srv.PutKV(t, r.mount, "app", map[string]string{"TEXT": text})
	r.srv.PutKV(t, r.mount, "binary", map[string]string{"BINARY": base64.StdEncoding.EncodeToString(binary)})
	r.set("VAULT_TOKEN=" + r.srv.Token(t, vaulttest.TokenOpts{Policies: []string{r.srv.Scope(t).ReadPolicy(r.mount, "app", "binary")}, NoDefault: true}))
	vaulttest.WriteFile(t, filepath.Join(r.dir, "text"), text, 0o600)
	vaulttest.WriteFile(t, filepath.Join(r.dir, "binary"), string(binary), 0o600)
	for _, args := range [][]string{
		{"--file", "TEXT", "--file", "BINARY:base64"},
		{"--supervise", "--file", "TEXT", "--file", "BINARY:base64"},
		{"--file", "TEXT=" + dir + "/text", "--file", "BINARY:base64=" + dir + "/binary"},
	} {
		j := r.start(append(append([]string{"--path", "app", "--path", "binary", "--log-level", "debug"}, args...), "--", "sh", "-c",
			`test -z "${TEXT+x}${BINARY+x}" && cmp "$TEXT_FILE" text && cmp "$BINARY_FILE" binary`)...).finish("0")
		if j.out.String() != "" {
			t.Errorf("%v: %s", args, vaulttest.Redact(j.out.String()))
		}
	}
	r.start("--path", "app", "--", "true").finish("123").says(`cannot use .*/app@\d#TEXT: TEXT would be \d+ bytes`)
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("%s is left", left[0].Name())
	}
}
