package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// TestReleaseIsVerified: the lines of SECURITY.md sign and verify a release, and find what was changed.
func TestReleaseIsVerified(t *testing.T) {
	t.Parallel()
	keygen := needs.Program(t, "ssh-keygen")
	text, err := os.ReadFile("SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	line := func(begin string) string {
		_, rest, ok := strings.Cut(string(text), "\n    "+begin)
		line, _, _ := strings.Cut(rest, "\n")
		if !ok {
			t.Fatalf("SECURITY.md has no line that begins with %q", begin)
		}
		return begin + line
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	sh := func(script string) (string, error) {
		cmd := exec.Command("/bin/sh", "-c", script)
		cmd.Dir, cmd.Env = dir, []string{"HOME=" + dir, "PATH=" + filepath.Dir(keygen) + ":" + os.Getenv("PATH")}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	must := func(script string) {
		t.Helper()
		if out, err := sh(script); err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
	}
	must(`ssh-keygen -q -t ed25519 -N '' -f .ssh/vaultexec-release && ssh-keygen -q -t ed25519 -N '' -f .ssh/other
		echo released >vaultexec_v1_linux_amd64.tar.gz && sha256sum *.gz >SHA256SUMS && echo "0000  elsewhere" | sed 's/0000/'"$(printf %064d 0)"'/' >>SHA256SUMS
		echo "releases@agenticverz.example namespaces=\"vaultexec-release\" $(cut -d' ' -f1,2 .ssh/vaultexec-release.pub)" >allowed_signers`)
	must(line("ssh-keygen -Y sign"))
	verify, check := line("ssh-keygen -Y verify"), line("sha256sum --check")
	must(verify)
	must(check)
	for name, change := range map[string]struct{ script, fails string }{
		"another file":          {"echo changed >vaultexec_v1_linux_amd64.tar.gz", check},
		"other checksums":       {"echo changed >vaultexec_v1_linux_amd64.tar.gz && sha256sum *.gz >SHA256SUMS", verify},
		"another key":           {"rm SHA256SUMS.sig && " + strings.Replace(line("ssh-keygen -Y sign"), "vaultexec-release ", "other ", 1), verify},
		"for something else":    {"rm SHA256SUMS.sig && " + strings.Replace(line("ssh-keygen -Y sign"), "-n vaultexec-release", "-n file", 1), verify},
		"a signature of before": {"echo >>SHA256SUMS", verify},
	} {
		must("cp -r . ../kept && " + change.script)
		if out, err := sh(change.fails); err == nil {
			t.Errorf("%s is not found:\n%s", name, out)
		}
		must("rm -rf * && cp -r ../kept/* . && rm -r ../kept")
	}
}

// TestCommandOfAnotherUser: a command that setpriv starts as another user has the secrets, and cannot read what vaultexec, as root,
// logged in with. As the same user it can: that is the control.
func TestCommandOfAnotherUser(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		needs.Missing(t, "root, to change to another user")
	}
	setpriv := needs.Program(t, "setpriv")
	r := newRig(t)
	mount, _, roleID, secretID := r.srv.Scope(t).AppRole(r.policy)
	cred, bin := asNobody(t, vaulttest.BuildStatic(t, ".")) // its folder is open to others
	file := filepath.Join(filepath.Dir(bin), "secret-id")
	vaulttest.WriteFile(t, file, secretID, 0o600)
	r.set("VAULT_TOKEN=", "VAULTEXEC_ROLE_ID="+roleID, "WANT="+r.value)
	for _, mode := range []string{"--supervise", "--replace"} {
		run := func(command ...string) error {
			cmd := exec.Command(bin, append([]string{mode, "--auth-mount", mount, "--secret-id-file", file, "--"}, command...)...)
			cmd.Env, cmd.Dir = r.env, "/"
			cmd.SysProcAttr = &syscall.SysProcAttr{}
			out, err := cmd.CombinedOutput()
			if clean := vaulttest.Redact(string(out)); err != nil {
				return fmt.Errorf("%w\n%s", err, clean)
			}
			return nil
		}
		reads := []string{"sh", "-c", `test "$API_KEY" = "$WANT" || exit 8; test -r "$0" || exit 9`, file}
		if err := run(reads...); err != nil {
			t.Errorf("control, %s: the same user cannot read it: %v", mode, err)
		}
		other := append([]string{setpriv, "--reuid", fmt.Sprint(cred.Uid), "--regid", fmt.Sprint(cred.Gid), "--clear-groups"}, reads...)
		if err := run(other...); err == nil || !strings.HasPrefix(err.Error(), "exit status 9") {
			t.Errorf("%s: another user: %v, want exit status 9", mode, err)
		}
	}
}
