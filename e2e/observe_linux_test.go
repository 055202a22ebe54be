package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// observer collects all that anybody can see of programs while they run, and notes where a secret shows: what they print; the
// arguments and the environment of every process on the machine but the command's own, by looking into /proc; and, by
// strace(1), the arguments and environment of whatever they start however short it lives, the files that they make and what
// they write into them, and connections to sockets of the machine such as syslog's.
type observer struct {
	t       *testing.T
	dir     string // working folder of the programs
	strace  string
	command string      // the program that is given the secrets: in its environment they are in their place
	program string      // vaultexec
	given   atomic.Bool // it is started with credentials in its environment
	digs    atomic.Bool // it has git hand it what a repository holds, in a pipe
	memory  string      // folder of --file NAME=PATH, whose files are in their place, too
	env     []string
	forms   [][]byte
	inputs  []string // files that the test itself wrote

	mu    sync.Mutex        // for forms and leaks
	leaks map[string]string // where, and an example
}

func newObserver(t *testing.T) *observer {
	o := &observer{t: t, dir: t.TempDir(), strace: needs.Program(t, "strace"), memory: memoryDir(t), leaks: map[string]string{}}
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	o.command = filepath.Join(t.TempDir(), "sleep") // by its name a program knows what it is
	copyProgram(t, sleep, o.command)
	o.env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	return o
}

// secret has the observer look for values in every form that vaulttest knows.
func (o *observer) secret(values ...string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, v := range values {
		for _, form := range append(vaulttest.Forms(v), strings.Split(v, "\n")...) {
			if len(form) >= vaulttest.MinCanary {
				o.forms = append(o.forms, []byte(form))
			}
		}
	}
}

// file writes an input of the programs, which may hold a secret.
func (o *observer) file(name, text string) string {
	path := filepath.Join(o.dir, name)
	vaulttest.WriteFile(o.t, path, text, 0o600)
	o.inputs = append(o.inputs, path)
	return path
}

func (o *observer) shows(b []byte) bool {
	o.mu.Lock()
	forms := o.forms // which only ever grow
	o.mu.Unlock()
	return slices.ContainsFunc(forms, func(f []byte) bool { return bytes.Contains(b, f) })
}

func (o *observer) leak(where string, b []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.leaks[where] == "" {
		o.leaks[where] = vaulttest.Redact(string(b[:min(len(b), 2000)]))
	}
}

// look looks into every process. One that becomes the command meanwhile is the command; so is the stub.
func (o *observer) look() {
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		exe, _ := os.Readlink(p + "/exe")
		environ, _ := os.ReadFile(p + "/environ")
		argv, _ := os.ReadFile(p + "/cmdline")
		after, _ := os.Readlink(p + "/exe")
		if exe != after || exe == o.command || o.given.Load() && (exe == o.program || exe == o.strace) || bytes.HasPrefix(argv, []byte("vaultexec: starting the command")) {
			continue
		}
		if o.shows(environ) {
			o.leak("the environment of a process", environ)
		}
		if o.shows(argv) {
			o.leak("the arguments of a process", argv)
		}
	}
}

// observed is a program under observation.
type observed struct {
	*observer
	name     string
	cmd      *exec.Cmd
	out, err *output
	trace    string
	done     chan struct{}
}

func (o *observer) begin(name, path string, args ...string) *observed {
	o.t.Helper()
	r := &observed{observer: o, name: name, out: &output{}, err: &output{}, trace: filepath.Join(o.t.TempDir(), "trace"), done: make(chan struct{})}
	r.cmd = exec.Command(o.strace, append([]string{"-f", "-qq", "-y", "-v", "-s", "100000", "-o", r.trace,
		"-e", "trace=execve,execveat,open,openat,openat2,creat,memfd_create,mknod,mknodat,write,pwrite64,writev,pwritev,pwritev2,sendfile,rename,renameat,renameat2,connect",
		path}, args...)...)
	r.cmd.Dir, r.cmd.Env, r.cmd.Stdout, r.cmd.Stderr = o.dir, o.env, r.out, r.err
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := vaulttest.StartTied(r.cmd); err != nil {
		o.t.Fatal(err)
	}
	go func() {
		_ = r.cmd.Wait()
		close(r.done)
	}()
	o.t.Cleanup(func() {
		_ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL)
		<-r.done
	})
	return r
}

