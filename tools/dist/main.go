// Command dist builds a release into dist/: static binaries for Linux and macOS as archives, packages for Debian and
// RPM, an image for containers, a list of what is in each binary (CycloneDX), and the checksums of it all.
//
// It is reproducible: the same commit and the same Go give the same bytes, whoever builds, wherever and whenever. The
// commit names and dates the files, as go build stamps it into the binary; so a release is built from a clean checkout.
// Paths, users, groups and the clock of the machine are nowhere in it.
package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

const (
	name   = "vaultexec"
	module = "github.com/agenticverz/vaultexec"
)

// release is one run.
type release struct {
	out       string // dist
	tags      string // of go build
	nfpm      string // module@version of the packager; "" for no packages
	image     bool   // an OCI archive of the binaries for Linux
	platforms []string

	version string    // v1.2.3, or Go's pseudo-version
	date    time.Time // of the commit
}

func main() {
	r := &release{}
	flag.StringVar(&r.out, "out", "dist", "folder for the result")
	flag.StringVar(&r.tags, "tags", "", "build tags")
	flag.StringVar(&r.nfpm, "nfpm", "", "MODULE@VERSION of nfpm; without it no packages are made")
	flag.BoolVar(&r.image, "image", false, "make an OCI archive of the binaries for Linux")
	platforms := flag.String("platforms", "linux/amd64,linux/arm64,darwin/amd64,darwin/arm64", "OS/ARCH,…")
	flag.Parse()
	r.platforms = strings.Split(*platforms, ",")
	if err := r.run(); err != nil {
		fmt.Fprintln(os.Stderr, "dist:", err)
		os.Exit(1)
	}
}

func (r *release) run() error {
	work, err := os.MkdirTemp("", "dist-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := os.MkdirAll(r.out, 0o755); err != nil {
		return err
	}
	// What an earlier run has left would be among the checksums.
	old, err := r.files()
	if err != nil {
		return err
	}
	for _, f := range old {
		if err := os.Remove(filepath.Join(r.out, f)); err != nil {
			return err
		}
	}
	for _, platform := range r.platforms {
		if err := r.platform(platform, filepath.Join(work, strings.ReplaceAll(platform, "/", "_"))); err != nil {
			return fmt.Errorf("%s: %w", platform, err)
		}
	}
	if err := r.container(work); err != nil {
		return err
	}
	return r.checksums()
}

// container packs the binaries for Linux into one OCI archive.
func (r *release) container(work string) error {
	if !r.image {
		return nil
	}
	file, err := filepath.Abs(filepath.Join(r.out, name+"_"+r.version+"_image.oci.tar"))
	if err != nil {
		return err
	}
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	args := []string{"run", ".", "-out", file}
	for _, platform := range r.platforms {
		arch, ok := strings.CutPrefix(platform, "linux/")
		if !ok {
			continue
		}
		dir := filepath.Join(work, "linux_"+arch)
		if len(args) == 4 { // the licenses are the same for every architecture
			args = append(args, "-licenses", "LICENSE="+filepath.Join(root, "LICENSE")+
				",THIRD-PARTY-LICENSES="+filepath.Join(dir, "THIRD-PARTY-LICENSES"))
		}
		args = append(args, arch+"="+filepath.Join(dir, name))
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = "tools/image"
	cmd.Env = append(os.Environ(), "GOFLAGS=", "CGO_ENABLED=0", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("tools/image: %w\n%s", err, out)
	}
	return nil
}

// platform makes everything of one binary.
func (r *release) platform(platform, dir string) error {
	goos, arch, ok := strings.Cut(platform, "/")
	if !ok {
		return errors.New("not of the form OS/ARCH")
	}
	binary := filepath.Join(dir, name)
	info, err := r.build(goos, arch, binary)
	if err != nil {
		return err
	}
	licenses, err := licenses(info)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "THIRD-PARTY-LICENSES"), licenses, 0o644); err != nil {
		return err
	}
	if err := manual(filepath.Join(dir, "man1")); err != nil {
		return err
	}
	base := strings.Join([]string{name, r.version, goos, arch}, "_")
	if err := r.archive(base, dir); err != nil {
		return err
	}
	bom, err := r.sbom(info, goos, arch)
	if err != nil {
		return err
	}
	if err := r.write(base+".sbom.json", bom); err != nil {
		return err
	}
	if goos != "linux" || r.nfpm == "" {
		return nil
	}
	return r.packages(arch, dir)
}

