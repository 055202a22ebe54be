package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

var installCommand = &command{
	name: "install", args: "DIR|FILE", summary: "copy this program, for an image that has none",
	about: `
For images that nobody rebuilds: an init container copies vaultexec into a volume,
and the other image starts its program by the copy. deploy/ has the manifests for
Kubernetes and Compose. The folder has to exist; in DIR the copy is called
vaultexec. What is there is replaced in one step, also while it runs.

The copy has mode 0711 and belongs to the user who makes it. Other users can run
but not read it, so the kernel keeps them from looking into the process from its
very start. Run it as a different user than the one who installs it. Vault is not
asked.
`,
	shared: withAll, least: 1, most: 1,
	report: true, do: (*app).install,
}

func (a *app) install(ctx context.Context, _ *settings, words []string) error {
	file, err := installPlace(words[0])
	if err == nil {
		err = copySelf(ctx, file)
	}
	if err != nil {
		return installFault(file, err)
	}
	a.ui.printf("%s %s\n", oneLine(file), version())
	return nil
}

// installPlace is the file that the word means. A link is not followed there, and not replaced either: whoever made it
// wanted something by it.
func installPlace(word string) (string, error) {
	info, err := os.Stat(word)
	switch {
	case err == nil && info.IsDir():
		word = filepath.Join(word, "vaultexec")
	case strings.HasSuffix(word, "/") && err == nil:
		return word, unix.ENOTDIR
	case strings.HasSuffix(word, "/"):
		return word, err
	}
	info, err = os.Lstat(word)
	if err != nil || info.Mode().IsRegular() {
		return word, nil // what there is to say is said when the file is made
	}
	why := "it is there, and is no regular file"
	if target, err := os.Readlink(word); err == nil {
		why = fmt.Sprintf("it is a link to %q", target)
	}
	return word, &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot install %q", word), Why: why,
		Hint: "name another file, or remove it first"}
}

// copySelf makes the file beside its place and moves it there, so that nobody ever starts a part of it, and a copy that
// runs is not written to (ETXTBSY).
func copySelf(ctx context.Context, file string) error {
	self, err := openSelf()
	if err != nil {
		return &fault.Error{Kind: fault.Usage, What: "cannot read vaultexec's own program", Why: vault.Errno(err), Err: err,
			Hint: "with mode 0711 only its owner and root can: install as one of them, or from the image of the release"}
	}
	defer func() { _ = self.Close() }()
	tmp, err := os.CreateTemp(filepath.Dir(file), ".vaultexec-*")
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = os.Remove(tmp.Name()) })() // a signal has come
	if _, err = io.Copy(tmp, self); err == nil {
		err = tmp.Chmod(0o711) // whatever the umask is
	}
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil && unix.Access(tmp.Name(), unix.X_OK) != nil { // access(2) knows of the mount
		err = errNoExec
	}
	if err == nil {
		err = os.Rename(tmp.Name(), file)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
		return err
	}
	if dir, err := os.Open(filepath.Dir(file)); err == nil {
		_ = dir.Sync() // not every file system can
		_ = dir.Close()
	}
	return nil
}

var errNoExec = errors.New("noexec")

// openSelf opens the program that runs, whatever its name leads to by now.
func openSelf() (*os.File, error) {
	self, err := os.Open("/proc/self/exe")
	if !errors.Is(err, fs.ErrNotExist) {
		return self, err
	}
	path, err := os.Executable() // no Linux
	if err != nil {
		path, err = exec.LookPath(os.Args[0]) // Linux without /proc
	}
	if err != nil {
		return nil, err
	}
	return os.Open(path)
}

// installFault says what the file system did, and what to do about it.
func installFault(file string, err error) error {
	if errors.As(err, new(*fault.Error)) {
		return err
	}
	e := &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot install %q", file), Why: vault.Errno(err), Err: err,
		Hint: "name a folder on a volume that can be written"}
	switch {
	case errors.Is(err, errNoExec):
		e.Why, e.Hint = "no program can be executed there", "mount it without noexec, or name another folder"
	case errors.Is(err, fs.ErrNotExist):
		e.Why, e.Hint = "there is no such folder", "make it, or mount a volume there"
	case errors.Is(err, unix.EACCES):
		e.Hint = fmt.Sprintf("user %d has to be able to write the folder; or install as another user", os.Geteuid())
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		e.Hint = "make room there, or give the volume more: the program takes some 13 MiB"
	}
	return e
}
