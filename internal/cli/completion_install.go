package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/trust"
	"github.com/agenticverz/vaultexec/internal/vault"
)

var shells = []string{"bash", "zsh", "fish"}

// zshTime is what a .zshrc may take. Some check for updates.
const zshTime = 5 * time.Second

// installCompletion writes the script where the shell looks for one user's, and says what is left to do. No file that
// a person writes is touched.
func (a *app) installCompletion(ctx context.Context, s *settings, shell string) error {
	if shell == "" {
		shell = strings.TrimPrefix(filepath.Base(a.getenv("SHELL")), "-")
		if !slices.Contains(shells, shell) {
			return &fault.Error{Kind: fault.Usage, What: "cannot tell for which shell",
				Why:  fmt.Sprintf("SHELL is %q", a.getenv("SHELL")),
				Hint: "name it: vaultexec completion install bash, zsh or fish"}
		}
	}
	home := a.getenv("HOME")
	if !filepath.IsAbs(home) {
		why := "HOME is not set"
		if home != "" {
			why = fmt.Sprintf("HOME is %q, which is not an absolute path", home)
		}
		return &fault.Error{Kind: fault.Usage, What: "cannot tell where the completion belongs", Why: why,
			Hint: "set HOME to your home folder"}
	}
	if info, err := os.Stat(home); err != nil || !info.IsDir() {
		return &fault.Error{Kind: fault.Usage, What: "cannot tell where the completion belongs",
			Why: fmt.Sprintf("HOME is %q, which is not a folder", home), Hint: "set HOME to your home folder"}
	}
	owners := s.owners()
	if err := fault.Join(s.faults); err != nil {
		return err
	}
	file, next := a.completionPlace(ctx, shell, home)
	script, _ := completionScript(shell)
	done, err := "wrote", error(nil)
	same, err := looksLike(file, script)
	switch {
	case err != nil:
	case same:
		done = "already up to date:"
	case s.bool("dry-run"):
		done = "would write"
	default:
		err = placeFile(file, script, owners)
	}
	if err != nil {
		hint := fmt.Sprintf("vaultexec completion %s prints the script: write it yourself to where %s looks for it", shell, shell)
		if errors.Is(err, errIsLink) {
			hint = "remove the link, or change what it leads to yourself: vaultexec completion " + shell + " prints the script"
		}
		return &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot write %q", file), Why: vault.Errno(err),
			Hint: trust.Cure(err, hint), Err: err}
	}
	a.ui.leaveOutReport(s)
	a.ui.printf("%s %s\n%s", done, oneLine(file), next)
	return nil
}

// completionPlace is the file that a shell loads by itself, and what the person does next.
func (a *app) completionPlace(ctx context.Context, shell, home string) (file, next string) {
	under := func(variable, otherwise string) string {
		if dir := a.getenv(variable); filepath.IsAbs(dir) { // any other is to be ignored (XDG Base Directory)
			return dir
		}
		return filepath.Join(home, otherwise)
	}
	const again = "Open a new shell; then TAB completes vaultexec.\n"
	switch shell {
	case "fish":
		return filepath.Join(under("XDG_CONFIG_HOME", ".config"), "fish", "completions", "vaultexec.fish"), again
	case "zsh":
		z := askZsh(ctx, a.environ)
		dir, found := z.folder(home, under("ZDOTDIR", ""), under("XDG_DATA_HOME", ".local/share"))
		if line := z.missing(dir, found); line != "" {
			rc := oneLine(filepath.Join(under("ZDOTDIR", ""), ".zshrc"))
			if z.initialized {
				return filepath.Join(dir, "_vaultexec"), fmt.Sprintf(
					"Add this line to %s, above the one with compinit, and open a new shell:\n  %s\n", rc, line)
			}
			return filepath.Join(dir, "_vaultexec"), fmt.Sprintf(
				"Add this line to %s and open a new shell:\n  %s\n", rc, line)
		}
		return filepath.Join(dir, "_vaultexec"), again
	}
	dir := filepath.Join(under("XDG_DATA_HOME", ".local/share"), "bash-completion")
	if own := a.getenv("BASH_COMPLETION_USER_DIR"); filepath.IsAbs(own) {
		dir, _, _ = strings.Cut(own, ":")
	}
	file = filepath.Join(dir, "completions", "vaultexec")
	if rc, line := oneLine(filepath.Join(home, ".bashrc")), oneLine(shellQuote(file)); strings.ContainsAny(file, " \t\n*?[") {
		// bash-completion up to 2.11 takes the name of the folder apart at blanks.
		next = fmt.Sprintf("Add this line to %s and open a new shell:\n  . %s\n", rc, line)
	} else {
		next = again + fmt.Sprintf("Where bash-completion is not installed, add this line to %s:\n  . %s\n", rc, line)
	}
	return file, next
}

// zshSetup is what an interactive zsh has after its start-up files.
type zshSetup struct {
	fpath       []string
	initialized bool // by compinit
}

