package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

func TestMain(m *testing.M) { vaulttest.Main(m) }

// TestScripts runs every script in testdata/scripts against the built program and a real Vault, once on a KV version 1
// mount and once on a version 2 mount. What a script finds and may say is described in testdata/scripts/README.md.
//
// testscript's way is to re-execute the test binary as the program. Here the real one is built: its main thread, signals
// and dumpability are part of what is tested. Version 1 has the program as it is released, version 2 with the race detector.
func TestScripts(t *testing.T) {
	srv := vaulttest.Dev(t)
	for version, program := range map[int]string{1: vaulttest.BuildStatic(t, "."), 2: vaulttest.Build(t, ".")} {
		bin := filepath.Dir(program)
		t.Run(fmt.Sprint("kv", version), func(t *testing.T) {
			testscript.RunT(redacted{t}, testscript.Params{
				Dir:                filepath.Join("testdata", "scripts"),
				Setup:              func(env *testscript.Env) error { return setupScript(env, srv, version, bin) },
				Condition:          func(cond string) (bool, error) { return scriptCondition(cond, version) },
				Cmds:               scriptCommands,
				RequireUniqueNames: true,
			})
		})
	}
}

// redacted is a *testing.T for testscript whose log shows no secret.
type redacted struct{ *testing.T }

func (r redacted) Run(name string, f func(testscript.T)) {
	r.T.Run(name, func(t *testing.T) { f(redacted{t}) })
}
func (r redacted) Verbose() bool     { return testing.Verbose() }
func (r redacted) Log(args ...any)   { r.T.Helper(); r.T.Log(vaulttest.Redact(fmt.Sprint(args...))) }
func (r redacted) Fatal(args ...any) { r.T.Helper(); r.T.Fatal(vaulttest.Redact(fmt.Sprint(args...))) }
func (r redacted) Skip(args ...any)  { r.T.Helper(); r.T.Skip(vaulttest.Redact(fmt.Sprint(args...))) }

// script is the state of one running script.
type script struct {
	t      testscript.T
	name   string // of the test that runs the scripts
	srv    *vaulttest.Server
	proxy  *vaulttest.Proxy
	scope  *vaulttest.Scope
	mount  string
	kv     int
	policy string
	rules  []string
	values map[string]map[string]any // what vault-put wrote, by path
	canary []string                  // what secretfree looks for
	jobs   map[string]*job
}

// job is a program that a script has started.
type job struct {
	cmd      *exec.Cmd
	out, err string // files
	done     chan struct{}
}

type scriptKey struct{}

// setupTB lets vaulttest's helpers be used from Setup, where there is no *TestScript yet.
type setupTB struct{ env *testscript.Env }

func (s *setupTB) Helper()                    {}
func (s *setupTB) Logf(f string, args ...any) { s.env.T().Log(fmt.Sprintf(f, args...)) }
func (s *setupTB) Cleanup(f func())           { s.env.Defer(f) }

// Fatalf ends the script; testscript's Fatal does not return.
func (s *setupTB) Fatalf(f string, args ...any) { s.env.T().Fatal(fmt.Sprintf(f, args...)) }

// scriptTB is the same inside of a command.
type scriptTB struct{ *testscript.TestScript }

func (scriptTB) Helper()            {}
func (s scriptTB) Cleanup(f func()) { s.Defer(f) }