// pid is the observed program's process ID, with which strace begins its first line.
func (r *observed) pid() int {
	r.t.Helper()
	pid := 0
	wait.Until(r.t, limit, r.name+" to start", func() bool {
		b, _ := os.ReadFile(r.trace)
		first, _, ok := strings.Cut(string(b), " ")
		pid, _ = strconv.Atoi(first)
		return ok && pid > 0
	})
	return pid
}

// commands lists the processes that the command is.
func (o *observer) commands() (pids []int) {
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		if exe, _ := os.Readlink(p + "/exe"); exe == o.command {
			pid, _ := strconv.Atoi(filepath.Base(p))
			pids = append(pids, pid)
		}
	}
	return pids
}

// awaitCommand waits until the command runs as another process than before, and looks around.
func (r *observed) awaitCommand(before []int) []int {
	r.t.Helper()
	var now []int
	wait.Until(r.t, limit, r.name+" to run its command", func() bool {
		r.look()
		now = r.commands()
		return len(now) > 0 && !slices.Equal(now, before)
	})
	r.look()
	return now
}

func (r *observed) signal(sig syscall.Signal) { _ = syscall.Kill(r.pid(), sig) }

// finish waits for the end and looks through all that was recorded.
func (r *observed) finish(want string) {
	r.t.Helper()
	wait.Until(r.t, limit, r.name+" to end", func() bool {
		select {
		case <-r.done:
			return true
		default:
			r.look()
			return false
		}
	})
	if got := vaulttest.Ending(r.cmd.ProcessState); got != vaulttest.Wanted(want) {
		r.t.Errorf("%s: it ended with %s, want %s:\n%s", r.name, got, vaulttest.Wanted(want), vaulttest.Redact(r.err.String()))
	}
	for where, text := range map[string]string{"standard output": r.out.String(), "standard error": r.err.String()} {
		if r.shows([]byte(text)) || vaulttest.Redact(text) != text { // here what has a right to be in the environment counts, too
			r.leak(where, []byte(text))
		}
	}
	trace, err := os.ReadFile(r.trace)
	if err != nil || !bytes.Contains(trace, []byte("execve(")) {
		r.t.Fatalf("%s: strace saw nothing: %v", r.name, err)
	}
	for line := range bytes.Lines(trace) {
		r.judge(line)
	}
}

var (
	execLine  = regexp.MustCompile(`^\d+ +execve(?:at)?\((?:[^"]*, )?"([^"]*)", \["([^"]*)"`)
	openLine  = regexp.MustCompile(`^\d+ +(?:open|openat|openat2|creat|mknod|mknodat)\((?:[A-Z_0-9]*<([^>"]*)>, |[^"]*, )?"([^"]*)", (.*)`)
	writeLine = regexp.MustCompile(`^\d+ +(?:write|pwrite64|writev|pwritev|pwritev2|sendfile)\(\d+<([^>]*)>`)
	localLine = regexp.MustCompile(`^\d+ +connect\(.*sa_family=AF_UNIX, sun_path=@?"([^"]*)"`)
)

