package scan

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// repo is a git repository, which somebody else may have made. Its configuration, its index and its objects are data
// here: what they name is not run.
type repo struct {
	dir     string            // the git directory
	top     string            // the work tree; "" in a bare one
	at      string            // where git is started
	index   string            // another index than its own
	warn    func(text string) // is told what git says although it goes well; nil for nobody
	environ []string
}

// asData is the beginning of every command line. Only commands are used that look at neither attributes nor filters
// (ls-files without -m, cat-file without --textconv or --filters, rev-list, and diff-tree and diff-index --cached
// without -p). These options turn off what is left: a monitor of the file system, hooks, replaced objects, and
// transports, which fetch what a partial clone has not.
var asData = []string{"--no-pager", "--no-replace-objects", "--no-optional-locks", "--literal-pathspecs",
	"-c", "core.fsmonitor=", "-c", "core.hooksPath=/dev/null", "-c", "core.untrackedCache=false",
	"-c", "protocol.allow=never", "-c", "log.showSignature=false", "-c", "gc.auto=0", "-c", "maintenance.auto=false"}

// gitEnviron is all that git gets besides what names the repository. GIT_ALLOW_PROTOCOL wins over protocol.*.allow in
// the repository's configuration, and a GIT_DIR over core.worktree.
var gitEnviron = []string{"GIT_CONFIG_NOSYSTEM=1", "GIT_ATTR_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "GIT_OPTIONAL_LOCKS=0",
	"GIT_NO_REPLACE_OBJECTS=1", "GIT_NO_LAZY_FETCH=1", "GIT_ALLOW_PROTOCOL=none", "GIT_PAGER=cat", "LC_ALL=C"}

// passedToGit are the variables of this process that git gets.
var passedToGit = []string{"PATH", "HOME", "XDG_CONFIG_HOME", "TMPDIR"}

// command makes a git process.
func (r *repo) command(ctx context.Context, args ...string) (*exec.Cmd, *complaint) {
	cmd := exec.CommandContext(ctx, "git", append(slices.Clone(asData), args...)...)
	cmd.Dir = r.at
	for _, kv := range r.environ {
		if name, _, ok := strings.Cut(kv, "="); ok && slices.Contains(passedToGit, name) {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(append(cmd.Env, gitEnviron...), "GIT_DIR="+r.dir)
	if r.top != "" {
		cmd.Env = append(cmd.Env, "GIT_WORK_TREE="+r.top)
	}
	if r.index != "" {
		cmd.Env = append(cmd.Env, "GIT_INDEX_FILE="+r.index)
	}
	said := &complaint{}
	cmd.Stderr, cmd.WaitDelay = said, 5*time.Second
	return cmd, said
}

// complaint keeps the beginning of what git says on standard error.
type complaint struct{ text []byte }

// Write implements io.Writer.
func (c *complaint) Write(b []byte) (int, error) {
	const most = 1 << 10
	c.text = append(c.text, b[:min(len(b), most-len(c.text))]...)
	return len(b), nil
}

// String is the line that git ended with, or the first.
func (c *complaint) String() string {
	for line := range strings.Lines(string(c.text)) {
		if why, ok := strings.CutPrefix(line, "fatal: "); ok {
			return strings.TrimSpace(why)
		}
	}
	line, _, _ := strings.Cut(string(c.text), "\n")
	return strings.TrimSpace(line)
}

// pass tells what git says although it goes well: that it cannot open a folder, for instance. A file of settings or of
// names to ignore that it cannot read hides nothing.
func (r *repo) pass(said *complaint) {
	for line := range strings.Lines(string(said.text)) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "warning: ")
		if r.warn != nil && line != "" && !strings.HasPrefix(line, "unable to access") {
			r.warn("git says: " + line)
		}
	}
}

// fails turns the end of git into a failure; nil when it went well.
func (r *repo) fails(ctx context.Context, err error, said *complaint) error {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case context.Cause(ctx) == errStuck:
		return &fault.Error{Kind: fault.Usage, What: "cannot look into the repository " + quoted(r.dir), Why: errStuck.Error(),
			Hint: "`find . -type p` shows them"}
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, exec.ErrDot):
		return &fault.Error{Kind: fault.Usage, What: "cannot look into the repository", Why: "there is no git on the PATH",
			Hint: "install git, or scan a copy without .git"}
	case errors.As(err, &exit):
		what := said.String()
		if what == "" {
			what = exit.String()
		}
		return &fault.Error{Kind: fault.Usage, What: "cannot look into the repository " + quoted(r.dir), Why: "git says: " + what,
			Hint: "`git fsck` says whether it is whole"}
	}
	return &fault.Error{Kind: fault.Usage, What: "cannot look into the repository " + quoted(r.dir), Why: why(err),
		Hint: "it takes processes, memory and descriptors to run git"}
}