func setupScript(env *testscript.Env, srv *vaulttest.Server, kv int, bin string) error {
	t := &setupTB{env: env}
	s := &script{
		t: env.T(), name: fmt.Sprint("TestScripts/kv", kv), srv: srv, scope: srv.Scope(t), kv: kv,
		values: map[string]map[string]any{}, jobs: map[string]*job{},
	}
	s.proxy = vaulttest.NewProxy(t, srv)
	s.mount = s.scope.Mount(kv)
	s.policy = s.scope.Policy("# nothing yet") // Vault takes no empty one
	// Without the default policy: what is promised to work with one rule must work with one rule.
	token := srv.Token(t, vaulttest.TokenOpts{Policies: []string{s.policy}, NoDefault: true})
	s.canary = append(s.canary, token, srv.RootToken)

	home := filepath.Join(env.WorkDir, ".home") // not the developer's, which may hold a ~/.vault-token
	if err := os.Mkdir(home, 0o700); err != nil {
		return err
	}
	data, meta := s.mount, s.mount
	if kv == 2 {
		data, meta = s.mount+"/data", s.mount+"/metadata"
	}
	for name, value := range map[string]string{
		"PATH":        bin + string(filepath.ListSeparator) + env.Getenv("PATH"),
		"HOME":        home,
		"GORACE":      vaulttest.Gorace,
		"KV":          strconv.Itoa(kv),
		"MOUNT":       s.mount,
		"DATA":        data,
		"META":        meta,
		"VAULT_ADDR":  s.proxy.Addr,
		"VAULT_TOKEN": token,
		"ROOT_TOKEN":  srv.RootToken,
	} {
		env.Setenv(name, value)
	}
	env.Values[scriptKey{}] = s
	env.Defer(s.stopJobs)
	return nil
}

// stopJobs ends what a script has started and not finished.
func (s *script) stopJobs() {
	for _, j := range s.jobs {
		_ = syscall.Kill(-j.cmd.Process.Pid, syscall.SIGKILL)
		<-j.done
	}
}

func scriptCondition(cond string, kv int) (bool, error) {
	switch cond {
	case "kv1", "kv2":
		return cond == "kv"+strconv.Itoa(kv), nil
	case "race":
		return vaulttest.Race && kv == 2, nil
	case "openbao":
		return vaulttest.IsOpenBao()
	case "root":
		return os.Getuid() == 0, nil
	}
	return false, fmt.Errorf("unknown condition %q", cond)
}

var scriptCommands = map[string]func(*testscript.TestScript, bool, []string){
	"exitcode":       positive(cmdExitcode),
	"start":          positive(cmdStart),
	"signal":         positive(cmdSignal),
	"finish":         positive(cmdFinish),
	"waitfile":       positive(cmdWaitfile),
	"stderr-lines":   positive(cmdStderrLines),
	"secretfree":     positive(cmdSecretfree),
	"needs":          positive(cmdNeeds),
	"vault-put":      positive(cmdVaultPut),
	"vault-value":    positive(cmdVaultValue),
	"vault-policy":   positive(cmdVaultPolicy),
	"vault-token":    positive(cmdVaultToken),
	"vault-answers":  positive(cmdVaultAnswers),
	"vault-requests": positive(cmdVaultRequests),
	"vault-forget":   positive(cmdVaultForget),
	"vault-mount":    positive(cmdVaultMount),
	"vault":          cmdVault,
}

// positive makes a command of one for which "!" means nothing.
func positive(f func(*testscript.TestScript, *script, []string)) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg {
			ts.Fatalf("this command cannot be negated")
		}
		f(ts, ts.Value(scriptKey{}).(*script), args)
	}
}

func usage(ts *testscript.TestScript, ok bool, text string) {
	if !ok {
		ts.Fatalf("usage: %s", text)
	}
}

func cmdExitcode(ts *testscript.TestScript, _ *script, args []string) {
	usage(ts, len(args) >= 2, "exitcode CODE|SIGNAL COMMAND [ARG...]")
	got := "0"
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("cannot run %s: %v", args[1], err)
		}
		got = vaulttest.Ending(exit.ProcessState)
	}
	if want := vaulttest.Wanted(args[0]); got != want {
		ts.Fatalf("%s ended with %s, want %s", args[1], got, want)
	}
}

