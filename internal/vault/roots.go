package vault

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/trust"
)

// roots reads the CAs, nil for those of the system. A file wins over the text, and that over the folder.
func (f *tlsFiles) roots() (*x509.CertPool, error) {
	switch {
	case f.cfg.CACert != "":
		pool := x509.NewCertPool()
		b, err := f.readPEM("--ca-cert", f.cfg.CACert)
		if err != nil {
			return nil, err
		}
		if !pool.AppendCertsFromPEM(b) {
			return nil, noPEM("--ca-cert", f.cfg.CACert, "certificate", b)
		}
		return pool, nil
	case f.cfg.CACertBytes != "":
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(withoutBOM([]byte(f.cfg.CACertBytes))) {
			return nil, tlsFault("no certificate in VAULT_CACERT_BYTES",
				"put the PEM text itself there, with its line breaks; VAULT_CACERT names a file", nil)
		}
		return pool, nil
	case f.cfg.CAPath != "":
		return f.rootsOf(f.cfg.CAPath)
	}
	return nil, f.checkNamedRoots()
}

// checkNamedRoots looks at the CAs that SSL_CERT_FILE and SSL_CERT_DIR name in place of the system's. Go reads them,
// whoever may write them, and only at the first handshake. So what is not there yet must be somewhere that nobody else
// can put it.
func (f *tlsFiles) checkNamedRoots() error {
	if u, err := url.Parse(f.cfg.Address); err != nil || u.Scheme != "https" {
		return nil
	}
	files := trust.New(f.cfg.AllowOwner)
	check := func(option, path string) error {
		_, err := readPEM(option, path, files)
		switch {
		case trust.Refused(err):
			return err
		case err != nil:
			return f.closed(option, path, filepath.Dir(path))
		}
		return nil
	}
	if path := os.Getenv("SSL_CERT_FILE"); path != "" && !ofSystem(path, linuxFiles) {
		if err := check("SSL_CERT_FILE", path); err != nil {
			return err
		}
	}
	for _, dir := range filepath.SplitList(os.Getenv("SSL_CERT_DIR")) {
		if ofSystem(dir, linuxFolders) {
			continue
		}
		if err := f.closed("SSL_CERT_DIR", dir, dir); err != nil {
			return err
		}
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			if isDir(path) {
				continue
			}
			if err := check("SSL_CERT_DIR", path); err != nil {
				return err
			}
		}
	}
	return nil
}

// CheckNamedRoots is for those who speak TLS with somebody else than Vault, by Go's own CAs: it fails where others may change those that
// SSL_CERT_FILE and SSL_CERT_DIR name.
func CheckNamedRoots(allow ...int) error {
	return (&tlsFiles{cfg: Config{Address: "https:", AllowOwner: allow}}).checkNamedRoots()
}

// closed fails for a folder into which others may put a file.
func (f *tlsFiles) closed(option, path, dir string) error {
	err := trust.Closed(dir, f.cfg.AllowOwner)
	if err == nil {
		return nil
	}
	return tlsFault(fmt.Sprintf("cannot use %s %q: %s", option, path, err), "name one that is there, in a folder that nobody else may write to, or unset "+option, err)
}

// rootsOf reads the certificates in a folder and below. It skips other files that lie there, as long as there is one.
func (f *tlsFiles) rootsOf(dir string) (*x509.CertPool, error) {
	pool, found := x509.NewCertPool(), false
	var skipped []string
	files := trust.New(f.cfg.AllowOwner)
	err := caFiles(dir, func(path string) error {
		b, err := readPEM("--ca-path", path, files)
		if err != nil {
			return err
		}
		if pool.AppendCertsFromPEM(b) {
			found = true
		} else {
			skipped = append(skipped, path)
		}
		return nil
	})
	var own *fault.Error
	switch {
	case errors.As(err, &own):
		return nil, own
	case err != nil:
		return nil, tlsFault(fmt.Sprintf("cannot read --ca-path %q: %s", dir, Errno(err)), FileHint, err)
	case !found && len(skipped) > 0:
		return nil, tlsFault(fmt.Sprintf("no certificate in --ca-path %q (looked at %s)", dir, fewNames(skipped)),
			pemHint, nil)
	case !found:
		return nil, tlsFault(fmt.Sprintf("no file in --ca-path %q", dir), "name a folder of PEM files", nil)
	}
	if len(skipped) > 0 && f.cfg.Skipped != nil {
		f.cfg.Skipped(skipped)
	}
	return pool, nil
}

// fewNames lists the first files, and how many more there are.
func fewNames(files []string) string {
	if n := len(files); n > 2 {
		return fmt.Sprintf("%q and %d more", files[0], n-1)
	}
	return strings.Trim(fmt.Sprintf("%q", files), "[]")
}

// caFiles calls f for every file in a folder and in those below it. Kubernetes projects a volume as links: ca.crt leads
// to ..data/ca.crt, and ..data to a folder with the time in its name, ..2026_01_01_00_00_00.1. What is behind such
// names is met through the links.
func caFiles(dir string, f func(path string) error) error {
	return walkCA(dir, 0, f)
}

// maxDepth bounds how deep folders are looked into, links that go round included.
const maxDepth = 8

func walkCA(dir string, depth int, f func(path string) error) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		info, err := os.Stat(path)
		switch {
		case strings.HasPrefix(e.Name(), ".."), errors.Is(err, fs.ErrNotExist):
			// The latter is a link that leads nowhere, or what was just removed.
			continue
		case err != nil:
		case info.IsDir() && depth < maxDepth:
			err = walkCA(path, depth+1, f)
		case info.Mode().IsRegular():
			err = f(path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Where Go finds the CAs of a Linux system, in its order (crypto/x509, root_linux.go).
var (
	linuxFiles = []string{
		"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
		"/etc/pki/tls/cacert.pem", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem",
	}
	linuxFolders = []string{"/etc/ssl/certs", "/etc/pki/tls/certs"}
)

// ofSystem reports whether a variable only names what Go goes by without it, and nobody looks at there either.
func ofSystem(path string, list []string) bool {
	return runtime.GOOS == "linux" && slices.Contains(list, filepath.Clean(path))
}

// systemFiles are where Go finds the CAs of the system. Go reads them once.
func systemFiles() []string {
	if f := os.Getenv("SSL_CERT_FILE"); f != "" {
		return []string{f}
	}
	if runtime.GOOS != "linux" {
		return nil
	}
	return linuxFiles
}

func systemFolders() []string {
	if d := os.Getenv("SSL_CERT_DIR"); d != "" {
		return filepath.SplitList(d)
	}
	if runtime.GOOS != "linux" {
		return nil
	}
	return linuxFolders
}

// systemRoots reads the CAs of the system as they are now: the first file that is there, and the folders. It is nil
// where there are none, and where the system itself verifies (macOS).
func systemRoots() *x509.CertPool {
	pool, found := x509.NewCertPool(), false
	for _, file := range systemFiles() {
		if b, err := os.ReadFile(file); err == nil {
			found = pool.AppendCertsFromPEM(b) || found
			break
		}
	}
	for _, dir := range systemFolders() {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if b, err := os.ReadFile(filepath.Join(dir, e.Name())); err == nil {
				found = pool.AppendCertsFromPEM(b) || found
			}
		}
	}
	if !found {
		return nil
	}
	return pool
}
