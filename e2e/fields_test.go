package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// Paths with fields beside a running command, beyond what testdata/scripts/fields.txtar shows.

// pki makes a PKI mount with a role web, and a token that may have it issue certificates and read everything in the mount of w. It
// returns the path that issues them, and the CA.
func pki(t *testing.T, w *watched) (issue string, root *x509.CertPool) {
	t.Helper()
	mount := w.scope.Name("pki")
	w.srv.Must(t, "POST", "sys/mounts/"+mount, map[string]string{"type": "pki"})
	t.Cleanup(func() { w.srv.Do(t, "DELETE", "sys/mounts/"+mount, nil) })
	out := w.srv.Must(t, "POST", mount+"/root/generate/internal", map[string]string{"common_name": "test", "key_type": "ec", "key_bits": "256"})
	data, _ := out["data"].(map[string]any)
	ca, _ := data["certificate"].(string)
	root = x509.NewCertPool()
	if !root.AppendCertsFromPEM([]byte(ca)) {
		t.Fatal("no CA")
	}
	w.srv.Must(t, "POST", mount+"/roles/web", map[string]any{"allow_any_name": true, "key_type": "ec", "key_bits": 256})
	issue = mount + "/issue/web"
	policy := w.scope.Policy(fmt.Sprintf("%s\npath %q { capabilities = [\"update\"] }", w.rules(true), issue))
	w.token = w.srv.Token(t, vaulttest.TokenOpts{Policies: []string{policy}, NoDefault: true})
	return issue, root
}

// issued counts the requests that made something at a path.
func (w *watched) issued(path string) int {
	return w.proxy.Count(func(q vaulttest.Request) bool { return q.Path == path && q.Method == "PUT" })
}

// TestWatchCertificate: under --watch nobody looks at a certificate, which would make another; it is kept over a restart for
// another reason, and issued anew before it ends.
func TestWatchCertificate(t *testing.T) {
	t.Parallel()
	t.Run("long", func(t *testing.T) {
		t.Parallel()
		w := newWatched(t, 2)
		issue, _ := pki(t, w)
		first, second := w.fresh("app", "A"), vaulttest.Canary("A")
		w.start("--path", "app", "--env", "B=/"+issue+"?common_name=app.example&ttl=1h#serial_number")
		w.waitA(first)
		w.looks(4, 1)
		w.put("app", "A="+second)
		w.waitA(second)
		w.stop()
		w.wantStarts(2)
		if s := w.starts(); len(s) == 2 && (s[0].b == "" || s[0].b != s[1].b) {
			t.Error("the certificate was not kept over the restart")
		}
		if n := w.issued(issue); n != 1 {
			t.Errorf("%d certificates, want 1", n)
		}
	})
	t.Run("short", func(t *testing.T) {
		t.Parallel()
		w := newWatched(t, 2)
		issue, _ := pki(t, w)
		w.start("--env", "B=/"+issue+"?common_name=app.example&ttl=5s#serial_number", "--env", "C=/"+issue+"?ttl=5s&common_name=app.example#expiration")
		w.waitStarts(3)
		for i, s := range w.starts()[1:] {
			if before := w.starts()[i]; s.b == before.b || s.c <= before.c {
				t.Errorf("%s until %s was replaced by %s until %s", before.b, before.c, s.b, s.c)
			}
		}
		w.stop()
	})
	t.Run("without an end", func(t *testing.T) {
		t.Parallel()
		w := newWatched(t, 2)
		first := w.fresh("app", "A")
		transit := w.scope.Name("transit")
		w.srv.Must(t, "POST", "sys/mounts/"+transit, map[string]string{"type": "transit"})
		t.Cleanup(func() { w.srv.Do(t, "DELETE", "sys/mounts/"+transit, nil) })
		policy := w.scope.Policy(fmt.Sprintf("%s\npath \"%s/random\" { capabilities = [\"update\"] }", w.rules(true), transit))
		w.token = w.srv.Token(t, vaulttest.TokenOpts{Policies: []string{policy}, NoDefault: true})
		w.start("--path", "app", "--env", "B=/"+transit+"/random?bytes=16#random_bytes")
		w.waitA(first)
		w.looks(6, 1)
		w.stop()
		w.wantStarts(1)
		if n := w.issued(transit + "/random"); n != 1 {
			t.Errorf("it was made %d times, want once", n)
		}
	})
}

