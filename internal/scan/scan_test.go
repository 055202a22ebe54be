package scan

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/agenticverz/vaultexec/internal/mask"
	"github.com/agenticverz/vaultexec/internal/needs"
)

const leastMasked = 6

// secretOf are options that look for values, each under a key of its own.
func secretOf(values ...string) Options {
	o := Options{Needles: mask.NewNeedles(values, leastMasked), Environ: os.Environ(), Parts: make([]bool, len(values))}
	for i := range values {
		o.Keys = append(o.Keys, "app#K"+strconv.Itoa(i))
	}
	return o
}

// git runs git as a person would, with a configuration of its own.
func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	path := needs.Program(t, "git")
	cmd := exec.Command(path, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com",
		"GIT_AUTHOR_DATE=2026-01-01T00:00:00Z", "GIT_COMMITTER_DATE=2026-01-01T00:00:00Z")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// places are findings as FILE:LINE.
func places(r *Result) []string {
	list := []string{}
	for _, f := range r.Findings {
		at := fmt.Sprintf("%s:%d", f.File, f.Line)
		if !slices.Contains(list, at) {
			list = append(list, at)
		}
	}
	return list
}

func scanTree(t *testing.T, o Options, dir string, ignored bool) *Result {
	t.Helper()
	s := New(o)
	if err := s.Tree(t.Context(), dir, ignored); err != nil {
		t.Fatal(err)
	}
	return s.Result()
}

func want(t *testing.T, r *Result, list ...string) {
	t.Helper()
	if got := places(r); !slices.Equal(got, append([]string{}, list...)) {
		t.Errorf("found %q, want %q", got, list)
	}
	for _, u := range r.Unread {
		t.Errorf("not looked into: %+v", u)
	}
}

func folded(s string, width int, between string) string {
	var lines []string
	for ; len(s) > width; s = s[width:] {
		lines = append(lines, s[:width])
	}
	return strings.Join(append(lines, s), between)
}

func inUTF16(v string, little bool) string {
	var b []byte
	for _, u := range utf16.Encode([]rune(v)) {
		if little {
			b = append(b, byte(u), byte(u>>8))
		} else {
			b = append(b, byte(u>>8), byte(u))
		}
	}
	return string(b)
}

// planted are forms of a value, as files have them.
func planted(v string) map[string]string {
	std := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	raw := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	quoted := func(s string) string { b, _ := json.Marshal(s); return string(b) }
	octal := ""
	for i := range len(v) {
		octal += fmt.Sprintf(`\%03o`, v[i])
	}
	forms := map[string]string{
		"plain.env": "KEY=" + v, "shell.sh": "export KEY='" + v + "'", "json.json": `{"key": ` + quoted(v) + "}",
		"json-in-json": quoted(`{"key":` + quoted(v) + "}"), "go.go": "const key = " + strconv.Quote(v), "ascii.py": "key = " + strconv.QuoteToASCII(v),
		"html.html": "<b>" + html.EscapeString(v) + "</b>", "query": "https://x/?key=" + url.QueryEscape(v) + "&y", "path": "https://x/" + url.PathEscape(v),
		"twice-url": url.QueryEscape(url.QueryEscape(v)), "userinfo": url.UserPassword("app", v).String() + "@db", "octal": octal,
		"base64-0": std(v), "base64-1": std("a" + v), "base64-2": std("ab" + v), "basic": "Authorization: Basic " + std("app:"+v),
		"base64url-0": raw(v), "base64url-1": raw("a" + v), "base64url-2": raw("ab" + v),
		"hex": hex.EncodeToString([]byte(v)), "HEX": strings.ToUpper(hex.EncodeToString([]byte(v))), "hex-more": hex.EncodeToString([]byte("user:" + v + ";")),
		"base64-of-base64": std(std(v)), "base64-of-json": std(`{"key":` + quoted(v) + "}"), "hex-of-base64": hex.EncodeToString([]byte(std(v))),
		"base64-of-hex": std(hex.EncodeToString([]byte(v))), "base64-of-url": std(url.QueryEscape(v)), "url-of-base64": url.QueryEscape(std("xy" + v)),
		"powershell": std(inUTF16(v, true)), "dump": fmt.Sprintf("% x", v), "DUMP": fmt.Sprintf("% X", v), "bytes": fmt.Sprint([]byte(v)),
		"block.yaml": "key: |\n  " + v + "\nnext: x", "folded-text": folded(v, 11, "\n"), "folded-base64": folded(std(strings.Repeat("x", 60)+v), 76, "\n"),
		"folded-hex": folded(hex.EncodeToString([]byte(v)), 32, "\r\n  "), "continued.c": folded(v, 9, "\\\n"), "tagged": "<key>" + html.EscapeString(v) + "</key>",
		"sql": "VALUES ('" + strings.ReplaceAll(v, "'", "''") + "')", "csv": `a,"` + strings.ReplaceAll(v, `"`, `""`) + `",b`,
	}
	return forms
}

