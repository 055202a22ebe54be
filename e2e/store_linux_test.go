package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// logins counts the tokens that this rig's logins gave and that live.
func (r *storeRig) logins(t *testing.T) int {
	t.Helper()
	return tokensOf(t, r.srv, "auth/"+r.auth+"/login/ann")
}

// tempFiles are what a token was written to and is not its file.
func tempFiles(t *testing.T, home string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(home, ".vault-token?*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// What is in the place of the token file, and whose the home directory is: found out before anybody logs in.
func TestStoreRefuses(t *testing.T) {
	refused := func(t *testing.T, r *storeRig, says string) {
		t.Helper()
		before := len(r.proxy.Requests())
		r.logIn().finish("125").says("^vaultexec: cannot write .*" + says)
		if n := len(r.proxy.Requests()); n != before {
			t.Errorf("%d requests were made for it", n-before)
		}
	}
	for name, prepare := range map[string]func(path string) error{
		"folder": func(path string) error { return os.Mkdir(path, 0o700) },
		"FIFO":   func(path string) error { return unix.Mkfifo(path, 0o600) },
		"socket": func(path string) error { return unix.Mknod(path, unix.S_IFSOCK|0o600, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newStoreRig(t)
			if err := prepare(filepath.Join(r.dir, ".vault-token")); err != nil {
				t.Fatal(err)
			}
			refused(t, r, "something is there that is not a file")
		})
	}
	t.Run("open home", func(t *testing.T) {
		r := newStoreRig(t)
		home := filepath.Join(r.dir, "home")
		if err := errors.Join(os.Mkdir(home, 0o700), os.Chmod(home, 0o777)); err != nil {
			t.Fatal(err)
		}
		r.set("HOME=" + home)
		refused(t, r, "others may change it")
	})
	t.Run("home of another user", func(t *testing.T) {
		if os.Geteuid() != 0 {
			needs.LeftOut(t, "root to give a folder away; TestRule has the rule")
		}
		r := newStoreRig(t)
		home := filepath.Join(r.dir, "home")
		if err := errors.Join(os.Mkdir(home, 0o700), os.Chown(home, 12345, 12345)); err != nil {
			t.Fatal(err)
		}
		r.set("HOME=" + home)
		refused(t, r, "belongs to user 12345|the owner is user 12345")
	})
	t.Run("no home", func(t *testing.T) {
		r := newStoreRig(t)
		r.set("HOME=")
		refused(t, r, "HOME is not set")
	})
	t.Run("home is a link", func(t *testing.T) {
		r := newStoreRig(t)
		home, link := filepath.Join(r.dir, "home"), filepath.Join(r.dir, "link")
		if err := errors.Join(os.Mkdir(home, 0o700), os.Symlink(home, link)); err != nil {
			t.Fatal(err)
		}
		r.set("HOME=" + link)
		r.logIn().finish("0")
		stored(t, home)
	})
	// As the Vault CLI has it: what it leads to is not touched.
	t.Run("link", func(t *testing.T) {
		r := newStoreRig(t)
		target := filepath.Join(r.dir, "target")
		vaulttest.WriteFile(t, target, "as it was", 0o644)
		if err := os.Symlink(target, filepath.Join(r.dir, ".vault-token")); err != nil {
			t.Fatal(err)
		}
		r.logIn().finish("0")
		stored(t, r.dir)
		if b, err := os.ReadFile(target); err != nil || string(b) != "as it was" {
			t.Errorf("the token has gone where the link leads: %v", err)
		}
	})
	// Whatever the umask and the mode of the old file are.
	t.Run("mode", func(t *testing.T) {
		r := newStoreRig(t)
		file := filepath.Join(r.dir, ".vault-token")
		vaulttest.WriteFile(t, file, "old", 0o600)
		if err := os.Chmod(file, 0o666); err != nil {
			t.Fatal(err)
		}
		before, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		startRun(t, r.dir, r.env, "/bin/sh", "-c", "umask 0; exec "+r.bin+" login --auth userpass").finish("0")
		after, err := os.Stat(file)
		stored(t, r.dir)
		if err != nil || os.SameFile(before, after) {
			t.Error("the file that others may have open is written to")
		}
	})
}

// A vaultexec that is killed leaves the old token, or the new one, whole; and what it leaves beside it goes with the next login.
func TestStoreKilled(t *testing.T) {
	strace := needs.Program(t, "strace")
	for _, call := range []string{"write", "fsync", "linkat", "renameat"} {
		t.Run(call, func(t *testing.T) {
			r := newStoreRig(t)
			old := r.srv.Token(t, vaulttest.TokenOpts{})
			vaulttest.WriteFile(t, filepath.Join(r.dir, ".vault-token"), old, 0o600)
			// Every one of these calls that is about a file of the home directory.
			log := filepath.Join(r.dir, "strace")
			args := []string{"-f", "-o", log, "-e", "trace=fsync,linkat,renameat,write", "-e", "inject=" + call + ":signal=KILL"}
			if call == "write" { // the one to the token file follows the open of that
				args = []string{"-f", "-o", log, "-P", r.dir, "-e", "trace=openat,fsync", "-e", "inject=fsync,openat:signal=KILL:when=2+"}
			}
			j := startRun(t, r.dir, r.env, strace, append(args, r.bin, "login", "--auth", "userpass")...)
			<-j.done
			if b, err := os.ReadFile(log); err != nil || !strings.Contains(string(b), "killed by SIGKILL") {
				t.Fatalf("nobody was killed: %v %s\n%s", err, b, j.err)
			}
			if stored(t, r.dir) != old {
				t.Error("the old token is gone")
			}
			left := tempFiles(t, r.dir)
			if len(left) > 0 && call != "renameat" {
				t.Errorf("left behind: %v", left)
			}
			for _, f := range left {
				if info, err := os.Lstat(f); err != nil || info.Mode() != 0o600 {
					t.Errorf("%s: %v", f, info)
				}
				if err := exec.Command("touch", "-d", "5 minutes ago", f).Run(); err != nil {
					t.Fatal(err)
				}
			}
			r.logIn().finish("0")
			if left := tempFiles(t, r.dir); len(left) > 0 || stored(t, r.dir) == old {
				t.Errorf("after another login there is %v", left)
			}
		})
	}
}

// On a full disk the old token stays, and the new one does not live on.
func TestStoreFull(t *testing.T) {
	if os.Geteuid() != 0 {
		needs.LeftOut(t, "root to mount a small file system; TestStoreKilled has what is left")
	}
	r := newStoreRig(t)
	home := filepath.Join(r.dir, "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	if err := unix.Mount("none", home, "tmpfs", 0, "mode=700,size="+strconv.Itoa(3*page)); err != nil {
		needs.Missing(t, "a small file system: "+err.Error())
	}
	t.Cleanup(func() { _ = unix.Unmount(home, unix.MNT_DETACH) })
	old := r.srv.Token(t, vaulttest.TokenOpts{})
	vaulttest.WriteFile(t, filepath.Join(home, ".vault-token"), old, 0o600)
	vaulttest.WriteFile(t, filepath.Join(home, "filler"), strings.Repeat("x", 2*page), 0o600)
	r.set("HOME=" + home)
	r.logIn().finish("125").says("^vaultexec: cannot write .*no space left on device")
	if stored(t, home) != old || len(tempFiles(t, home)) > 0 {
		t.Error("the old token is gone, or something is left beside it")
	}
	if n := r.logins(t); n != 0 {
		t.Errorf("%d tokens live that nobody has", n)
	}
	if err := os.Remove(filepath.Join(home, "filler")); err != nil {
		t.Fatal(err)
	}
	if r.logIn().finish("0"); r.logins(t) != 1 || stored(t, home) == old {
		t.Error("with room for it the token is not stored")
	}
}

// A token that the helper does not take is revoked, and goes nowhere else.
func TestStoreHelperRefuses(t *testing.T) {
	r := newStoreRig(t)
	helper := filepath.Join(r.dir, "helper")
	vaulttest.WriteFile(t, helper, "#!/bin/sh\nexit 4\n", 0o700)
	vaulttest.WriteFile(t, filepath.Join(r.dir, ".vault"), "token_helper = \""+helper+"\"\n", 0o600)
	r.logIn().finish("125").says("ended with exit status 4")
	if n := r.logins(t); n != 0 || vaulttest.Exists(filepath.Join(r.dir, ".vault-token")) {
		t.Errorf("%d tokens live that nobody has, or one is in a file that nobody asked for", n)
	}
}
