package vault

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/trust"
)

// filePatience is how long a request waits for files that may have changed. It has to be short of the time of the
// request, which then goes on with what was read before.
const filePatience = time.Second

// tlsFiles are the files that TLS with Vault is made of. They change on disk while a command runs: certificates are
// short-lived and CAs are replaced. A client certificate is looked at before every handshake. The CAs are looked at
// when TLS has failed, or before a login with a certificate. Connections that stand know of neither change, so they are
// left then.
type tlsFiles struct {
	cfg Config

	reads  beside // what touches the next two
	stamps string // of the files when they were last read
	of     string // stamps of the files of pair

	pair atomic.Pointer[tls.Certificate] // nil without a client certificate
}

// newTLSFiles reads the files. The error names the option, the file and what is wrong with it.
func newTLSFiles(cfg Config) (*tlsFiles, *tls.Config, error) {
	f := &tlsFiles{cfg: cfg}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: cfg.SkipVerify, ServerName: cfg.TLSServerName}
	if u, err := url.Parse(cfg.Address); err == nil && cfg.usesSRV(u) && conf.ServerName == "" {
		conf.ServerName = u.Hostname() // what the user wrote, and not what DNS makes of it
	}
	if (cfg.ClientCert == "") != (cfg.ClientKey == "") {
		return nil, nil, tlsFault("a client certificate needs its key, and a key its certificate",
			"give both --client-cert and --client-key", nil)
	}
	if cfg.ClientCert != "" {
		f.of = stamps(cfg.ClientCert, cfg.ClientKey)
		pair, err := f.readPair()
		if err != nil {
			return nil, nil, err
		}
		f.pair.Store(pair)
		// The server's list of CAs is not asked: Vault knows those of its cert auth method only there.
		conf.GetClientCertificate = func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return f.clientCert(r.Context()), nil
		}
	}
	if strings.HasPrefix(cfg.Address, "https:") {
		f.stamps = f.stampsNow()
	}
	pool, err := f.roots()
	if err != nil {
		return nil, nil, err
	}
	conf.RootCAs = pool
	return f, conf, nil
}

func tlsFault(why, hint string, err error) *fault.Error {
	return &fault.Error{Kind: fault.Usage, What: "cannot set up TLS", Why: why, Hint: hint, Err: err}
}

// clientCert is the certificate as it is on disk, or as it was when what is there now is no pair: somebody may just be
// replacing the one file after the other, and a disk that does not answer has nothing new.
func (f *tlsFiles) clientCert(ctx context.Context) *tls.Certificate {
	f.reads.do(ctx, filePatience, func() {
		if now := stamps(f.cfg.ClientCert, f.cfg.ClientKey); now != f.of {
			if pair, err := f.readPair(); err == nil {
				f.of = now
				f.pair.Store(pair)
			}
		}
	})
	return f.pair.Load()
}

// changed reports whether a file is not what was last read. It takes the new ones in: the CAs for further connections,
// nil for those of the system as they were read at the start. What cannot be read is as if it had not changed.
func (f *tlsFiles) changed(ctx context.Context) (apply func(*http.Transport), yes bool) {
	var found atomic.Pointer[func(*http.Transport)]
	f.reads.do(ctx, filePatience, func() {
		now := f.stampsNow()
		if now == f.stamps {
			return
		}
		pool, err := f.roots()
		if err != nil {
			return
		}
		f.stamps = now
		if pool == nil {
			pool = systemRoots()
		}
		apply := func(t *http.Transport) {
			if pool != nil {
				t.TLSClientConfig.RootCAs = pool
			}
		}
		found.Store(&apply)
	})
	if apply := found.Load(); apply != nil {
		return *apply, true
	}
	return nil, false
}

// stampsNow tells the files' states apart, of those that count.
func (f *tlsFiles) stampsNow() string {
	files := []string{f.cfg.ClientCert, f.cfg.ClientKey}
	switch {
	case f.cfg.CACert != "":
		files = append(files, f.cfg.CACert)
	case f.cfg.CACertBytes != "":
	case f.cfg.CAPath != "":
		_ = caFiles(f.cfg.CAPath, func(path string) error {
			files = append(files, path)
			return nil
		})
	default:
		files = append(append(files, systemFiles()...), systemFolders()...)
	}
	return stamps(files...)
}

// stamps are made of what changes with a file: which one it is, how long, and when it was written.
func stamps(files ...string) string {
	var b strings.Builder
	for _, path := range files {
		if path == "" {
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			fmt.Fprintf(&b, "%s gone\n", path)
			continue
		}
		var ino uint64
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			ino = st.Ino
		}
		fmt.Fprintf(&b, "%s %d %d %d\n", path, info.Size(), info.ModTime().UnixNano(), ino)
	}
	return b.String()
}