// decoys look like a value and are none.
func decoys(v string) []string {
	r := rand.New(rand.NewPCG(1, 2))
	var list []string
	for i := range len(v) { // one character is another
		b := []byte(v)
		b[i] = 'A' + byte(r.IntN(26))
		if string(b) != v {
			list = append(list, string(b), hex.EncodeToString(b), base64.StdEncoding.EncodeToString(b))
		}
	}
	for n := 4; n < len(v); n++ { // only the beginning, or the end
		list = append(list, v[:n], v[len(v)-n:], base64.StdEncoding.EncodeToString([]byte(v[:n])))
	}
	return append(list, strings.ToUpper(v), strings.ToLower(v), "true", "localhost", "5432", "a1b2c3d4e5f60718293a4b5c6d7e8f90")
}

const plantedValue = `tr0ub4dor&3-"Correct"-h0rse/Batt3ry`

// TestPlanted: forty forms in two thousand files, in a tree and in its history, each found in its line; nothing else.
func TestPlanted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	git(t, dir, "init", "-q", "-b", "main")
	forms := planted(plantedValue)
	if len(forms) != 40 {
		t.Fatalf("%d forms", len(forms))
	}
	for i := range 1760 {
		write(t, dir, fmt.Sprintf("src/%02d/file-%04d.txt", i%50, i), fmt.Sprintf("a file like any other\nwith the number %d\n", i))
	}
	var inTree, inHistory []string
	for name, text := range forms {
		line := 3
		if name == "block.yaml" || name == "folded-base64" {
			line = 4
		}
		write(t, dir, "planted/"+name, name+"\ntwo\n"+text+"\nend\n") // or two forms may be one blob
		inTree = append(inTree, fmt.Sprintf("planted/%s:%d", name, line))
		inHistory = append(inHistory, fmt.Sprintf("gone/%s:%d", name, line-1))
		write(t, dir, "gone/"+name, name+"\n"+text+"\nend, which is another\n")
	}
	git(t, dir, "add", "-A")
	git(t, dir, "commit", "-q", "-m", "first")
	first := git(t, dir, "rev-parse", "HEAD")
	git(t, dir, "rm", "-q", "-r", "gone")
	for i, d := range decoys(plantedValue)[:200] {
		write(t, dir, fmt.Sprintf("decoys/%03d.env", i), "one\nKEY="+d+"\n")
	}
	git(t, dir, "add", "-A")
	git(t, dir, "commit", "-q", "-m", "second")
	slices.Sort(inTree)
	slices.Sort(inHistory)
	o := secretOf(plantedValue)
	r := scanTree(t, o, dir, false)
	got := slices.Sorted(slices.Values(places(r)))
	if !slices.Equal(got, inTree) || len(r.Unread) > 0 {
		t.Errorf("in the tree: missing %q, too many %q, unread %v", without(inTree, got), without(got, inTree), r.Unread)
	}
	if r.Files != 2000 {
		t.Errorf("%d files", r.Files)
	}
	s := New(o)
	if err := s.History(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	r = s.Result()
	got = slices.Sorted(slices.Values(places(r)))
	if all := slices.Concat(inHistory, inTree); !slices.Equal(got, all) || len(r.Unread) > 0 {
		t.Errorf("in the history: missing %q, too many %q, unread %v", without(all, got), without(got, all), r.Unread)
	}
	for _, f := range r.Findings {
		if f.Commit != first || f.Object == "" {
			t.Errorf("%+v is not of commit %s", f, first)
		}
	}
	other := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' {
			return 'a' + (r-'a'+5)%26
		}
		return r
	}, plantedValue)
	s = New(secretOf(other))
	if err := s.Tree(t.Context(), dir, true); err != nil {
		t.Fatal(err)
	}
	if err := s.History(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	want(t, s.Result())
}