func cmdStart(ts *testscript.TestScript, s *script, args []string) {
	usage(ts, len(args) >= 2, "start JOB COMMAND [ARG...]")
	name := args[0]
	if s.jobs[name] != nil {
		ts.Fatalf("there is a job %q already", name)
	}
	j := &job{out: ts.MkAbs(name + ".out"), err: ts.MkAbs(name + ".err"), done: make(chan struct{})}
	stdout, err := os.Create(j.out)
	ts.Check(err)
	defer func() { _ = stdout.Close() }()
	stderr, err := os.Create(j.err)
	ts.Check(err)
	defer func() { _ = stderr.Close() }()

	j.cmd = exec.Command(lookup(ts, args[1]), args[2:]...)
	j.cmd.Args[0] = args[1]
	j.cmd.Dir = ts.MkAbs(".")
	j.cmd.Env = environ(ts)
	j.cmd.Stdout, j.cmd.Stderr = stdout, stderr
	j.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	ts.Check(vaulttest.StartTied(j.cmd))
	go func() {
		_ = j.cmd.Wait()
		close(j.done)
	}()
	s.jobs[name] = j
	ts.Setenv(name+"_pid", strconv.Itoa(j.cmd.Process.Pid))
}

// lookup finds a program in the script's PATH; exec.Command would look in this process's.
func lookup(ts *testscript.TestScript, name string) string {
	if strings.Contains(name, "/") {
		return ts.MkAbs(name)
	}
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	ts.Fatalf("there is no program %q", name)
	return ""
}

// environ returns the script's environment. testscript shows it to nobody but the programs it runs.
func environ(ts *testscript.TestScript) []string {
	file := ts.MkAbs(".environ")
	ts.Check(ts.Exec("sh", "-c", `exec env -0 >"$1"`, "sh", file))
	var vars []string
	for _, v := range strings.Split(strings.TrimSuffix(ts.ReadFile(file), "\x00"), "\x00") {
		switch name, _, _ := strings.Cut(v, "="); name {
		case "_", "SHLVL", "OLDPWD": // the shell's own
		default:
			vars = append(vars, v)
		}
	}
	ts.Check(os.Remove(file))
	return vars
}

func (s *script) job(ts *testscript.TestScript, name string) *job {
	j := s.jobs[name]
	if j == nil {
		ts.Fatalf("there is no job %q", name)
	}
	return j
}

func cmdSignal(ts *testscript.TestScript, s *script, args []string) {
	usage(ts, len(args) == 2, "signal NAME JOB")
	sig := unix.SignalNum("SIG" + args[0])
	if sig == 0 {
		ts.Fatalf("there is no signal %q", args[0])
	}
	if err := s.job(ts, args[1]).cmd.Process.Signal(sig); err != nil {
		ts.Fatalf("cannot send %s to %s: %v", args[0], args[1], err)
	}
}

func cmdFinish(ts *testscript.TestScript, s *script, args []string) {
	usage(ts, len(args) == 2, "finish CODE|SIGNAL[,...] JOB")
	j := s.job(ts, args[1])
	select {
	case <-j.done:
	case <-time.After(time.Minute):
		ts.Fatalf("%s does not end", args[1])
	}
	delete(s.jobs, args[1])
	for file, w := range map[string]interface{ Write([]byte) (int, error) }{j.out: ts.Stdout(), j.err: ts.Stderr()} {
		b, err := os.ReadFile(file)
		ts.Check(err)
		_, _ = w.Write(b)
	}
	got := vaulttest.Ending(j.cmd.ProcessState)
	for _, want := range strings.Split(args[0], ",") {
		if got == vaulttest.Wanted(want) {
			return
		}
	}
	ts.Fatalf("%s ended with %s, want %s", args[1], got, args[0])
}

