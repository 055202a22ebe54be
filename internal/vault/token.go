package vault

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/hcl"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/reap"
	"github.com/agenticverz/vaultexec/internal/trust"
)

// maxCredential bounds a credential file; tokens and JWTs are a few KiB at most.
const maxCredential = 1 << 20

// ReadCredential reads a credential from a file and drops white space around it. option names where the path came from,
// and allow the users whose files count as one's own.
func ReadCredential(option, path string, allow ...int) (Text, error) {
	s, err := readSmall(option, path, allow)
	if err != nil {
		return Text{}, err
	}
	return CheckCredential(fmt.Sprintf("%s %q", option, path), s)
}

// FileHint is for a file that cannot be read.
const FileHint = "name a file that is there and that this user may read"

// readSmall reads a file that holds a credential.
func readSmall(option, path string, allow []int) (string, error) {
	e := &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot read %s %q", option, path), Hint: FileHint}
	f, err := trust.Open(path, allow)
	if err != nil {
		e.Why, e.Hint, e.Err = Errno(err), trust.Cure(err, FileHint), err
		return "", e
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxCredential+1))
	switch {
	case err != nil:
		e.Why, e.Err = Errno(err), err
	case len(b) > maxCredential:
		e.Why, e.Hint = "it is too large for a credential", "name the file that holds the credential and nothing else"
	default:
		return string(b), nil
	}
	return "", e
}

// CheckCredential drops white space around a credential and refuses what could not be one. name names it in the error.
func CheckCredential(name, s string) (Text, error) {
	s = strings.TrimSpace(s)
	e := &fault.Error{Kind: fault.Usage, What: "cannot use " + name}
	switch {
	case s == "":
		e.Cause, e.Why, e.Hint = fault.Empty, "it is empty", "put the credential there, and nothing else"
	case strings.HasPrefix(s, "{") && json.Valid([]byte(s)):
		return inJSON(name, s)
	case quoted(s):
		e.Why, e.Hint = "it is in quotes", "leave them out: only a shell removes them"
	case strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f }) >= 0:
		e.Why, e.Hint = "it holds a character that no credential has",
			"put the credential there, and nothing else: not even a blank or a line break in it"
	default:
		return NewText(s), nil
	}
	return Text{}, e
}

// quoted reports whether s begins and ends with the same quote, as a line of a file that was meant for a shell does.
func quoted(s string) bool {
	s = strings.TrimSpace(s)
	return len(s) > 1 && (s[0] == '"' || s[0] == '\'') && s[0] == s[len(s)-1]
}

// helperLimit bounds how long a token helper may take. A person may have to unlock something for it.
const helperLimit = time.Minute

// StrippedHint is for a credential that is missing, and may have been taken out of the environment. Nothing that is
// left says whether it was: the vaultexec that did so may have become the one that misses it.
const StrippedHint = "a vaultexec that starts another one hands it no credentials unless it has --keep-token"

// StoredToken returns the token that the Vault CLI would use: see FindStore.
func StoredToken(ctx context.Context, home, configPath string, environ []string, allow ...int) (Text, error) {
	store, err := FindStore(ctx, home, configPath, environ, allow...)
	if err != nil {
		return Text{}, err
	}
	return store.Token(ctx)
}

// homeReads are the reads of a home directory.
var homeReads beside

func readBeside[T any](ctx context.Context, what, path string, read func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	results := make(chan result, 1)
	if !homeReads.do(ctx, readLimit, func() {
		value, err := read()
		results <- result{value, err}
	}) {
		var none T
		return none, noRead(what, path, cmp.Or(ctx.Err(), context.DeadlineExceeded))
	}
	r := <-results
	return r.value, r.err
}

// HasTokenHelper reports whether StoredToken would run a program, or cannot tell.
func HasTokenHelper(home, configPath string, allow ...int) bool {
	configPath = cliConfig(home, configPath)
	if configPath == "" {
		return false
	}
	helper, err := tokenHelper(configPath, allow)
	return helper != "" || err != nil
}

// cliConfig is the path of the Vault CLI's configuration file.
func cliConfig(home, configPath string) string {
	if configPath == "" && home != "" {
		return filepath.Join(home, ".vault")
	}
	return configPath
}

// tokenHelper returns the token_helper of the Vault CLI's configuration file. HCL was its format from the start.
func tokenHelper(path string, allow []int) (string, error) {
	if isDir(path) {
		return "", nil
	}
	var b []byte
	f, err := trust.Open(path, allow)
	if err == nil {
		b, err = io.ReadAll(f)
		f.Close()
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	e := &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot read the Vault CLI's configuration %q", path),
		Hint: "set VAULT_TOKEN or give --token-file to do without it"}
	if err != nil {
		e.Why, e.Hint = Errno(err), trust.Cure(err, e.Hint)
		return "", e
	}
	var conf struct {
		TokenHelper string `hcl:"token_helper"`
	}
	if err := hcl.Decode(&conf, string(b)); err != nil { // err may quote the file; Ansible keeps a password in ~/.vault
		e.Why = "it is not HCL"
		return "", e
	}
	return conf.TokenHelper, nil
}

