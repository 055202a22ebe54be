package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

func TestMain(m *testing.M) { vaulttest.Main(m) }

// makeVariable reads a variable of the Makefile.
func makeVariable(t *testing.T, root, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^` + name + ` *\?= *(.*)$`).FindSubmatch(b)
	if m == nil {
		t.Fatalf("the Makefile has no %s", name)
	}
	return string(m[1])
}

// checkout copies what git would track into a new repository with one commit, always the same one: what is tested is the
// working tree and not the last commit.
func checkout(t *testing.T, root, dir string) {
	t.Helper()
	git := needs.Program(t, "git")
	list := exec.Command(git, "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	for _, file := range strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		from := filepath.Join(root, file)
		info, err := os.Stat(from)
		if os.IsNotExist(err) { // deleted, and not yet committed
			continue
		}
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, b, info.Mode().Perm()); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"init", "-q"}, {"add", "-A"}, {"commit", "-q", "-m", "release"}} {
		cmd := exec.Command(git, args...)
		cmd.Dir = dir
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir + "-home", "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example", "GIT_COMMITTER_NAME=a",
			"GIT_COMMITTER_EMAIL=a@example", "GIT_AUTHOR_DATE=2026-01-02T03:04:05Z", "GIT_COMMITTER_DATE=2026-01-02T03:04:05Z"}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
}

// TestDist builds a release twice, from two folders, and finds the same bytes; and what is in it runs. By itself it makes
// linux/amd64 out of one build cache; make dist-check makes everything, and compiles everything twice.
func TestDist(t *testing.T) {
	t.Parallel()
	root, err := vaulttest.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	all := os.Getenv("DIST_CHECK") == "all"
	platforms := "linux/amd64"
	if all {
		platforms = "linux/amd64,linux/arm64,darwin/amd64,darwin/arm64"
	}
	tags, nfpm := makeVariable(t, root, "TAGS"), makeVariable(t, root, "NFPM")
	tool := vaulttest.BuildStatic(t, "tools/dist")
	base := t.TempDir()
	outs := []string{filepath.Join(base, "first", "out"), filepath.Join(base, "another-folder", "second", "out")}
	for i, out := range outs {
		dir := filepath.Join(filepath.Dir(out), "src")
		checkout(t, root, dir)
		cmd := exec.Command(tool, "-tags", tags, "-nfpm", nfpm, "-platforms", platforms, "-out", out)
		if all {
			cmd.Args = append(cmd.Args, "-image")
		}
		cmd.Dir = dir
		// What the second one's machine has set must not show.
		cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
		if all {
			cmd.Env = append(cmd.Env, "GOCACHE="+filepath.Join(base, "cache", filepath.Base(filepath.Dir(out))))
		}
		if i == 1 {
			cmd.Env = append(cmd.Env, "TZ=Asia/Tokyo", "LC_ALL=C", "GOAMD64=v3", "HOSTNAME=elsewhere")
		}
		if b, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("dist: %v\n%s", err, b)
		}
	}
	names := files(t, outs[0])
	if other := files(t, outs[1]); !slices.Equal(names, other) {
		t.Fatalf("%v and %v", names, other)
	}
	for _, name := range names {
		if !bytes.Equal(read(t, filepath.Join(outs[0], name)), read(t, filepath.Join(outs[1], name))) {
			t.Errorf("%s differs between two builds", name)
		}
	}
	for _, want := range []string{`_linux_amd64\.tar\.gz$`, `_linux_amd64\.sbom\.json$`, `_amd64\.deb$`, `\.x86_64\.rpm$`, `^SHA256SUMS$`} {
		if !slices.ContainsFunc(names, regexp.MustCompile(want).MatchString) {
			t.Errorf("no %s among %v", want, names)
		}
	}
	if all && len(names) != 4*2+2*2+2 {
		t.Errorf("%d files: %v", len(names), names)
	}
	cmd := exec.Command(needs.Program(t, "sha256sum"), "-c", "--quiet", "SHA256SUMS")
	cmd.Dir = outs[0]
	if out, err := cmd.CombinedOutput(); err != nil || bytes.Count(read(t, filepath.Join(outs[0], "SHA256SUMS")), []byte("\n")) != len(names)-1 {
		t.Errorf("sha256sum -c: %v %s", err, out)
	}
	const version = "v0.0.0-20260102030405-"
	t.Run("archive", func(t *testing.T) { checkArchive(t, find(t, outs[0], "_linux_amd64.tar.gz"), version) })
	t.Run("sbom", func(t *testing.T) { checkSBOM(t, root, find(t, outs[0], "_linux_amd64.sbom.json")) })
	t.Run("deb", func(t *testing.T) {
		dir := t.TempDir()
		if out, err := exec.Command(needs.Program(t, "dpkg-deb"), "-x", find(t, outs[0], "_amd64.deb"), dir).CombinedOutput(); err != nil {
			t.Fatalf("dpkg-deb: %v %s", err, out)
		}
		checkTree(t, dir, "vendor-completions", version)
		if os.Getuid() != 0 {
			return
		}
		// And as dpkg itself installs it, into a system that has nothing else.
		system := t.TempDir()
		for _, d := range []string{"var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers"} {
			if err := os.MkdirAll(filepath.Join(system, d), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(system, "var/lib/dpkg/status"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(needs.Program(t, "dpkg"), "--root="+system, "--force-script-chrootless", "-i", find(t, outs[0], "_amd64.deb")).CombinedOutput()
		if err != nil {
			t.Fatalf("dpkg -i: %v\n%s", err, out)
		}
		checkTree(t, system, "vendor-completions", version)
	})
	t.Run("rpm", func(t *testing.T) {
		rpm := needs.Program(t, "rpm")
		out, err := exec.Command(rpm, "-qp", "--qf", "%{BUILDHOST} %{LICENSE} %{BUILDTIME}\n[%{FILEMODES:perms} %{FILENAMES}\n]", find(t, outs[0], ".x86_64.rpm")).CombinedOutput()
		if err != nil {
			t.Fatalf("rpm: %v %s", err, out)
		}
		for _, want := range []string{"localhost Apache-2.0 1767323045\n", "-rwx--x--x /usr/bin/vaultexec\n", "/usr/share/man/man1/vaultexec.1.gz\n", "-rw-r--r-- /usr/share/man/man1/vaultexec-rotate.1.gz\n", "/usr/share/zsh/site-functions/_vaultexec\n"} {
			if !strings.Contains(string(out), want) {
				t.Errorf("the package has no %q:\n%s", want, out)
			}
		}
	})
}

// A release of what no commit says would be named wrongly.
func TestDistRefusesAChangedCheckout(t *testing.T) {
	t.Parallel()
	root, err := vaulttest.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "src")
	checkout(t, root, dir)
	if err := os.WriteFile(filepath.Join(dir, "README.md"), []byte("changed"), 0o644); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	cmd := exec.Command(vaulttest.BuildStatic(t, "tools/dist"), "-platforms", "linux/amd64", "-tags", makeVariable(t, root, "TAGS"), "-out", out)
	cmd.Dir = dir
	if b, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(b), "differs from its commit") || len(files(t, out)) > 0 {
		t.Errorf("%v\n%s", err, b)
	}
}

// make install puts every piece where a system looks for it.
func TestInstall(t *testing.T) {
	t.Parallel()
	root, err := vaulttest.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	src, dest := filepath.Join(t.TempDir(), "src"), t.TempDir()
	checkout(t, root, src) // make build writes ./vaultexec
	cmd := exec.Command(needs.Program(t, "make"), "install", "DESTDIR="+dest, "PREFIX=/usr")
	cmd.Dir = src
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make install: %v\n%s", err, out)
	}
	pages, _ := filepath.Glob(filepath.Join(dest, "usr/share/man/man1/*.1"))
	for _, page := range pages { // as packages have them
		if err := os.Rename(page, page+".gz"); err != nil {
			t.Fatal(err)
		}
	}
	checkTree(t, dest, "site-functions", "")
}

// checkTree looks at an installed tree and runs the program in it.
func checkTree(t *testing.T, root, zsh, version string) {
	t.Helper()
	for file, mode := range map[string]os.FileMode{
		"usr/bin/vaultexec": 0o711, "usr/share/man/man1/vaultexec.1.gz": 0o644, "usr/share/bash-completion/completions/vaultexec": 0o644,
		"usr/share/zsh/" + zsh + "/_vaultexec": 0o644, "usr/share/fish/vendor_completions.d/vaultexec.fish": 0o644,
	} {
		info, err := os.Stat(filepath.Join(root, file))
		if err != nil || info.Mode().Perm() != mode || info.Size() == 0 {
			t.Errorf("%s: %v", file, err)
		}
	}
	pages, _ := filepath.Glob("../../docs/man/*.1")
	for _, page := range pages {
		info, err := os.Stat(filepath.Join(root, "usr/share/man/man1", filepath.Base(page)+".gz"))
		if err != nil || info.Mode().Perm() != 0o644 || info.Size() == 0 {
			t.Errorf("%s: %v", page, err)
		}
	}
	if len(pages) < 10 {
		t.Errorf("only %d manual pages", len(pages))
	}
	if version != "" && len(read(t, filepath.Join(root, "usr/share/doc/vaultexec/copyright"))) == 0 {
		t.Error("no license")
	}
	runs(t, filepath.Join(root, "usr/bin/vaultexec"), version)
}

func runs(t *testing.T, program, version string) {
	t.Helper()
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return
	}
	out, err := exec.Command(program, "--version").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "vaultexec "+version) {
		t.Errorf("--version: %v %q", err, out)
	}
}

func checkArchive(t *testing.T, file, version string) {
	zip, err := gzip.NewReader(bytes.NewReader(read(t, file)))
	if err != nil {
		t.Fatal(err)
	}
	if zip.Name != "" || !zip.ModTime.IsZero() {
		t.Error("the archive names its file or its time")
	}
	folder := strings.TrimSuffix(filepath.Base(file), ".tar.gz")
	var names []string
	r := tar.NewReader(zip)
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Uname != "" || h.ModTime.Unix() != 1767323045 {
			t.Errorf("%s: user %d %q, %v", h.Name, h.Uid, h.Uname, h.ModTime)
		}
		names = append(names, strings.TrimPrefix(h.Name, folder+"/"))
		if h.Name == folder+"/vaultexec" {
			if h.Mode != 0o711 {
				t.Errorf("%s has mode %04o", h.Name, h.Mode)
			}
			program := filepath.Join(t.TempDir(), "vaultexec")
			f, err := os.OpenFile(program, os.O_CREATE|os.O_WRONLY, 0o755)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(f, r); err != nil {
				t.Fatal(err)
			}
			_ = f.Close()
			runs(t, program, version)
		}
	}
	for _, want := range []string{"vaultexec", "LICENSE", "THIRD-PARTY-LICENSES", "README.md", "docs/vaultexec.1", "docs/man/vaultexec-rotate.1", "completion/_vaultexec"} {
		if !slices.Contains(names, want) {
			t.Errorf("no %s in %v", want, names)
		}
	}
}

// checkSBOM: every module that the product needs directly is in it, and none that only tests need.
func checkSBOM(t *testing.T, root, file string) {
	var bom struct {
		Format     string `json:"bomFormat"`
		Components []struct {
			Name, Version, Purl string
		}
	}
	if err := json.Unmarshal(read(t, file), &bom); err != nil || bom.Format != "CycloneDX" {
		t.Fatalf("%v %q", err, bom.Format)
	}
	var names []string
	for _, c := range bom.Components {
		if c.Version == "" || !strings.HasPrefix(c.Purl, "pkg:golang/"+c.Name+"@") {
			t.Errorf("%+v", c)
		}
		names = append(names, c.Name)
	}
	for _, want := range []string{"std", "github.com/hashicorp/vault/api", "github.com/urfave/cli/v2", "golang.org/x/sys"} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is missing", want)
		}
	}
	for _, tests := range []string{"github.com/rogpeppe/go-internal", "github.com/prometheus/common", "google.golang.org/protobuf"} {
		if slices.Contains(names, tests) {
			t.Errorf("a module of the tests is listed: %s", tests)
		}
	}
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func find(t *testing.T, dir, suffix string) string {
	t.Helper()
	for _, f := range files(t, dir) {
		if strings.HasSuffix(f, suffix) {
			return filepath.Join(dir, f)
		}
	}
	t.Fatalf("no *%s", suffix)
	return ""
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