// manual writes the pages as packages have them.
func manual(dir string) error {
	pages, err := filepath.Glob("docs/man/*.1")
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for _, file := range append(pages, "docs/vaultexec.1") {
		page, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(file)+".gz"), zipped(page), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// build compiles, and takes version and date from what go has stamped into the binary.
func (r *release) build(goos, arch, binary string) (*debug.BuildInfo, error) {
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=true", "-tags", r.tags, "-ldflags", "-s -w",
		"-o", binary, ".")
	// Settings of the machine do not count.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+goos, "GOARCH="+arch, "GOFLAGS=", "GOEXPERIMENT=",
		"GOAMD64=v1", "GOARM64=v8.0", "GOWORK=off")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("go build: %w", err)
	}
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	if settings["vcs.revision"] == "" {
		return nil, errors.New("this is no git checkout, or git is missing: a release is named by its commit")
	}
	if settings["vcs.modified"] != "false" {
		return nil, errors.New("the checkout differs from its commit: commit or take back what git status shows")
	}
	r.version = info.Main.Version
	r.date, err = time.Parse(time.RFC3339, settings["vcs.time"])
	return info, err
}

// completions is where the scripts for the shells lie.
const completions = "internal/cli/completion"

// documents is what goes with the binary, by its place in the archive.
func documents() (map[string]string, error) {
	from := map[string]string{"LICENSE": "LICENSE", "README.md": "README.md", "CHANGELOG.md": "CHANGELOG.md"}
	for pattern, to := range map[string]string{"docs/*.*": "docs", "docs/man/*": "docs/man", completions + "/*": "completion"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			from[path.Join(to, path.Base(f))] = f
		}
	}
	return from, nil
}