func cmdWaitfile(ts *testscript.TestScript, _ *script, args []string) {
	usage(ts, len(args) == 1 || len(args) == 2, "waitfile FILE [REGEXP]")
	re := regexp.MustCompile("")
	if len(args) == 2 {
		var err error
		re, err = regexp.Compile("(?m)" + args[1])
		ts.Check(err)
	}
	file := ts.MkAbs(args[0])
	var last []byte
	ok := wait.For(30*time.Second, func() bool {
		b, err := os.ReadFile(file)
		last = b
		return err == nil && re.Match(b)
	})
	if !ok {
		ts.Fatalf("waited in vain for %s; it holds:\n%s", strings.Join(args, " "), last)
	}
}

func cmdStderrLines(ts *testscript.TestScript, _ *script, args []string) {
	usage(ts, len(args) == 1, "stderr-lines N")
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	text := ts.ReadFile("stderr")
	got := strings.Count(text, "\n")
	if text != "" && !strings.HasSuffix(text, "\n") {
		got++ // a last line that was not ended
	}
	if got != want {
		ts.Fatalf("%d lines on standard error, want %d", got, want)
	}
}

func cmdSecretfree(ts *testscript.TestScript, s *script, args []string) {
	for _, file := range append([]string{"stdout", "stderr"}, args...) {
		text := ts.ReadFile(file)
		for _, c := range s.canary {
			for _, form := range vaulttest.Forms(c) {
				if len(form) >= vaulttest.MinCanary && strings.Contains(text, form) {
					ts.Fatalf("%s shows a secret", file)
				}
			}
		}
	}
}

func cmdNeeds(ts *testscript.TestScript, s *script, args []string) {
	usage(ts, len(args) > 0, "needs PROGRAM...")
	for _, name := range args {
		if _, err := needs.Find(name); err != nil {
			needs.Missing(skipper{s.t, s.name + "/" + ts.Name()}, name+", which is not installed")
		}
	}
}

// skipper makes of a script's testing.T what package needs wants. testscript's Skip and Fatal do not return.
type skipper struct {
	testscript.T
	name string
}

func (skipper) Helper()        {}
func (s skipper) Name() string { return s.name }

func cmdVaultPut(ts *testscript.TestScript, s *script, args []string) {
	const text = "vault-put [-hidden] PATH KEY=VALUE... | PATH @FILE"
	usage(ts, len(args) > 0, text)
	hidden := args[0] == "-hidden"
	if hidden {
		args = args[1:]
	}
	usage(ts, len(args) >= 2, text)
	path, body := args[0], []byte(nil)
	if file, ok := strings.CutPrefix(args[1], "@"); ok {
		body = []byte(ts.ReadFile(file))
	} else {
		data := map[string]string{}
		for _, kv := range args[1:] {
			k, v, ok := strings.Cut(kv, "=")
			usage(ts, ok, text)
			if v == "?" {
				v = vaulttest.Canary(k)
			}
			data[k] = v
		}
		var err error
		body, err = json.Marshal(data)
		ts.Check(err)
	}
	values := map[string]any{}
	if json.Unmarshal(body, &values) != nil {
		ts.Fatalf("%s is not a JSON object", args[1])
	}
	s.values[path] = values
	s.canary = append(s.canary, vaulttest.Values(body)...)
	s.srv.PutKV(scriptTB{ts}, s.mount, path, body)
	if hidden {
		return
	}
	rule := fmt.Sprintf("path %q { capabilities = [\"read\"] }\n", ts.Getenv("DATA")+"/"+path)
	s.rules = append(s.rules, rule)
	s.srv.Policy(scriptTB{ts}, s.policy, strings.Join(s.rules, ""))
}

func cmdVaultValue(ts *testscript.TestScript, s *script, args []string) {
	usage(ts, len(args) >= 3, "vault-value FILE PATH KEY...")
	var b strings.Builder
	for _, key := range args[2:] {
		v, ok := s.values[args[1]][key].(string)
		if !ok {
			ts.Fatalf("vault-put wrote no string %s#%s", args[1], key)
		}
		b.WriteString(v + "\n")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(b.String()), 0o600))
}