// TestSetReloadsNginx: certificates that end after seconds, in a running nginx that gets a SIGHUP for each new one. Whoever
// opens the folder once finds a certificate and the key that belongs to it, at any time, and no handshake fails: no certificate
// is served after its end. With VAULTEXEC_TEST_SOAK=1 they live for a minute, and it takes ten.
func TestSetReloadsNginx(t *testing.T) {
	t.Parallel()
	nginx := needs.Program(t, "nginx")
	w := newWatched(t, 2)
	issue, roots := pki(t, w)
	dir := memoryDir(t)
	set := filepath.Join(dir, "tls")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	conf := fmt.Sprintf(`daemon off; error_log stderr; pid %[1]s/pid;
events {}
http { access_log off; client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
 server { listen %[2]s ssl; ssl_certificate %[3]s/cert.pem; ssl_certificate_key %[3]s/key.pem; location / { return 200 "$pid"; } } }
`, w.dir, addr, set)
	if os.Getuid() == 0 {
		conf = "user root;\n" + conf
	}
	vaulttest.WriteFile(t, filepath.Join(w.dir, "nginx.conf"), conf, 0o600)
	ttl, least, length := 7*time.Second, 4, time.Duration(0)
	if soak {
		ttl, least, length = time.Minute, 10, 10*time.Minute
	}
	path := "/" + issue + "?common_name=app.example&ttl=" + ttl.String()
	begin := time.Now()
	w.start("--env", "CERT=${"+path+"#certificate|lines}${"+path+"#ca_chain|lines}", "--env", "KEY="+path+"#private_key",
		"--file-set", set, "--file", "CERT="+set+"/cert.pem", "--file", "KEY="+set+"/key.pem", "--on-change", "signal:HUP",
		"--", nginx, "-p", w.dir, "-c", filepath.Join(w.dir, "nginx.conf"), "-e", "stderr")
	served := func() (string, error) {
		d := &net.Dialer{Timeout: limit}
		c, err := tls.DialWithDialer(d, "tcp", addr, &tls.Config{RootCAs: roots, ServerName: "app.example"})
		if err != nil {
			return "", err
		}
		defer func() { _ = c.Close() }()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String(), nil
	}
	w.until("nginx to serve", func() bool { _, err := served(); return err == nil })

	stop := make(chan struct{})
	var clients, readers sync.WaitGroup
	var handshakes, pairs atomic.Int64
	seen := sync.Map{}
	clients.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			serial, err := served()
			if err != nil {
				t.Errorf("a handshake failed: %v", err)
				return
			}
			seen.Store(serial, true)
			handshakes.Add(1)
		}
	})
	readers.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			cert, key, err := openedOnce(set, "cert.pem", "key.pem")
			if err == nil {
				_, err = tls.X509KeyPair(cert, key)
			}
			if err != nil {
				t.Errorf("the pair: %v", err)
				return
			}
			pairs.Add(1)
		}
	})
	certs := func() (n int) {
		seen.Range(func(any, any) bool { n++; return true })
		return n
	}
	wait.For(length, func() bool { return t.Failed() || time.Since(begin) > length })
	w.until(fmt.Sprintf("%d certificates", least), func() bool { return certs() >= least || t.Failed() })
	w.until("100 handshakes and 100 pairs", func() bool { return handshakes.Load() >= 100 && pairs.Load() >= 100 || t.Failed() })
	close(stop)
	clients.Wait()
	readers.Wait()
	t.Logf("%d certificates, %d handshakes, %d pairs in %v", certs(), handshakes.Load(), pairs.Load(), time.Since(begin))
	if chain, _, err := openedOnce(set, "cert.pem", "key.pem"); err != nil || certificates(chain) != 2 {
		t.Errorf("%d certificates in the file, want 2: %v", certificates(chain), err)
	}
	w.wantLines(0, logRestart)
	w.signal(syscall.SIGQUIT) // nginx: end in order
	w.finish("0")
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("%s is left", left[0].Name())
	}
}

// openedOnce reads two files from a folder that is opened once.
func openedOnce(dir, a, b string) (one, two []byte, err error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	var content [2][]byte
	for i, name := range []string{a, b} {
		file, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, nil, err
		}
		f := os.NewFile(uintptr(file), name)
		content[i], err = io.ReadAll(f)
		_ = f.Close()
		if err != nil {
			return nil, nil, err
		}
	}
	return content[0], content[1], nil
}

// certificates counts those in PEM.
func certificates(text []byte) (n int) {
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return n
		}
		if strings.HasSuffix(block.Type, "CERTIFICATE") {
			n++
		}
		text = rest
	}
}