// archive writes base.tar.gz with one folder of that name in it.
func (r *release) archive(base, dir string) error {
	from, err := documents()
	if err != nil {
		return err
	}
	for _, f := range []string{name, "THIRD-PARTY-LICENSES"} {
		from[f] = filepath.Join(dir, f)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range slices.Sorted(maps.Keys(from)) {
		content, err := os.ReadFile(from[f])
		if err != nil {
			return err
		}
		mode := int64(0o644)
		if f == name {
			mode = 0o711 // as it is installed (SECURITY.md)
		}
		// No user, no group, and the commit's time.
		if err := w.WriteHeader(&tar.Header{Name: path.Join(base, f), Mode: mode, Size: int64(len(content)),
			ModTime: r.date, Format: tar.FormatUSTAR}); err != nil {
			return err
		}
		if _, err := w.Write(content); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return r.write(base+".tar.gz", zipped(b.Bytes()))
}

// zipped is gzip -n -9: without a name and a time.
func zipped(b []byte) []byte {
	var out bytes.Buffer
	w, _ := gzip.NewWriterLevel(&out, gzip.BestCompression) // the level is one that there is
	_, _ = w.Write(b)                                       // a buffer takes everything
	_ = w.Close()
	return out.Bytes()
}

// licenses are the licenses of every module in the binary, and of Go's own library: most ask to be handed on with it.
func licenses(info *debug.BuildInfo) ([]byte, error) {
	args := []string{"list", "-m", "-f", "{{.Path}}\t{{.Version}}\t{{.Dir}}"}
	for _, m := range info.Deps {
		args = append(args, m.Path)
	}
	list, err := exec.Command("go", args...).Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	lines := append(strings.Split(strings.TrimSpace(string(list)), "\n"),
		"Go\t"+strings.Fields(info.GoVersion)[0]+"\t"+strings.TrimSpace(string(root)))
	var b bytes.Buffer
	for _, line := range lines {
		f := strings.Split(line, "\t")
		found := false
		entries, err := os.ReadDir(f[2])
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			stem, _, _ := strings.Cut(strings.ToUpper(e.Name()), ".")
			if e.IsDir() || !slices.Contains([]string{"LICENSE", "LICENCE", "COPYING", "NOTICE", "COPYRIGHT"}, stem) {
				continue
			}
			text, err := os.ReadFile(filepath.Join(f[2], e.Name()))
			if err != nil {
				return nil, err
			}
			found = true
			fmt.Fprintf(&b, "==== %s %s: %s ====\n\n%s\n\n", f[0], f[1], e.Name(), bytes.TrimSpace(text))
		}
		if !found && f[0] != "Go" { // distributions keep Go's elsewhere
			return nil, fmt.Errorf("no license in %s", f[0])
		}
	}
	return b.Bytes(), nil
}

// component is one entry of the list of materials, in the words of CycloneDX 1.6.
type component struct {
	Type       string     `json:"type"`
	Ref        string     `json:"bom-ref"`
	Name       string     `json:"name"`
	Version    string     `json:"version"`
	Purl       string     `json:"purl"`
	Properties []property `json:"properties,omitempty"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// sbom lists the modules that are in the binary, as the binary itself says.
func (r *release) sbom(info *debug.BuildInfo, goos, arch string) ([]byte, error) {
	purl := func(path, version string) string { return "pkg:golang/" + path + "@" + version }
	main := component{Type: "application", Name: name, Version: r.version,
		Purl: purl(module, r.version) + "?goos=" + goos + "&goarch=" + arch}
	main.Ref = main.Purl
	for _, s := range info.Settings {
		main.Properties = append(main.Properties, property{"go:build:" + s.Key, s.Value})
	}
	goVersion := strings.TrimPrefix(strings.Fields(info.GoVersion)[0], "go")
	parts := []component{{Type: "library", Ref: purl("std", goVersion), Name: "std", Version: goVersion,
		Purl: purl("std", goVersion)}}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		parts = append(parts, component{Type: "library", Ref: purl(m.Path, m.Version), Name: m.Path, Version: m.Version,
			Purl:       purl(m.Path, m.Version),
			Properties: []property{{"go:sum", m.Sum}}})
	}
	slices.SortFunc(parts, func(a, b component) int { return cmp.Compare(a.Ref, b.Ref) })
	refs := make([]string, len(parts))
	for i, p := range parts {
		refs[i] = p.Ref
	}
	type dependency struct {
		Ref       string   `json:"ref"`
		DependsOn []string `json:"dependsOn"`
	}
	bom := struct {
		Schema   string `json:"$schema"`
		Format   string `json:"bomFormat"`
		Spec     string `json:"specVersion"`
		Version  int    `json:"version"`
		Metadata struct {
			Timestamp string    `json:"timestamp"`
			Component component `json:"component"`
		} `json:"metadata"`
		Components   []component  `json:"components"`
		Dependencies []dependency `json:"dependencies"`
	}{Schema: "http://cyclonedx.org/schema/bom-1.6.schema.json", Format: "CycloneDX", Spec: "1.6", Version: 1,
		Components:   parts,
		Dependencies: []dependency{{main.Ref, refs}}}
	bom.Metadata.Timestamp, bom.Metadata.Component = r.date.UTC().Format(time.RFC3339), main
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(bom)
	return b.Bytes(), err
}

// packages makes the packages of one architecture from nfpm.yaml.
func (r *release) packages(arch, dir string) error {
	template, err := os.ReadFile("tools/dist/nfpm.yaml")
	if err != nil {
		return err
	}
	for _, kind := range []string{"deb", "rpm"} {
		values := map[string]string{
			"VERSION": r.version, "ARCH": arch, "BUILT": dir, "DATE": r.date.UTC().Format(time.RFC3339),
			// Where each family's zsh looks.
			"ZSH": map[string]string{"deb": "vendor-completions", "rpm": "site-functions"}[kind],
		}
		config := filepath.Join(dir, kind+".yaml")
		if err := os.WriteFile(config,
			[]byte(os.Expand(string(template), func(name string) string { return values[name] })), 0o644); err != nil {
			return err
		}
		cmd := exec.Command("go", "run", r.nfpm, "package", "-f", config, "-p", kind, "-t", r.out+"/")
		cmd.Env = append(os.Environ(), fmt.Sprint("SOURCE_DATE_EPOCH=", r.date.Unix()), "GOFLAGS=", "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("nfpm: %w\n%s", err, out)
		}
	}
	return nil
}

func (r *release) write(file string, content []byte) error {
	return os.WriteFile(filepath.Join(r.out, file), content, 0o644)
}

// files are those of a release in the folder, sorted.
func (r *release) files() ([]string, error) {
	entries, err := os.ReadDir(r.out)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if e.Type().IsRegular() && strings.HasPrefix(e.Name(), name) {
			files = append(files, e.Name())
		}
	}
	return files, nil
}

// checksums writes what sha256sum -c reads.
func (r *release) checksums() error {
	files, err := r.files()
	if err != nil {
		return err
	}
	var b bytes.Buffer
	for _, f := range files {
		content, err := os.ReadFile(filepath.Join(r.out, f))
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%x  %s\n", sha256.Sum256(content), f)
	}
	return r.write("SHA256SUMS", b.Bytes())
}