// askHelper returns the token that a token helper has.
func (s *Store) askHelper(ctx context.Context) (Text, error) {
	what := fmt.Sprintf("cannot get a token from the token helper %q", s.helper)
	out, err := s.runHelper(ctx, what, "get", Text{})
	if err != nil {
		return Text{}, err
	}
	if len(bytes.TrimSpace(out)) == 0 {
		return Text{}, &fault.Error{Kind: fault.Usage, Cause: fault.NoToken, What: what, Why: "it has no token",
			Hint: "log in with `vaultexec login`; " + s.named()}
	}
	return CheckCredential("the token helper's answer", string(out))
}

// named says where the helper is named.
func (s *Store) named() string { return "token_helper in " + s.config + " names the helper" }

func (s *Store) helperHint() string {
	return "correct token_helper in " + s.config + ", or set VAULT_TOKEN or give --token-file to do without it"
}

// checkHelper says why the helper cannot be run.
func (s *Store) checkHelper(what string) error {
	if !filepath.IsAbs(s.helper) {
		return &fault.Error{Kind: fault.Usage, What: what, Why: "its path is not absolute", Hint: s.helperHint()}
	}
	if err := trust.Program(s.helper, s.allow); err != nil {
		hint := s.helperHint()
		if cure := trust.Cure(err, ""); cure != "" {
			hint = cure + "; " + s.named()
		}
		return &fault.Error{Kind: fault.Usage, What: what, Why: Errno(err), Hint: hint, Err: err}
	}
	return nil
}

// runHelper runs "HELPER get", "store" or "erase" as the Vault CLI does, without os/exec: while a command is supervised
// every child is reaped by the main goroutine, which would leave os/exec waiting for a status that is gone.
//
// It is waited for a minute at most, and no longer than ctx: a helper that hangs must not keep vaultexec from ending
// after its command, nor the watch from going on. Then it is left alone: its process ID may be somebody else's by now.
func (s *Store) runHelper(ctx context.Context, what, verb string, input Text) ([]byte, error) {
	if err := s.checkHelper(what); err != nil {
		return nil, err
	}
	hint := s.helperHint()
	type answer struct {
		out    []byte
		status syscall.WaitStatus
		err    error
	}
	answers := make(chan answer, 1)
	go func() {
		out, status, err := output(s.helper, []string{s.helper, verb}, s.environ, input)
		answers <- answer{out, status, err}
	}()
	limited, cancel := context.WithTimeout(ctx, helperLimit)
	defer cancel()
	var a answer
	select {
	case a = <-answers:
	case <-limited.Done():
		return nil, &fault.Error{Kind: fault.Away, What: what,
			Why: fmt.Sprintf("it did not answer within %s", helperLimit), Hint: hint, Err: limited.Err()}
	}
	switch status := a.status; {
	case a.err != nil:
		return nil, &fault.Error{Kind: fault.Usage, What: what, Why: Errno(a.err), Hint: hint}
	case status.Exited() && status.ExitStatus() != 0:
		return nil, &fault.Error{Kind: fault.Usage, What: what,
			Why: fmt.Sprintf("it ended with exit status %d", status.ExitStatus()), Hint: hint}
	case status.Signaled():
		return nil, &fault.Error{Kind: fault.Usage, What: what,
			Why: "it was ended by signal " + status.Signal().String(), Hint: hint}
	}
	return a.out, nil
}

// output returns what a program wrote to its standard output, and how it ended (0 when nobody can tell). It reads input
// from its standard input.
func output(path string, argv, environ []string, input Text) ([]byte, syscall.WaitStatus, error) {
	in, err := inputOf(input)
	if err != nil {
		return nil, 0, err
	}
	defer in.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return nil, 0, err
	}
	defer r.Close()
	wait, err := reap.Start(path, argv, &syscall.ProcAttr{Env: environ, Files: []uintptr{in.Fd(), w.Fd(), 2}})
	w.Close()
	if err != nil {
		return nil, 0, err
	}
	out, err := io.ReadAll(io.LimitReader(r, maxCredential))
	status, _ := wait()
	return out, status, err
}

// inputOf is a pipe with all of the input in it, whose end has come. A token is smaller than a pipe.
func inputOf(input Text) (*os.File, error) {
	if input.Empty() {
		return os.Open(os.DevNull)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	err = w.SetWriteDeadline(time.Now().Add(time.Second))
	if err == nil {
		_, err = w.WriteString(input.Reveal())
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}
