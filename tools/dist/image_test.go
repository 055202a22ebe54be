package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/podmantest"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// descriptor and the types below are what this test reads of opencontainers/image-spec.
type descriptor struct {
	MediaType   string
	Digest      string
	Size        int64
	Platform    struct{ OS, Architecture string }
	Annotations map[string]string
}

type manifest struct {
	Manifests   []descriptor // of an index
	Config      descriptor
	Layers      []descriptor
	Annotations map[string]string
}

type imageConfig struct {
	Architecture, OS, Created string
	Config                    struct {
		User       string
		Env        []string
		Entrypoint []string
		Labels     map[string]string
	}
}

// unpacked is a tar archive: its headers and contents by name.
type unpacked map[string]struct {
	*tar.Header
	content []byte
}

func unpack(t *testing.T, r io.Reader) unpacked {
	t.Helper()
	all := unpacked{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		if h.ModTime.Unix() != 1767323045 || h.Uname != "" || h.Gname != "" {
			t.Errorf("%s: %v, user %q, group %q", h.Name, h.ModTime, h.Uname, h.Gname)
		}
		all[h.Name] = struct {
			*tar.Header
			content []byte
		}{h, content}
	}
}

// blob reads what a descriptor says, which has to be true.
func (u unpacked) blob(t *testing.T, d descriptor) []byte {
	t.Helper()
	sum, ok := strings.CutPrefix(d.Digest, "sha256:")
	content := u["blobs/sha256/"+sum].content
	if !ok || fmt.Sprintf("%x", sha256.Sum256(content)) != sum || int64(len(content)) != d.Size {
		t.Fatalf("%+v is not there, or another", d)
	}
	return content
}

func decode(t *testing.T, text []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
}

// TestImage builds the image twice, from two folders, and finds the same bytes. It is what it should be, podman loads and runs it,
// and what is in it for arm64 runs under qemu.
func TestImage(t *testing.T) {
	t.Parallel()
	root, err := vaulttest.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	tool, base := vaulttest.BuildStatic(t, "tools/dist"), t.TempDir()
	outs := []string{filepath.Join(base, "first", "out"), filepath.Join(base, "another-folder", "second", "out")}
	var commit string
	for i, out := range outs {
		dir := filepath.Join(filepath.Dir(out), "src")
		checkout(t, root, dir)
		cmd := exec.Command(tool, "-tags", makeVariable(t, root, "TAGS"), "-platforms", "linux/amd64,linux/arm64", "-image", "-out", out)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
		if i == 1 {
			cmd.Env = append(cmd.Env, "TZ=Asia/Tokyo", "LC_ALL=C", "SSL_CERT_FILE=/dev/null", "TMPDIR="+t.TempDir())
		}
		if b, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("dist: %v\n%s", err, b)
		}
		head := exec.Command("git", "-C", dir, "-c", "safe.directory=*", "rev-parse", "HEAD")
		b, err := head.Output()
		if err != nil {
			t.Fatal(err)
		}
		commit = strings.TrimSpace(string(b))
	}
	file := find(t, outs[0], "_image.oci.tar")
	if !bytes.Equal(read(t, file), read(t, find(t, outs[1], "_image.oci.tar"))) {
		t.Error("two builds differ")
	}
	sum := fmt.Sprintf("%x  %s\n", sha256.Sum256(read(t, file)), filepath.Base(file))
	if !strings.Contains(string(read(t, filepath.Join(outs[0], "SHA256SUMS"))), sum) {
		t.Errorf("the checksums lack %s", sum)
	}

	all := unpack(t, bytes.NewReader(read(t, file)))
	var top, index manifest
	decode(t, all["index.json"].content, &top)
	if len(top.Manifests) != 1 {
		t.Fatalf("%d images: podman would ask which", len(top.Manifests))
	}
	name := top.Manifests[0].Annotations["io.containerd.image.name"]
	decode(t, all.blob(t, top.Manifests[0]), &index)
	if len(index.Manifests) != 2 {
		t.Fatalf("%+v", index)
	}
	binaries := map[string][]byte{}
	for _, d := range index.Manifests {
		if d.Platform.OS != "linux" || d.MediaType != "application/vnd.oci.image.manifest.v1+json" {
			t.Errorf("%+v", d)
		}
		binaries[d.Platform.Architecture] = checkImage(t, all, d, commit)
	}
	t.Run("amd64", func(t *testing.T) {
		p := podmantest.New(t)
		if out := p.Must(t, "load", "--input", file); !strings.Contains(out, "Loaded image: "+name+"\n") {
			t.Errorf("podman load says %s", out)
		}
		run := func(args ...string) string {
			return p.Must(t, append([]string{"run", "--rm", "--network", "none", "--read-only", "--cap-drop", "ALL"}, args...)...)
		}
		const version = "v0.0.0-20260102030405-"
		if out := run(name, "--version"); !strings.HasPrefix(out, "vaultexec "+version) {
			t.Errorf("it says %q", out)
		}
		// A new volume belongs to the image's user; one that is open to everybody takes any.
		if out := run("--volume", "new:/install", name, "install", "/install"); !strings.HasPrefix(out, "/install/vaultexec "+version) {
			t.Errorf("it says %q", out)
		}
		open := t.TempDir()
		if err := os.Chmod(open, 0o777); err != nil {
			t.Fatal(err)
		}
		run("--user", "1000690000", "--volume", open+":/vol", name, "install", "/vol")
		if installed := read(t, filepath.Join(open, "vaultexec")); !bytes.Equal(installed, binaries["amd64"]) {
			t.Error("it installs something else")
		}
	})
	t.Run("arm64", func(t *testing.T) {
		qemu := needs.Program(t, "qemu-aarch64")
		program := filepath.Join(t.TempDir(), "vaultexec")
		if err := os.WriteFile(program, binaries["arm64"], 0o755); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(qemu, program, "--version").CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), "vaultexec v0.0.0-20260102030405-") {
			t.Errorf("%v %s", err, out)
		}
	})
}

