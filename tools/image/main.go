// Command image packs released binaries into one OCI archive with an image for each architecture. tools/dist runs it.
//
// It lives in a module of its own, so that the library that knows the format never reaches the go.mod of the product. What
// it writes is reproducible: the same binaries give the same bytes, whoever packs them, wherever and whenever. The CA
// certificates, too, come from go.mod, and not from the machine: they are Mozilla's, by golang.org/x/crypto/x509roots.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

const source = "https://github.com/agenticverz/vaultexec"

// The user of the image, and of the folder that volumes are mounted over.
const user = 65532

// packer is one run.
type packer struct {
	version  string // v1.2.3, or Go's pseudo-version
	revision string
	date     time.Time
	licenses map[string]string // file by name
}

func main() {
	out := flag.String("out", "", "the archive to write")
	licenses := flag.String("licenses", "", "files that go with the program: NAME=FILE,…")
	flag.Parse()
	p := &packer{licenses: map[string]string{}}
	for _, l := range strings.FieldsFunc(*licenses, func(r rune) bool { return r == ',' }) {
		name, file, _ := strings.Cut(l, "=")
		p.licenses[name] = file
	}
	if err := p.run(*out, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

// run packs the binaries, each as ARCH=FILE.
func (p *packer) run(out string, binaries []string) error {
	if out == "" || len(binaries) == 0 {
		return fmt.Errorf("usage: image -out FILE ARCH=BINARY…")
	}
	var index v1.ImageIndex = mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, b := range binaries {
		arch, file, _ := strings.Cut(b, "=")
		image, err := p.image(arch, file)
		if err != nil {
			return fmt.Errorf("%s: %w", b, err)
		}
		platform := &v1.Platform{OS: "linux", Architecture: arch}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: platform}})
	}
	index = mutate.Annotations(index, p.labels()).(v1.ImageIndex)
	dir, err := os.MkdirTemp("", "image-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	// As podman and containerd name what they load.
	tag := strings.ReplaceAll(strings.TrimPrefix(p.version, "v"), "+", "-")
	names := map[string]string{
		"org.opencontainers.image.ref.name": tag, "io.containerd.image.name": "localhost/vaultexec:" + tag,
	}
	if err := path.AppendIndex(index, layout.WithAnnotations(names)); err != nil {
		return err
	}
	return p.archive(out, dir)
}

// labels are those of opencontainers/image-spec, annotations.md.
func (p *packer) labels() map[string]string {
	const name = "org.opencontainers.image."
	return map[string]string{
		name + "title":         "vaultexec",
		name + "description":   "starts programs with secrets from HashiCorp Vault",
		name + "version":       p.version,
		name + "revision":      p.revision,
		name + "created":       p.date.UTC().Format(time.RFC3339),
		name + "source":        source,
		name + "url":           source,
		name + "documentation": source + "/blob/" + p.revision + "/README.md",
		name + "licenses":      "Apache-2.0",
	}
}

// image is that of one binary, which says itself what it is.
func (p *packer) image(arch, file string) (v1.Image, error) {
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		return nil, err
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	if settings["GOOS"] != "linux" || settings["GOARCH"] != arch {
		return nil, fmt.Errorf("it is for %s/%s", settings["GOOS"], settings["GOARCH"])
	}
	if p.version != "" && p.revision != settings["vcs.revision"] {
		return nil, fmt.Errorf("it is of another commit")
	}
	p.version, p.revision = info.Main.Version, settings["vcs.revision"]
	if p.date, err = time.Parse(time.RFC3339, settings["vcs.time"]); err != nil {
		return nil, fmt.Errorf("it does not say of when its commit is: %w", err)
	}
	content, err := p.layer(file)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
		tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(gzip.BestCompression))
	if err != nil {
		return nil, err
	}
	created := v1.Time{Time: p.date.UTC()}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err = mutate.Append(image, mutate.Addendum{Layer: layer, MediaType: types.OCILayer,
		History: v1.History{Created: created, CreatedBy: "tools/image", Comment: "vaultexec and CA certificates"}})
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", arch, created
	config.Config = v1.Config{
		// A number, because there is no /etc/passwd, and because Kubernetes' runAsNonRoot can only judge numbers.
		User: fmt.Sprintf("%d:%d", user, user), Entrypoint: []string{"/vaultexec"}, Env: []string{"PATH=/"},
		WorkingDir: "/", Labels: p.labels(),
	}
	image, err = mutate.ConfigFile(image, config)
	if err != nil {
		return nil, err
	}
	return mutate.Annotations(image, p.labels()).(v1.Image), nil
}

// layer is the one layer of an image, as a tar archive.
func (p *packer) layer(binary string) ([]byte, error) {
	w := newArchive(p.date)
	program, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	w.folder("etc", 0)
	w.folder("etc/ssl", 0)
	w.folder("etc/ssl/certs", 0)
	w.file("etc/ssl/certs/ca-certificates.crt", 0o644, certificates())
	// What a volume is mounted over: a new one of Docker's takes its owner from here.
	w.folder("install", user)
	w.folder("licenses", 0)
	for _, name := range []string{"LICENSE", "THIRD-PARTY-LICENSES"} {
		if file, ok := p.licenses[name]; ok {
			text, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			w.file("licenses/"+name, 0o644, text)
		}
	}
	// Not 0711, as it is installed elsewhere: whatever user runs the image has to be able to read it, to copy it.
	w.file("vaultexec", 0o755, program)
	return w.close()
}

// certificates are Mozilla's, as a PEM file has them. Those that Mozilla trusts under conditions are left out: a PEM file
// cannot say these.
func certificates() []byte {
	var b bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}) // a buffer takes everything
		}
	}
	return b.Bytes()
}

// archive writes the folder of a layout as one file, and what its sum is on standard output.
func (p *packer) archive(out, dir string) error {
	w := newArchive(p.date)
	err := filepath.WalkDir(dir, func(file string, e fs.DirEntry, err error) error {
		if err != nil || file == dir {
			return err
		}
		name, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		if e.IsDir() {
			w.folder(name, 0)
			return nil
		}
		content, err := os.ReadFile(file)
		if err == nil {
			w.file(name, 0o644, content)
		}
		return err
	})
	if err != nil {
		return err
	}
	content, err := w.close()
	if err != nil {
		return err
	}
	fmt.Printf("%x  %s\n", sha256.Sum256(content), filepath.Base(out))
	return os.WriteFile(out, content, 0o644)
}

// archive is a tar file in memory: no names of users, no groups, and one time.
type archive struct {
	date time.Time
	buf  bytes.Buffer
	tar  *tar.Writer
	err  error
}

func newArchive(date time.Time) *archive {
	a := &archive{date: date}
	a.tar = tar.NewWriter(&a.buf)
	return a
}

func (a *archive) folder(name string, owner int) {
	a.add(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755, Uid: owner, Gid: owner}, nil)
}

func (a *archive) file(name string, mode int64, content []byte) {
	a.add(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content))}, content)
}

func (a *archive) add(h *tar.Header, content []byte) {
	h.ModTime, h.Format = a.date, tar.FormatUSTAR
	if a.err == nil {
		a.err = a.tar.WriteHeader(h)
	}
	if a.err == nil {
		_, a.err = a.tar.Write(content)
	}
}

func (a *archive) close() ([]byte, error) {
	if err := a.tar.Close(); a.err == nil {
		a.err = err
	}
	return a.buf.Bytes(), a.err
}