// judge looks at one line of strace's.
func (o *observer) judge(line []byte) {
	if m := execLine.FindSubmatch(line); m != nil {
		its := string(m[1]) == o.command || o.given.Load() && string(m[1]) == o.program || bytes.HasPrefix(m[2], []byte("vaultexec: starting the command"))
		if !its && o.shows(line) {
			o.leak("what a program is started with", line)
		}
		return
	}
	if m := openLine.FindSubmatch(line); m != nil {
		writes := bytes.Contains(m[3], []byte("O_WRONLY")) || bytes.Contains(m[3], []byte("O_RDWR")) || bytes.Contains(m[3], []byte("O_CREAT"))
		name, path := string(m[2]), string(m[2])
		if folder := string(m[1]); folder != "" && !filepath.IsAbs(path) {
			path = folder + "/" + path // "." with O_TMPFILE is a file in the folder, which has no name
		}
		fine := path == "/dev/null" || path == "/dev/tty" || strings.HasPrefix(path, o.memory+"/") || strings.HasPrefix(path, filepath.Join(o.dir, "hook-"))
		if writes && !fine {
			o.leak("a file that is made: "+name, line)
		}
		if !filepath.IsAbs(path) {
			path = filepath.Join(o.dir, path)
		}
		if strings.HasPrefix(path, o.dir+"/") && !fine && !slices.Contains(o.inputs, path) {
			o.leak("a file of the current folder that nobody named", line)
		}
		return
	}
	if m := writeLine.FindSubmatch(line); m != nil {
		to := string(m[1])
		elsewhere := (o.given.Load() || o.digs.Load()) && strings.HasPrefix(to, "pipe:") || // the helper's answer, an object; what is printed is looked at by itself
			strings.HasPrefix(to, "socket:") || strings.HasPrefix(to, "TCP") || strings.HasPrefix(to, "/memfd:") || strings.HasPrefix(to, o.memory+"/")
		if !elsewhere && o.shows(line) {
			o.leak("what is written", line)
		}
		return
	}
	if m := localLine.FindSubmatch(line); m != nil {
		o.leak("a connection to a socket of the machine: "+string(m[1]), line)
	}
}