func (f *tlsFiles) readPEM(option, path string) ([]byte, error) {
	return readPEM(option, path, trust.New(f.cfg.AllowOwner))
}

func readPEM(option, path string, files *trust.Checker) ([]byte, error) {
	f, err := files.Open(path)
	var b []byte
	if err == nil {
		b, err = io.ReadAll(f)
		f.Close()
	}
	if err != nil {
		return nil, tlsFault(fmt.Sprintf("cannot read %s %q: %s", option, path, Errno(err)),
			trust.Cure(err, FileHint), err)
	}
	return withoutBOM(b), nil
}

// withoutBOM drops the mark that some editors put before UTF-8. No PEM reader finds a block that it stands before.
func withoutBOM(b []byte) []byte { return bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")) }

const pemHint = "a PEM file has lines that begin with -----BEGIN; `openssl x509 -inform der -in FILE` makes one of a DER file"

// noPEM says what a file holds in place of what.
func noPEM(option, path, what string, b []byte) error {
	why := fmt.Sprintf("no %s in %s %q", what, option, path)
	block, _ := pem.Decode(b)
	switch {
	case len(b) == 0:
		return tlsFault(fmt.Sprintf("%s %q is empty", option, path), "put the PEM there", nil)
	case bytes.HasPrefix(b, []byte("\xff\xfe")), bytes.HasPrefix(b, []byte("\xfe\xff")):
		return tlsFault(fmt.Sprintf("%s %q is UTF-16", option, path), "save it as UTF-8 or ASCII", nil)
	case block == nil && bytes.Contains(b, []byte("-----BEGIN")):
		return tlsFault(why+": it begins with -----BEGIN and does not go on as PEM",
			"compare it with the original: a line break may be missing, or the end", nil)
	case block == nil:
		return tlsFault(why, pemHint, nil)
	case strings.Contains(block.Type, "PRIVATE KEY") && what == "certificate":
		return tlsFault(why+", but a private key", "name the file of the certificate", nil)
	case block.Type == "CERTIFICATE" && what == "private key":
		return tlsFault(why+", but a certificate", "name the file of the key", nil)
	}
	return tlsFault(why+" that can be understood", pemHint, nil)
}

// readPair reads a client certificate and its key.
func (f *tlsFiles) readPair() (*tls.Certificate, error) {
	certFile, keyFile := f.cfg.ClientCert, f.cfg.ClientKey
	cert, err := f.readPEM("--client-cert", certFile)
	if err != nil {
		return nil, err
	}
	key, err := f.readPEM("--client-key", keyFile)
	if err != nil {
		return nil, err
	}
	if !hasBlock(cert, "CERTIFICATE") {
		return nil, noPEM("--client-cert", certFile, "certificate", cert)
	}
	if encrypted(key) {
		return nil, tlsFault(fmt.Sprintf("--client-key %q is encrypted with a passphrase", keyFile),
			"make a copy without it that only this user may read: openssl pkey -in FILE -out KEY", nil)
	}
	if !hasBlock(key, "PRIVATE KEY") {
		return nil, noPEM("--client-key", keyFile, "private key", key)
	}
	pair, err := tls.X509KeyPair(cert, key)
	switch {
	case err == nil:
		return &pair, nil
	case strings.Contains(err.Error(), "private key does not match public key"),
		strings.Contains(err.Error(), "private key type does not match"):
		return nil, tlsFault(fmt.Sprintf("--client-key %q is not the key of --client-cert %q", keyFile, certFile),
			"give the two that were made together; of several certificates the client's own comes first", err)
	}
	// err may quote what it cannot parse.
	return nil, tlsFault(fmt.Sprintf("--client-cert %q or --client-key %q cannot be understood", certFile, keyFile),
		"check them with `openssl x509 -in FILE -noout` and `openssl pkey -in FILE -noout`", err)
}

// hasBlock reports whether a PEM file has a block of a kind.
func hasBlock(b []byte, kind string) bool {
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if strings.HasSuffix(block.Type, kind) {
			return true
		}
	}
	return false
}

// encrypted reports whether a key has a passphrase: by PKCS #8's own type, or by the RFC 1421 header that OpenSSL
// writes.
func encrypted(b []byte) bool {
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "ENCRYPTED PRIVATE KEY" || strings.HasSuffix(block.Type, "PRIVATE KEY") &&
			block.Headers["DEK-Info"] != "" {
			return true
		}
	}
	return false
}
