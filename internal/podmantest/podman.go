// Package podmantest gives a test containers: podman and runc, with images and containers of its own that end with the test.
package podmantest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agenticverz/vaultexec/internal/needs"
)

// Podman has a storage of its own, below Dir.
type Podman struct {
	Dir     string // for what belongs to the container tools, which clean up behind the test
	program string
}

// The limits are named because the default ones may be above what this machine may give. The first container of a pod, which
// only holds its namespaces, is one that the test has made: podman would build it with a program that is not there, or fetch it.
const config = `[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
infra_image = "` + pauseImage + `"
infra_command = ""
`

const pauseImage = "localhost/pause:1"

// New looks for the programs, or leaves the test out. It takes root: rootless podman needs what few machines have.
func New(t testing.TB) *Podman {
	t.Helper()
	if os.Getuid() != 0 {
		needs.Missing(t, "root, for podman with runc")
	}
	p := &Podman{program: needs.Program(t, "podman")}
	needs.Program(t, "runc")
	var err error
	if p.Dir, err = os.MkdirTemp("", "vaultexec-podman-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = p.Do("pod", "rm", "--all", "--force", "--time", "0")
		_, _ = p.Do("rm", "--all", "--force", "--time", "0")
		_ = os.RemoveAll(p.Dir)
	})
	if err := os.WriteFile(p.config(), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *Podman) config() string { return filepath.Join(p.Dir, "containers.conf") }

// Command is the command line of podman with these arguments.
func (p *Podman) Command(args ...string) []string {
	return append([]string{p.program, "--root", p.Dir + "/root", "--runroot", p.Dir + "/run", "--tmpdir", p.Dir + "/tmp",
		"--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--runtime", "runc"}, args...)
}

// Environ is what podman needs to be started with.
func (p *Podman) Environ() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.Dir, "CONTAINERS_CONF=" + p.config()}
}

// Do runs podman and returns what it prints.
func (p *Podman) Do(args ...string) (string, error) {
	argv := p.Command(args...)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = p.Environ()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Must runs podman, and wants it to succeed.
func (p *Podman) Must(t testing.TB, args ...string) string {
	t.Helper()
	out, err := p.Do(args...)
	if err != nil {
		t.Fatalf("podman %s: %v\n%s", args[0], err, out)
	}
	return out
}

// Context makes a folder with these files, by their names there, each with mode 0755. A name that ends in a slash is an empty
// folder.
func (p *Podman) Context(t testing.TB, files map[string]string) string {
	t.Helper()
	dir, err := os.MkdirTemp(p.Dir, "context-")
	if err != nil {
		t.Fatal(err)
	}
	for name, from := range files {
		if strings.HasSuffix(name, "/") {
			if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		b, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Build makes an image of these files by a Containerfile.
func (p *Podman) Build(t testing.TB, tag, containerfile string, files map[string]string) {
	t.Helper()
	dir := p.Context(t, files)
	file := filepath.Join(dir, "Containerfile")
	if err := os.WriteFile(file, []byte(containerfile), 0o600); err != nil {
		t.Fatal(err)
	}
	p.Must(t, "build", "--isolation", "chroot", "--tag", tag, "--file", file, dir)
}

// Foreign makes an image that has never heard of vaultexec: busybox, under the names of these programs.
func (p *Podman) Foreign(t testing.TB, tag string, programs ...string) {
	t.Helper()
	busybox := needs.Program(t, "busybox")
	text, files := "FROM scratch\n", map[string]string{"busybox": busybox}
	for _, name := range programs {
		text += fmt.Sprintf("COPY busybox /bin/%s\n", name)
	}
	p.Build(t, tag, text+"ENV PATH=/bin\nENTRYPOINT [\"/bin/sh\"]\n", files)
}

// Pods makes what a pod needs beside the containers that are named in it.
func (p *Podman) Pods(t testing.TB) {
	t.Helper()
	p.Build(t, pauseImage, `FROM scratch
COPY busybox /bin/sh
COPY busybox /bin/sleep
ENTRYPOINT ["/bin/sh", "-c", "trap 'exit 0' TERM; sleep infinity & wait"]
`, map[string]string{"busybox": needs.Program(t, "busybox")})
}