// askZsh runs one, since only a shell can tell what its start-up files do. It has a session of its own, so that it
// takes no terminal away, and no credentials.
func askZsh(ctx context.Context, environment []string) zshSetup {
	ctx, cancel := context.WithTimeout(ctx, zshTime)
	defer cancel()
	const mark = "vaultexec:fpath"
	rest, _ := environ.WithoutCredentials(environment)
	// A start-up file may fail, and the rest is true all the same.
	out := sessionOutput(ctx, rest, "zsh", "-i", "-c", `print -rl -- `+mark+` "$+functions[compdef]" "${fpath[@]}"`)
	_, after, ok := strings.Cut("\n"+out, "\n"+mark+"\n")
	if !ok {
		return zshSetup{}
	}
	lines := strings.Split(strings.TrimSuffix(after, "\n"), "\n")
	return zshSetup{lines[1:], lines[0] == "1"}
}

// sessionOutput runs a program in a session of its own, until it has closed its output or the context ends, and then
// ends the whole of its group. It returns what there was.
func sessionOutput(ctx context.Context, environment []string, argv ...string) string {
	path := ""
	for dir := range strings.SplitSeq(os.Getenv("PATH"), ":") {
		if candidate := filepath.Join(dir, argv[0]); filepath.IsAbs(candidate) && unix.Access(candidate, unix.X_OK) == nil {
			path = candidate
			break
		}
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return ""
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return ""
	}
	defer r.Close()
	pid, err := syscall.ForkExec(path, argv, &syscall.ProcAttr{Env: environment, Sys: &syscall.SysProcAttr{Setsid: true},
		Files: []uintptr{null.Fd(), w.Fd(), null.Fd()}})
	w.Close()
	if err != nil {
		return ""
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		_ = unix.Kill(-pid, unix.SIGKILL)
		_ = r.SetReadDeadline(time.Now()) // what has left the group may keep it open
	})
	out, _ := io.ReadAll(io.LimitReader(r, 1<<20))
	if !stop() {
		<-stopped // its number is not another's before the wait below
	}
	_ = unix.Kill(-pid, unix.SIGKILL)
	_, _ = syscall.Wait4(pid, nil, 0, nil)
	return string(out)
}

// folder is the user's own folder for functions: one that zsh knows already, or the customary one.
func (z zshSetup) folder(home, dot, data string) (dir string, known bool) {
	customary := filepath.Join(home, ".zsh", "completions")
	names := []string{customary, filepath.Join(dot, ".zsh", "completions"), filepath.Join(dot, "completions"),
		filepath.Join(home, ".zfunc"), filepath.Join(dot, ".zfunc"), filepath.Join(data, "zsh", "site-functions")}
	for _, dir := range names {
		if slices.Contains(z.fpath, dir) {
			return dir, true
		}
	}
	for _, dir := range z.fpath { // a framework's: ~/.oh-my-zsh/custom/completions
		if strings.HasPrefix(dir, home+"/") && filepath.Base(dir) == "completions" && !strings.Contains(dir, "cache") {
			return dir, true
		}
	}
	return customary, false
}

// missing is the line that .zshrc needs for the folder; "" when it needs none.
func (z zshSetup) missing(dir string, known bool) string {
	var parts []string
	if !known {
		parts = append(parts, "fpath=("+oneLine(shellQuote(dir))+" $fpath)")
	}
	if !z.initialized {
		parts = append(parts, "autoload -Uz compinit", "compinit")
	}
	return strings.Join(parts, "; ")
}

var (
	errIsLink = errors.New("it is a symbolic link")
	errNoFile = errors.New("it is there, and is not a file")
)

// looksLike reports whether the file is there with that text. What is no file is an error, and so is a link, which may
// lead to what is somebody else's.
func looksLike(file, text string) (bool, error) {
	switch info, err := os.Lstat(file); {
	case errors.Is(err, os.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case info.Mode()&os.ModeSymlink != 0:
		return false, errIsLink
	case !info.Mode().IsRegular():
		return false, errNoFile
	case info.Size() != int64(len(text)):
		return false, nil
	}
	b, err := os.ReadFile(file)
	return err == nil && string(b) == text, nil
}

// placeFile puts a text in a file's place in one step. The folders on the way are made, and nobody else may be able to
// put something else in the place of them: a shell runs what is in the file.
func placeFile(file, text string, owners []int) error {
	dir := filepath.Dir(file)
	there := dir
	for ; there != "/"; there = filepath.Dir(there) {
		if _, err := os.Lstat(there); !errors.Is(err, os.ErrNotExist) {
			break
		}
	}
	closed, err := trust.Folder(there, owners)
	if err != nil {
		return err
	}
	closed.Close()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	folder, err := trust.Folder(dir, owners)
	if err != nil {
		return err
	}
	defer folder.Close()
	in, base := int(folder.Fd()), filepath.Base(file)
	temp := "." + base + "." + rand.Text()
	fd, err := unix.Openat(in, temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), temp)
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = unix.Renameat(in, temp, in, base)
	}
	if err != nil {
		_ = unix.Unlinkat(in, temp, 0)
	}
	return err
}
