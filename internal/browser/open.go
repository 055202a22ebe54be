package browser

import (
	"errors"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/agenticverz/vaultexec/internal/reap"
)

// ErrNone is the failure to open a browser where there is none, or no screen for it.
var ErrNone = errors.New("there is no browser to open")

// Open opens an address in the person's browser: the programs of BROWSER, with colons between them, else the one that
// the desktop has for it. environ is for the browser. It has neither this terminal nor this process for a parent: it
// is still there when Ctrl-C ends the command, and its end is nobody's affair.
func Open(address string, environ []string, getenv func(string) string) error {
	argv := command(address, getenv)
	if argv == nil {
		return ErrNone
	}
	// The shell ends at once. No word of the address is ever read by it.
	argv = append([]string{"/bin/sh", "-c", `"$@" </dev/null >/dev/null 2>&1 &`, "sh"}, argv...)
	null, err := syscall.Open("/dev/null", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(null)
	fd := uintptr(null)
	wait, err := reap.Start(argv[0], argv, &syscall.ProcAttr{
		Env: environ, Files: []uintptr{fd, fd, fd}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err == nil {
		wait()
	}
	return err
}

// command is the first program that is there, with its words; nil for none.
func command(address string, getenv func(string) string) []string {
	for _, way := range ways(getenv) {
		argv := strings.Fields(way)
		if len(argv) == 0 {
			continue
		}
		path, err := exec.LookPath(argv[0])
		if err != nil {
			continue
		}
		argv[0] = path
		if !slices.ContainsFunc(argv[1:], func(w string) bool { return strings.Contains(w, "%s") }) {
			return append(argv, address)
		}
		for i := range argv[1:] {
			argv[i+1] = strings.ReplaceAll(argv[i+1], "%s", address)
		}
		return argv
	}
	return nil
}

func ways(getenv func(string) string) []string {
	if b := getenv("BROWSER"); b != "" {
		return strings.Split(b, ":")
	}
	switch {
	case runtime.GOOS == "darwin":
		return []string{"open"}
	case getenv("DISPLAY") == "" && getenv("WAYLAND_DISPLAY") == "":
		return nil // xdg-open would look for a browser that runs in the terminal
	}
	return []string{"xdg-open"}
}