// checkImage looks at the image of one architecture and returns its program.
func checkImage(t *testing.T, all unpacked, d descriptor, commit string) []byte {
	t.Helper()
	var m manifest
	var c imageConfig
	decode(t, all.blob(t, d), &m)
	decode(t, all.blob(t, m.Config), &c)
	arch := d.Platform.Architecture
	if c.OS != "linux" || c.Architecture != arch || c.Created != "2026-01-02T03:04:05Z" {
		t.Errorf("%+v", c)
	}
	if c.Config.User != "65532:65532" || !slices.Equal(c.Config.Entrypoint, []string{"/vaultexec"}) {
		t.Errorf("%+v", c.Config)
	}
	const label = "org.opencontainers.image."
	for name, want := range map[string]string{"title": "vaultexec", "revision": commit, "created": c.Created, "licenses": "Apache-2.0",
		"source": "https://github.com/agenticverz/vaultexec"} {
		if c.Config.Labels[label+name] != want || m.Annotations[label+name] != want {
			t.Errorf("%s: label %q, annotation %q, want %q", name, c.Config.Labels[label+name], m.Annotations[label+name], want)
		}
	}
	if !strings.HasPrefix(c.Config.Labels[label+"version"], "v0.0.0-20260102030405-") {
		t.Errorf("version %q", c.Config.Labels[label+"version"])
	}
	if len(m.Layers) != 1 {
		t.Fatalf("%d layers", len(m.Layers))
	}
	zip, err := gzip.NewReader(bytes.NewReader(all.blob(t, m.Layers[0])))
	if err != nil {
		t.Fatal(err)
	}
	layer := unpack(t, zip)
	want := map[string]string{
		"etc/": "0755 0", "etc/ssl/": "0755 0", "etc/ssl/certs/": "0755 0", "etc/ssl/certs/ca-certificates.crt": "0644 0",
		"install/": "0755 65532", "licenses/": "0755 0", "licenses/LICENSE": "0644 0", "licenses/THIRD-PARTY-LICENSES": "0644 0",
		"vaultexec": "0755 0",
	}
	for name, h := range layer {
		if got := fmt.Sprintf("%04o %d", h.Mode, h.Uid); got != want[name] || h.Gid != h.Uid {
			t.Errorf("%s: %s, want %q", name, got, want[name])
		}
	}
	if len(layer) != len(want) {
		t.Errorf("%d files, want %d", len(layer), len(want))
	}
	// Roots that most of the web hangs on; each is a CA.
	var names []string
	for rest := layer["etc/ssl/certs/ca-certificates.crt"].content; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil || !cert.IsCA {
			t.Fatalf("%v: %v", err, cert)
		}
		names = append(names, cert.Subject.CommonName)
	}
	if len(names) < 80 || !slices.Contains(names, "ISRG Root X1") || !slices.Contains(names, "DigiCert Global Root G2") {
		t.Errorf("%d CAs: %q", len(names), names)
	}
	return layer["vaultexec"].content
}