func cmdVaultPolicy(ts *testscript.TestScript, s *script, args []string) {
	usage(ts, len(args) == 2, "vault-policy VARIABLE FILE")
	hcl := os.Expand(ts.ReadFile(args[1]), ts.Getenv)
	name := s.scope.Name("policy")
	s.srv.Policy(scriptTB{ts}, name, hcl)
	ts.Setenv(args[0], name)
}

func cmdVaultToken(ts *testscript.TestScript, s *script, args []string) {
	const text = "vault-token VARIABLE [-uses=N] [-ttl=D] [-max=D] [-period=D] [-batch] [-default] POLICY..."
	usage(ts, len(args) >= 2, text)
	opts := vaulttest.TokenOpts{NoDefault: true}
	for _, a := range args[1:] {
		name, value, _ := strings.Cut(a, "=")
		var err error
		switch {
		case name == "-uses":
			opts.NumUses, err = strconv.Atoi(value)
		case name == "-ttl":
			opts.TTL, err = time.ParseDuration(value)
		case name == "-max":
			opts.ExplicitMax, err = time.ParseDuration(value)
		case name == "-period":
			opts.Period, err = time.ParseDuration(value)
		case a == "-batch":
			opts.Type = "batch"
		case a == "-default":
			opts.NoDefault = false
		default:
			usage(ts, !strings.HasPrefix(a, "-"), text)
			opts.Policies = append(opts.Policies, a)
		}
		ts.Check(err)
	}
	token := s.srv.Token(scriptTB{ts}, opts)
	s.canary = append(s.canary, token)
	ts.Setenv(args[0], token)
}

func cmdVaultAnswers(ts *testscript.TestScript, s *script, args []string) {
	const text = "vault-answers pass | PREFIX STATUS [ERROR...] | PREFIX reset|truncate|blackhole|html"
	if len(args) == 1 && args[0] == "pass" {
		s.proxy.Clear()
		return
	}
	usage(ts, len(args) >= 2, text)
	behaviour := map[string]vaulttest.Behaviour{
		"reset": vaulttest.Reset, "truncate": vaulttest.Truncate, "blackhole": vaulttest.BlackHole,
		"html": vaulttest.HTML(http.StatusOK),
	}[args[1]]
	if behaviour == nil {
		status, err := strconv.Atoi(args[1])
		usage(ts, err == nil, text)
		behaviour = vaulttest.Errors(status, args[2:]...)
	}
	s.proxy.On(vaulttest.Under(args[0]), behaviour)
}

func cmdVaultRequests(ts *testscript.TestScript, s *script, args []string) {
	usage(ts, len(args) == 1 || len(args) == 2, "vault-requests N[-M] [PREFIX]")
	from, to, between := strings.Cut(args[0], "-")
	least, err := strconv.Atoi(from)
	ts.Check(err)
	most := least
	if between {
		most, err = strconv.Atoi(to)
		ts.Check(err)
	}
	prefix := ""
	if len(args) == 2 {
		prefix = args[1]
	}
	got := 0
	for _, r := range s.proxy.Requests() {
		if strings.HasPrefix(r.Path, prefix) {
			got++
		}
		ts.Logf("%s %s", r.Method, r.Path)
	}
	if got < least || got > most {
		ts.Fatalf("%d requests to %q, want %s", got, prefix, args[0])
	}
}

func cmdVaultForget(ts *testscript.TestScript, s *script, args []string) {
	usage(ts, len(args) == 0, "vault-forget")
	s.proxy.Forget()
}

func cmdVaultMount(ts *testscript.TestScript, s *script, args []string) {
	usage(ts, len(args) == 2 && (args[1] == "1" || args[1] == "2"), "vault-mount PATH 1|2")
	version, err := strconv.Atoi(args[1])
	ts.Check(err)
	s.srv.MountKV(scriptTB{ts}, args[0], version)
	ts.Defer(func() { s.srv.Do(scriptTB{ts}, "DELETE", "sys/mounts/"+vaulttest.Escape(args[0]), nil) })
}