// TestNothingCanBeObserved: over every mode, every command and every kind of failure, at the highest log level and with every
// GODEBUG that makes Go talk, nobody but the command sees a value, a token, a secret id, a password or a key share, in any
// form: not in what vaultexec prints, not in arguments or the environment of any process, not in a file, not in
// syslog. Nor is any file of the current folder opened that no option names. Core files are TestNoCore's.
func TestNothingCanBeObserved(t *testing.T) {
	o := newObserver(t)
	bin := vaulttest.BuildStatic(t, ".")
	o.program = bin
	srv := vaulttest.Raft(t, vaulttest.RaftOpts{TLS: true}) // HTTP/2, which http2debug is about
	srv.Init(t, 1, 1)
	srv.Unseal(t)
	sealed := vaulttest.Raft(t, vaulttest.RaftOpts{})
	sealed.Init(t, 3, 2)
	o.secret(sealed.Keys...)
	sc := srv.Scope(t)
	mount := sc.Mount(2)
	fresh := func(label string) string {
		v := vaulttest.Canary(label)
		o.secret(v)
		return v
	}
	put := func(path string, keys ...string) {
		data := map[string]any{}
		for _, k := range keys {
			data[k] = fresh(k)
		}
		srv.PutKV(t, mount, path, data)
	}
	multi, object := fresh("first")+"\n"+fresh(`"second"`), map[string]any{"inner": fresh("inner")}
	srv.PutKV(t, mount, "app", map[string]any{"API_KEY": fresh("API_KEY"), "MULTI": multi, "OBJECT": object})
	put("watched", "WATCHED")
	put("key", "TLS_KEY")
	put("twin", "API_KEY")
	put("denied", "DENIED")
	srv.PutKV(t, mount, "invalid", map[string]any{"bad-name": fresh("bad"), "LD_PRELOAD": fresh("ld"), "NUL": fresh("nul") + "\x00", "LONG": fresh("long") + strings.Repeat("x", 132000)})
	policy := sc.Policy(fmt.Sprintf("path \"%[1]s/*\" { capabilities = [\"read\", \"create\", \"update\", \"patch\", \"list\"] }\npath \"%[1]s/data/denied\" { capabilities = [\"deny\"] }\n", mount))
	token := srv.Token(t, vaulttest.TokenOpts{Policies: []string{policy}})
	auth, _, roleID, secretID := sc.AppRole(policy)
	users := sc.Name("userpass")
	srv.Must(t, "POST", "sys/auth/"+users, map[string]string{"type": "userpass"})
	o.secret(token, secretID)
	tokenFile := o.file("token", token+"\n")
	idFile := o.file("secret-id", secretID+"\n")
	wrongID := o.file("wrong-id", fresh("wrong-id"))
	password := o.file("password", fresh("password"))
	dotenv := o.file("dotenv", "IMPORTED="+fresh("imported")+"\n")
	value, value2 := o.file("value", fresh("rotated")), o.file("value2", fresh("set"))
	shares := o.file("shares", strings.Join(sealed.Keys, "\n"))
	hook := filepath.Join(o.dir, "hook")
	vaulttest.WriteFile(t, hook, "#!/bin/sh\nfor f in /proc/$$/fd/*; do readlink $f; done >\"${0%/*}/hook-fds\"\nenv >\"${0%/*}/hook-env\"\n", 0o755)
	o.inputs = append(o.inputs, hook)
	o.env = append(o.env, "VAULT_ADDR="+srv.Addr, "VAULT_CACERT="+srv.CACert, "VAULTEXEC_MOUNT="+mount,
		"GODEBUG=http2debug=2,http1debug=2,netdns=go+2,gctrace=1", "GOTRACEBACK=all", "SSLKEYLOGFILE="+filepath.Join(o.dir, "keylog"))
	away := vaulttest.NewProxy(t, srv)
	careless := vaulttest.NewProxy(t, srv)
	careless.Set(quoting)
	carelessWriter := vaulttest.NewProxy(t, srv) // lets reads pass
	carelessWriter.On(func(r *http.Request) bool { return r.Method == http.MethodPatch || r.Method == http.MethodPost }, quoting)

	stop := make(chan struct{})
	var looking sync.WaitGroup
	looking.Go(func() {
		tick := time.NewTicker(25 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				o.look()
			case <-stop:
				return
			}
		}
	})
	n := 0
	run := func(name, want string, args ...string) *observed {
		t.Helper()
		n++
		if strings.HasPrefix(args[0], "-") || args[0] == "check" {
			i := 0
			if args[0] == "check" {
				i = 1
			}
			args = slices.Insert(args, i, "--log-level", "debug", "--log-format", []string{"text", "json"}[n%2])
			if !slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "--auth") }) {
				args = slices.Insert(args, i, "--token-file", tokenFile)
			}
		} else {
			args = slices.Insert(args, 1, "--token-file", tokenFile, "--log-level", "debug")
		}
		r := o.begin(name, bin, args...)
		if want != "" {
			r.finish(want)
		}
		return r
	}
	short := []string{"--", o.command, "0"}
	forever := []string{"--", o.command, "100000"}
	with := func(args []string, more ...string) []string { return append(slices.Clone(more), args...) }

	// modes
	for name, args := range map[string][]string{
		"replace":      {"--path", "app"},
		"file":         {"--path", "app", "--path", "key", "--file", "TLS_KEY"},
		"supervise":    {"--supervise", "--path", "app", "--file", "API_KEY"},
		"mask":         {"--mask", "--path", "app", "--file", "API_KEY"},
		"file at":      {"--path", "app", "--path", "key", "--file", "TLS_KEY=" + o.memory + "/key"},
		"approle":      {"--supervise", "--auth", "approle", "--auth-mount", auth, "--role-id", roleID, "--secret-id-file", idFile, "--path", "app"},
		"keep-token":   {"--keep-token", "--path", "app"},
		"clean":        {"--clean-env", "--path", "app"},
		"optional":     {"--path", "app", "--optional-path", "absent"},
		"null proxy":   {"--path", "app", "--timeout", "20s"},
		"collision ok": {"--path", "app", "--path", "twin", "--on-collision", "last"},
	} {
		run(name, "0", with(short, args...)...)
		r := run(name, "", with(forever, args...)...)
		r.awaitCommand(nil)
		r.signal(unix.SIGTERM)
		r.finish("TERM")
	}
	// A token helper is run with credentials around it, of which it is to get none.
	helped := filepath.Join(o.dir, "helped")
	helper := o.file("helper", "#!/bin/sh\nenv >\"${0%/*}/hook-helper\"\ncat '"+tokenFile+"'\n")
	if err := errors.Join(os.Chmod(helper, 0o755), os.Mkdir(helped, 0o755)); err != nil {
		t.Fatal(err)
	}
	vaulttest.WriteFile(t, filepath.Join(helped, ".vault"), fmt.Sprintf("token_helper = %q\n", helper), 0o644)
	o.inputs = append(o.inputs, helped, filepath.Join(helped, ".vault"))
	bare := o.env
	o.given.Store(true)
	o.env = append(slices.Clone(bare), "HOME="+helped, "VAULTEXEC_PASSWORD="+fresh("environ"), "VAULTEXEC_JWT="+fresh("environ"), "VAULTEXEC_SECRET_ID="+fresh("environ"), "BAO_HEADERS={\"X-Key\":\""+fresh("environ")+"\"}",
		"VAULT_ADDR="+strings.Replace(srv.Addr, "://", "://user:"+fresh("environ")+"@", 1))
	r := o.begin("token helper", bin, append([]string{"--auth", "token", "--log-level", "debug", "--path", "app"}, short...)...)
	r.finish("0")
	if b, err := os.ReadFile(filepath.Join(o.dir, "hook-helper")); err != nil || o.shows(b) || !bytes.Contains(b, []byte("VAULT_ADDR=https://127")) {
		t.Errorf("the token helper's environment: %v\n%s", err, vaulttest.Redact(string(b)))
	}
	_ = os.Remove(filepath.Join(o.dir, "hook-helper"))
	o.env = bare
	o.given.Store(false)
	stub := o.begin("stub", "/bin/sh", append([]string{"-c", `export LISTEN_PID=$$; exec "$@"`, "sh", bin, "--supervise", "--token-file", tokenFile, "--path", "app"}, forever...)...)
	stub.awaitCommand(nil)
	stub.signal(unix.SIGTERM)
	stub.finish("TERM")

	r = run("watch", "", with(forever, "--watch", "--interval", "200ms", "--settle", "100ms", "--min-uptime", "0s", "--path", "app", "--path", "watched",
		"--file", "API_KEY", "--on-change-hook", hook)...)
	first := r.awaitCommand(nil)
	put("watched", "WATCHED")
	r.awaitCommand(first)
	r.signal(unix.SIGTERM)
	r.finish("TERM")
	for _, file := range []string{"hook-fds", "hook-env"} {
		b, err := os.ReadFile(filepath.Join(o.dir, file))
		if err != nil || o.shows(b) || bytes.Contains(b, []byte("memfd:")) || !bytes.Contains(b, []byte(map[string]string{"hook-fds": "/dev/null", "hook-env": "VAULTEXEC_CHANGED_NAMES="}[file])) {
			t.Errorf("the hook has %s: %v\n%s", file, err, vaulttest.Redact(string(b)))
		}
		_ = os.Remove(filepath.Join(o.dir, file))
	}
	r = run("signal", "", with(forever, "--watch", "--interval", "200ms", "--settle", "100ms", "--path", "key", "--file", "TLS_KEY="+o.memory+"/key", "--on-change", "signal:USR1")...)
	r.awaitCommand(nil)
	put("key", "TLS_KEY")
	r.finish("USR1")
	r = run("command killed", "", with(forever, "--supervise", "--path", "app")...)
	for _, pid := range r.awaitCommand(nil) {
		_ = syscall.Kill(pid, unix.SIGKILL)
	}
	r.finish("KILL")
	// the panic path: a fault signal from outside makes Go print every stack
	for _, sig := range []syscall.Signal{unix.SIGABRT, unix.SIGSEGV} {
		r = run("crash", "", with(forever, "--wait", "forever", "--address", away.Addr, "--allow-http", "--path", "app")...)
		away.Set(vaulttest.BlackHole)
		away.Forget()
		away.WaitRequests(t, 1)
		r.signal(sig)
		r.finish("2")
		if !strings.Contains(r.err.String(), "goroutine ") {
			t.Errorf("%v prints no stacks", sig)
		}
	}
	away.Set(vaultError(503, "Vault is sealed"))

	// failures
	run("denied", "121", with(short, "--path", "app", "--path", "denied")...)
	run("missing", "122", with(short, "--path", "app", "--path", "absent")...)
	run("invalid", "123", with(short, "--path", "invalid")...)
	run("collision", "123", with(short, "--path", "app", "--path", "twin")...)
	run("no such key", "122", with(short, "--path", "app", "--env", "X=app#API_KE")...)
	run("unknown authority", "120", with(short, "--ca-cert", "/etc/ssl/certs/ca-certificates.crt", "--path", "app")...)
	run("wrong secret id", "121", with(short, "--auth", "approle", "--auth-mount", auth, "--role-id", roleID, "--secret-id-file", wrongID, "--path", "app")...)
	run("wrong password", "121", with(short, "--auth", "userpass", "--auth-mount", users, "--username", "ada", "--password-file", password, "--path", "app")...)
	run("bad token", "121", with(short, "--token-file", o.file("other-token", "hvs."+strings.ReplaceAll(fresh("other"), "-", "")), "--path", "app")...)
	run("sealed", "120", with(short, "--address", away.Addr, "--wait", "0", "--path", "app")...)
	plain := o.env
	for _, v := range []string{"VAULT_ADDR=https://user:%s@127.0.0.1:1", "VAULT_ADDR=user:%s@127.0.0.1:1", "VAULT_PROXY_ADDR=http://user:%s@127.0.0.1:1", "VAULT_PROXY_ADDR=user:%s@x",
		`VAULT_HEADERS={"X-Key":"%s`} {
		o.env = append(slices.Clone(plain), fmt.Sprintf(v, vaulttest.Canary("password")))
		if strings.HasPrefix(v, "VAULT_PROXY_ADDR") { // nothing for this machine goes to a proxy
			o.env = append(o.env, "VAULT_ADDR=https://vault.invalid:8200")
		}
		run(v, map[bool]string{true: "120", false: "125"}[strings.Contains(v, "://")], with(short, "--wait", "0", "--path", "app")...)
	}
	o.env = plain
	run("command not found", "127", "--path", "app", "--", "no-such-command")
	run("disk", "125", with(short, "--path", "key", "--file", "TLS_KEY="+o.dir+"/key")...)
	run("not base64", "123", with(short, "--path", "app", "--file", "MULTI:base64")...)
	for _, args := range [][]string{
		{"--auth", "approle", "--auth-mount", auth, "--role-id", roleID, "--secret-id-file", idFile},
		{"--auth", "userpass", "--auth-mount", users, "--username", "ada", "--password-file", password},
		{"--token-file", tokenFile},
	} {
		run("quoted "+args[1], "120", with(short, append(args, "--address", careless.Addr, "--wait", "0", "--path", "app")...)...)
	}

	// what shows names
	run("dry run", "0", "--dry-run", "--path", "app", "--path", "key", "--file", "TLS_KEY")
	run("dry run, invalid", "123", "--dry-run", "--path", "invalid")
	run("check", "0", "check", "--path", "app")
	run("check, denied", "121", "check", "--path", "app", "--path", "denied")
	for _, words := range [][]string{{"--help"}, {"help", "login"}, {"help", "references"}, {"--version"}} {
		o.begin(words[0], bin, words...).finish("0")
	}
	o.begin("completion", bin, "--token-file", tokenFile, "--generate-bash-completion").finish("125")

	// what looks for the values, and starts git
	plant := repositoryWith(t, srv.Must(t, "GET", mount+"/data/app", nil)["data"].(map[string]any)["data"].(map[string]any)["API_KEY"].(string))
	o.digs.Store(true)
	for _, report := range []string{"--history", "--json", "--sarif", "--staged"} {
		run("scan "+report, "1", "scan", "--path", "app", report, plant)
	}
	o.digs.Store(false)

	// the operating commands
	run("status", "0", "status")
	run("list", "0", "list")
	run("get", "0", "get", "app")
	run("get one", "0", "get", "app#API_KEY")
	r = run("rotate", "", "rotate", "app", "API_KEY")
	<-r.done
	now, _ := srv.Must(t, "GET", mount+"/data/app", nil)["data"].(map[string]any)["data"].(map[string]any)["API_KEY"].(string)
	o.secret(now)
	r.finish("0")
	run("rotate to", "0", "rotate", "--from-file", value, "app", "API_KEY")
	run("rotate, quoted", "120", "rotate", "--address", careless.Addr, "--wait", "0", "--from-file", value, "app", "API_KEY")
	run("set", "0", "set", "app", "API_KEY=@"+value2, "ADDED=@"+value, "--create", "--json")
	run("set, quoted", "120", "set", "--address", carelessWriter.Addr, "--wait", "0", "app", "API_KEY=@"+value)
	run("diff", "1", "diff", "file:"+dotenv, "app", "--all")
	run("rollback, quoted", "120", "rollback", "--address", carelessWriter.Addr, "--wait", "0", "app")
	run("rollback", "0", "rollback", "app")
	run("import", "0", "import", "imported", dotenv)
	run("import, quoted", "120", "import", "--address", careless.Addr, "--wait", "0", "imported", dotenv)
	o.begin("unseal", bin, "unseal", "--address", sealed.Addr, "--keys-file", shares).finish("0")

	close(stop)
	looking.Wait()
	for where, example := range o.leaks {
		t.Errorf("%s shows a secret or is none of vaultexec's business:\n%s", where, example)
	}
	entries, _ := os.ReadDir(o.dir)
	for _, e := range entries {
		if !slices.Contains(o.inputs, filepath.Join(o.dir, e.Name())) {
			t.Errorf("%s was left behind", e.Name())
		}
	}
	if left, _ := os.ReadDir(o.memory); len(left) > 0 {
		t.Errorf("%s was left behind", left[0].Name())
	}
}