// errEnough ends git before its end.
var errEnough = errors.New("enough")

// read runs git and hands its standard output to take. input, if not nil, writes its standard input.
func (r *repo) read(ctx context.Context, args []string, input func(io.Writer) error, take func(*bufio.Reader) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cmd, said := r.command(ctx, args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return r.fails(ctx, err, said)
	}
	var in io.WriteCloser
	if input != nil {
		if in, err = cmd.StdinPipe(); err != nil {
			return r.fails(ctx, err, said)
		}
	}
	if err := cmd.Start(); err != nil {
		return r.fails(ctx, err, said)
	}
	wrote, over := make(chan error, 1), make(chan struct{})
	defer close(over)
	answer := &awaited{out: out}
	watch := func() { answer.stuck(cmd.Process.Pid, stuckAfter, over, func() { cancel(errStuck) }) }
	go func() {
		defer func() { go watch() }() // while it has input to wait for, it may sleep
		if in == nil {
			wrote <- nil
			return
		}
		w := bufio.NewWriter(in)
		err := input(w)
		if err == nil {
			err = w.Flush()
		}
		in.Close()
		wrote <- err
	}()
	taken := take(answer.buffered())
	if taken != nil {
		cancel(nil) // git may go on writing
	}
	werr := <-wrote
	err = cmd.Wait()
	switch {
	case taken == errEnough:
		return nil
	case taken != nil && !errors.Is(taken, io.ErrUnexpectedEOF):
		return taken
	case err == nil && taken != nil:
		return r.fails(ctx, taken, said)
	case err == nil:
		r.pass(said)
		return werr
	}
	return r.fails(ctx, err, said)
}

// lines hands each item of git's output to take, without what ends it.
func (r *repo) lines(ctx context.Context, end byte, args []string, take func(string) error) error {
	return r.read(ctx, args, nil, eachLine(end, take))
}

func eachLine(end byte, take func(string) error) func(*bufio.Reader) error {
	return func(out *bufio.Reader) error {
		for {
			item, err := out.ReadBytes(end)
			if err == io.EOF && len(item) == 0 {
				return nil
			}
			if err != nil && err != io.EOF {
				return err
			}
			if err := take(string(bytes.TrimSuffix(item, []byte{end}))); err != nil {
				return err
			}
		}
	}
}

// object is what cat-file --batch says of one.
type object struct {
	id, kind string
	size     int64
}

// next reads the head of an object; "" is the kind of one that is missing.
func nextObject(out *bufio.Reader) (object, error) {
	line, err := out.ReadString('\n')
	if err == io.EOF && line == "" {
		return object{}, io.EOF
	}
	f := strings.Fields(line)
	if err == nil && len(f) == 2 && f[1] == "missing" {
		return object{id: f[0]}, nil
	}
	if err != nil || len(f) != 3 {
		return object{}, io.ErrUnexpectedEOF
	}
	size, err := strconv.ParseInt(f[2], 10, 64)
	if err != nil || size < 0 {
		return object{}, io.ErrUnexpectedEOF
	}
	return object{f[0], f[1], size}, nil
}

// isID reports whether a text is the full name of an object that is not all zeros.
func isID(s string) bool {
	return len(s) >= 40 && strings.Trim(s, "0123456789abcdef") == "" && strings.Trim(s, "0") != ""
}

// quoted is a name for a person, on one line.
func quoted(name string) string { return strconv.Quote(name) }

// repoOf finds the repository of a folder, which may be a bare one.
func (s *Scanner) repoOf(dir string) (*repo, error) {
	abs, err := realPath(dir)
	if err != nil {
		return nil, cannotScan(dir, why(err), "name a folder that can be read")
	}
	r := &repo{at: abs, environ: s.opts.Environ, warn: func(text string) { s.unread("(repository)", text) }}
	if IsGitDir(abs) {
		r.dir = abs
		return r, nil
	}
	if r.top, r.dir = GitDir(abs); r.dir == "" {
		return nil, cannotScan(dir, "it is in no git repository", "leave --history and --staged out to look into its files")
	}
	return r, nil
}

func realPath(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	return abs, err
}