func cmdVault(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) == 2 || len(args) == 3, "[!] vault METHOD PATH [JSON|@FILE]")
	s := ts.Value(scriptKey{}).(*script)
	var body any
	if len(args) == 3 {
		text := args[2]
		if file, ok := strings.CutPrefix(text, "@"); ok {
			text = ts.ReadFile(file)
		}
		s.canary = append(s.canary, vaulttest.Values([]byte(text))...)
		body = text
	}
	status, out := s.srv.Do(scriptTB{ts}, args[0], args[1], body)
	s.canary = append(s.canary, vaulttest.Credentials(out)...)
	answer, err := json.MarshalIndent(out, "", "  ")
	ts.Check(err)
	_, _ = ts.Stdout().Write(append(answer, '\n'))
	if ok := status/100 == 2; ok == neg {
		ts.Fatalf("%s %s: status %d", args[0], args[1], status)
	}
}

// The plumbing itself: what must fail fails, and its log shows no secret.
func TestScriptsFail(t *testing.T) {
	srv := vaulttest.Dev(t)
	bin := filepath.Dir(vaulttest.Build(t, "."))
	for name, tc := range map[string]struct{ script, want string }{
		"exitcode":     {"exitcode 3 sh -c 'exit 4'", "ended with 4, want 3"},
		"signal":       {"exitcode 143 sh -c 'kill -TERM $$'", "ended with signal TERM, want 143"},
		"stderr-lines": {"exec sh -c 'echo >&2'\nstderr-lines 0", "1 lines on standard error, want 0"},
		"secretfree": {"vault-put app KEY=?\nvault-value value app KEY\nexec cat value\nsecretfree",
			"stdout shows a secret"},
		"secretfree token": {"exec sh -c 'echo $VAULT_TOKEN >&2'\nsecretfree", "stderr shows a secret"},
		"cmp": {"vault-put app KEY=?\nvault-value value app KEY\nexec cat value\ncmp stdout other\n-- other --\nx\n",
			"stdout and other differ"},
		"finish":         {"start job true\nfinish 1 job", "job ended with 0, want 1"},
		"vault-requests": {"vault-requests 1", `0 requests to "", want 1`},
		"vault":          {"! vault GET sys/health", "status 200"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "fails.txtar")
			if err := os.WriteFile(file, []byte(tc.script), 0o600); err != nil {
				t.Fatal(err)
			}
			rec := &recorder{}
			testscript.RunT(rec, testscript.Params{
				Files:     []string{file},
				Setup:     func(env *testscript.Env) error { return setupScript(env, srv, 2, bin) },
				Condition: func(cond string) (bool, error) { return scriptCondition(cond, 2) },
				Cmds:      scriptCommands,
			})
			if !rec.failed {
				t.Errorf("the script passes; its log:\n%s", vaulttest.Redact(rec.log))
			}
			// What redacted does to every log.
			log := vaulttest.Redact(rec.log)
			if !strings.Contains(log, tc.want) {
				t.Errorf("%q is missing in:\n%s", tc.want, log)
			}
			if strings.Contains(log, "canary-") || strings.Contains(log, srv.RootToken) || strings.Contains(log, "hvs.") {
				t.Error("the log shows a secret")
			}
		})
	}
}

// recorder is a testscript.T that fails for itself alone.
type recorder struct {
	log    string
	failed bool
}

func (r *recorder) Skip(...any)    {}
func (r *recorder) Fatal(a ...any) { r.Log(a...); r.FailNow() }
func (r *recorder) Parallel()      {}
func (r *recorder) Log(a ...any)   { r.log += fmt.Sprint(a...) }
func (r *recorder) FailNow()       { r.failed = true; runtime.Goexit() }
func (r *recorder) Verbose() bool  { return true }
func (r *recorder) Run(_ string, f func(testscript.T)) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(r)
	}()
	<-done
}