// repositoryWith makes a git repository with a value in a commit and another file with it in the index.
func repositoryWith(t *testing.T, value string) string {
	t.Helper()
	dir := t.TempDir()
	for _, args := range [][]string{{"init", "-q"}, {"add", "-A"}, {"-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "x"}, {"add", "-A"}} {
		if args[0] == "add" {
			vaulttest.WriteFile(t, filepath.Join(dir, "file"), "key: "+value+"\n", 0o600)
			value += "\n" + value
		}
		cmd := exec.Command(needs.Program(t, "git"), args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v: %s", args, err, vaulttest.Redact(string(out)))
		}
	}
	return dir
}

// quoting answers like a careless proxy: with what it was asked.
func quoting(_ *vaulttest.Proxy, w http.ResponseWriter, r *http.Request, _ http.Handler) {
	body, _ := io.ReadAll(r.Body)
	w.WriteHeader(http.StatusBadGateway)
	_ = json.NewEncoder(w).Encode(map[string][]string{"errors": {"cannot forward", r.Header.Get("X-Vault-Token"), string(body)}})
}

// TestObserverSees is the negative control: a program that leaks in every way is found in every way.
func TestObserverSees(t *testing.T) {
	o := newObserver(t)
	logger := needs.Program(t, "logger")
	secret := vaulttest.Canary("leaked")
	o.secret(secret)
	path := o.file("secret", secret)
	r := o.begin("leaking program", "/bin/sh", "-c", `s=$(cat "$0"); echo "$s"; echo "$s" | base64 -w0 >&2; echo "$s" >written; S=$s true; sh -c ': "$1"' sh "$s"; cat unasked 2>/dev/null
"$1" -u ./no-syslog "$s"; export S="$s"; exec sleep 100000`, path, logger)
	wait.Until(t, limit, "the environment to be seen", func() bool {
		o.look()
		o.mu.Lock()
		defer o.mu.Unlock()
		return o.leaks["the environment of a process"] != ""
	})
	r.signal(unix.SIGTERM)
	r.finish("TERM")
	for _, where := range []string{"standard output", "standard error", "the environment of a process", "what a program is started with",
		"a file that is made: written", "what is written", "a file of the current folder that nobody named", "a connection to a socket of the machine: ./no-syslog"} {
		if o.leaks[where] == "" {
			t.Errorf("not seen: %s", where)
		}
		delete(o.leaks, where)
	}
	for where := range o.leaks {
		if where != "the arguments of a process" && !strings.Contains(where, "/dev/") && !strings.Contains(where, "nscd") { // the first is gone at once, the others are logger's
			t.Errorf("also seen: %s", where)
		}
	}
}