func without(list, others []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(others, s) })
}

// Which files are looked into.
func TestTree(t *testing.T) {
	t.Parallel()
	const v = "Xk9qLm2pWz7Rt4"
	o := secretOf(v)
	dir := t.TempDir()
	outside := filepath.Join(t.TempDir(), "outside")
	write(t, outside, "secret", v)
	write(t, dir, "a/tracked", v+"\n")
	write(t, dir, "a/other", "x\n"+v+"\n")
	write(t, dir, "a/ignored.log", v)
	write(t, dir, "build/x/y", v)
	write(t, dir, "b/binary", "\x00\x01\n"+v)
	write(t, dir, "line\nbreak\x1b[31m", v)
	write(t, dir, ".gitignore", "*.log\nbuild/\n")
	for name, target := range map[string]string{"link": outside + "/secret", "linked": outside, "a/up": "..", "a/self": "tracked"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	all := []string{"a/ignored.log:1", "a/other:2", "a/tracked:1", "b/binary:0", "build/x/y:1", "line\nbreak\x1b[31m:1"}
	want(t, scanTree(t, o, dir, false), all...)
	git(t, dir, "init", "-q")
	git(t, dir, "add", "a/tracked", "link", "linked", "a/up")
	write(t, dir, ".git/secret", v)
	seen := without(all, []string{"a/ignored.log:1", "build/x/y:1"})
	want(t, scanTree(t, o, dir, false), seen...)
	want(t, scanTree(t, o, dir, true), all...)
	want(t, scanTree(t, o, filepath.Join(dir, "a"), false), "other:2", "tracked:1")
	// A folder that is ignored as a whole is not clean.
	if r := scanTree(t, o, filepath.Join(dir, "build"), false); len(r.Findings) > 0 || len(r.Unread) != 1 || r.Unread[0].Name != "." {
		t.Errorf("an ignored folder: %+v", r)
	}
	want(t, scanTree(t, o, filepath.Join(dir, "build"), true), "x/y:1")
	if r := scanTree(t, o, dir, false); r.Findings[2].Offset != 3 {
		t.Errorf("%+v is not at 3", r.Findings[2])
	}

	// Submodules and other repositories know themselves what they ignore.
	sub := filepath.Join(t.TempDir(), "sub")
	write(t, sub, "s", v)
	write(t, sub, ".gitignore", "out")
	git(t, sub, "init", "-q")
	git(t, sub, "add", "-A")
	git(t, sub, "commit", "-q", "-m", "x")
	git(t, dir, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", sub, "mod/sub")
	write(t, dir, "mod/sub/new", v)
	write(t, dir, "mod/sub/out", v)
	git(t, dir, "init", "-q", "nested")
	write(t, dir, "nested/n", v)
	seen = append(seen[:len(seen):len(seen)], "mod/sub/new:1", "mod/sub/s:1", "nested/n:1")
	slices.Sort(seen)
	want(t, scanTree(t, o, dir, false), seen...)

	// In a linked work tree .git is a file.
	git(t, dir, "commit", "-q", "-m", "x")
	linked := filepath.Join(t.TempDir(), "linked")
	git(t, dir, "worktree", "add", "-q", linked, "-b", "other")
	write(t, linked, "here", v)
	want(t, scanTree(t, o, linked, false), "a/tracked:1", "here:1")
}

// What cannot be looked into is said, and what is no file is left alone.
func TestUnread(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "a", "x")
	if err := exec.Command("mkfifo", filepath.Join(dir, "fifo")).Run(); err != nil {
		t.Fatal(err)
	}
	o := secretOf("Xk9qLm2pWz7Rt4")
	want(t, scanTree(t, o, dir, false))
	git(t, dir, "init", "-q")
	want(t, scanTree(t, o, dir, true))
	if os.Geteuid() != 0 {
		if err := os.Chmod(filepath.Join(dir, "a"), 0); err != nil {
			t.Fatal(err)
		}
		if r := scanTree(t, o, dir, false); fmt.Sprint(r.Unread) != "[{a permission denied}]" {
			t.Errorf("%+v", r.Unread)
		}
		closed := filepath.Join(dir, "closed")
		write(t, dir, "closed/b", "x")
		if err := os.Chmod(closed, 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Chmod(closed, 0o700) })
		inGit := fmt.Sprint(scanTree(t, o, dir, false).Unread)
		if err := os.RemoveAll(filepath.Join(dir, ".git")); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(scanTree(t, o, dir, false).Unread); got != "[{a permission denied} {closed permission denied}]" || !strings.Contains(inGit, "closed/") {
			t.Errorf("%s, in a repository %s", got, inGit)
		}
	}
	s := New(o)
	s.Stream(t.Context(), failing{})
	if r := s.Result(); fmt.Sprint(r.Unread) != "[{- input/output error}]" {
		t.Errorf("%+v", r.Unread)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := New(o).Tree(ctx, dir, false); err == nil {
		t.Error("an interrupted scan is none")
	}
}

// Standard input of any size is searched as it comes.
func TestStream(t *testing.T) {
	t.Parallel()
	const v = "Xk9qLm2pWz7Rt4"
	s := New(secretOf(v))
	s.Stream(t.Context(), strings.NewReader(strings.Repeat("a line\n", 1<<20)+v+"\n"+v))
	want(t, s.Result(), "-:1048577", "-:1048578")
	s = New(secretOf(v))
	s.Stream(t.Context(), strings.NewReader(v+v+" "+v+"\n"+v))
	if r := s.Result(); len(r.Findings) != 2 {
		t.Errorf("a line tells it more than once: %+v", r.Findings)
	}
	s = New(secretOf(v, "another-1"))
	s.Stream(t.Context(), bytes.NewReader(append(make([]byte, 1<<20), "another-1"...)))
	if r := s.Result(); len(r.Findings) != 1 || r.Findings[0] != (Finding{File: "-", Offset: 1 << 20, Key: "app#K1", Form: "plain"}) {
		t.Errorf("%+v", r.Findings)
	}
}

// A file is never in memory as a whole, and neither is a blob.
func TestLarge(t *testing.T) { // not parallel: others allocate, too
	const size = 64 << 20
	dir := t.TempDir()
	git(t, dir, "init", "-q")
	f, err := os.Create(filepath.Join(dir, "core"))
	if err == nil {
		_, err = f.WriteAt([]byte(hidden), size)
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	o := secretOf(hidden)
	git(t, dir, "add", "-A")
	for name, look := range map[string]func(*Scanner) error{
		"file":   func(s *Scanner) error { return s.Tree(t.Context(), dir, false) },
		"staged": func(s *Scanner) error { return s.Staged(t.Context(), dir) },
		"object": func(s *Scanner) error { return s.History(t.Context(), dir) },
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		s := New(o)
		if err := look(s); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		if r := s.Result(); len(r.Findings) != 1 || r.Findings[0].Offset != size {
			t.Errorf("%s: %+v", name, r)
		}
		if n := (after.TotalAlloc - before.TotalAlloc) >> 20; n > 16 {
			t.Errorf("%s: %d MB are allocated", name, n)
		}
	}
}
