package scan

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
)

// inMemory is how large an object may be that is read before it is searched, so that the next can be.
const inMemory = 4 << 20

// History looks into every object of a repository: blobs, and the texts of commits and tags, whether a ref reaches
// them or not. Each is looked into once.
func (s *Scanner) History(ctx context.Context, dir string) error {
	r, err := s.repoOf(dir)
	if err != nil {
		return err
	}
	partial := s.incomplete(ctx, r)
	work := make(chan loaded)
	go func() {
		defer close(work)
		err = r.read(ctx, []string{"cat-file", "--batch-all-objects", "--unordered", "--buffer", "--batch"}, nil,
			func(out *bufio.Reader) error { return s.objects(ctx, out, work, nil) })
	}()
	parallel(ctx, work, s.lookIntoObject)
	if err == nil && !partial {
		err = s.missing(ctx, r)
	}
	if err != nil {
		return err
	}
	return s.nameObjects(ctx, r)
}

// missing notes objects that commits name and that the repository has not. (One that has only what it has cannot tell by
// itself.)
func (s *Scanner) missing(ctx context.Context, r *repo) error {
	n, first := 0, ""
	err := r.lines(ctx, '\n', []string{"rev-list", "--objects", "--all", "--quiet", "--missing=print"}, func(line string) error {
		if id, ok := strings.CutPrefix(line, "?"); ok {
			if n++; n == 1 {
				first = id
			}
		}
		return nil
	})
	if n > 0 {
		s.unread("(history)", fmt.Sprintf("%d of the objects that commits name are missing, such as %s", n, first))
	}
	return err
}

// loaded is an object on its way to a searcher.
type loaded struct {
	object
	name string
	text []byte
}

// objects reads objects as cat-file --batch writes them. names, if not nil, are those of the files, in the same order.
func (s *Scanner) objects(ctx context.Context, out *bufio.Reader, work chan<- loaded, names []string) error {
	for i := 0; ; i++ {
		o, err := nextObject(out)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		name := ""
		if i < len(names) {
			name = names[i]
		}
		switch {
		case o.kind == "":
			if name == "" {
				name = "(object " + o.id + ")"
			}
			s.unread(name, "the repository does not have its content")
			continue
		case o.kind == "tree":
			_, err = io.CopyN(io.Discard, out, o.size)
		case o.size > inMemory:
			rest := &io.LimitedReader{R: out, N: o.size}
			if err = s.lookInto(ctx, rest, o, name); err == nil && rest.N > 0 {
				err = io.ErrUnexpectedEOF
			}
		default:
			text := make([]byte, o.size)
			if _, err = io.ReadFull(out, text); err == nil {
				select {
				case work <- loaded{o, name, text}:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		}
		if err == nil {
			_, err = out.Discard(1)
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
	}
}

func (s *Scanner) lookIntoObject(ctx context.Context, l loaded) {
	_ = s.lookInto(ctx, bytes.NewReader(l.text), l.object, l.name) // memory does not fail
}

// lookInto searches one object. The texts of commits and tags have no file.
func (s *Scanner) lookInto(ctx context.Context, r io.Reader, o object, name string) error {
	at := Finding{File: name}
	switch {
	case name != "": // staged
	case o.kind == "commit":
		at = Finding{File: messageName, Object: o.id, Commit: o.id}
	case o.kind == "tag":
		at = Finding{File: tagName, Object: o.id}
	default:
		at.Object = o.id
	}
	s.count(0, 1)
	return s.search(ctx, r, at)
}

// The names of what is no file.
const (
	messageName = "(commit message)"
	tagName     = "(tag)"
	looseName   = "(in no commit)"
)

// incomplete notes what the repository leaves out on purpose, and reports whether that may be any object.
func (s *Scanner) incomplete(ctx context.Context, r *repo) (partial bool) {
	var said []string
	err := r.lines(ctx, '\n', []string{"rev-parse", "--is-shallow-repository", "--git-path", "objects/pack"},
		func(line string) error {
			said = append(said, line)
			return nil
		})
	if err != nil || len(said) != 2 {
		return false // cat-file fails as well, and says why
	}
	if said[0] == "true" {
		s.unread("(history)", "the clone is shallow, and older commits are not in it; `git fetch --unshallow` brings them")
	}
	packs := said[1]
	if !filepath.IsAbs(packs) {
		packs = filepath.Join(r.at, packs)
	}
	promised, _ := filepath.Glob(escapeGlob(packs) + "/*.promisor")
	if len(promised) == 0 {
		return false
	}
	s.unread("(history)", "the clone is partial, and only what was fetched is in it; `git fetch --refetch` without a filter brings all")
	r.warn = nil // git says the same
	return true
}

// escapeGlob makes a pattern of a path.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// nameObjects finds the oldest commit, and the name there, of each blob in which something was found.
func (s *Scanner) nameObjects(ctx context.Context, r *repo) error {
	type origin struct{ commit, name string }
	wanted := map[string]origin{}
	for _, f := range s.res.Findings {
		if f.Object != "" && f.File == "" {
			wanted[f.Object] = origin{}
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	left := len(wanted)
	var commits []string
	err := r.lines(ctx, '\n', []string{"rev-list", "--all", "--reflog", "--reverse", "--missing=allow-any"}, func(id string) error {
		commits = append(commits, id)
		return nil
	})
	if err != nil {
		return err
	}
	input := func(w io.Writer) error {
		for _, id := range commits {
			if _, err := io.WriteString(w, id+"\n"); err != nil {
				return nil // enough was read
			}
		}
		return nil
	}
	// :OLDMODE NEWMODE OLD NEW STATUS, NUL, NAME, NUL for each file, behind the commit's own id.
	commit, id := "", ""
	args := []string{"diff-tree", "--stdin", "-r", "-m", "--root", "-z", "--raw", "--no-abbrev", "--no-renames", "--no-ext-diff", "--no-textconv"}
	err = r.read(ctx, args, input, eachLine(0, func(item string) error {
		item = strings.TrimPrefix(item, "\n")
		switch f := strings.Fields(item); {
		case id != "":
			if o, ok := wanted[id]; ok && o.commit == "" {
				wanted[id] = origin{commit, item}
				left--
			}
			id = ""
		case strings.HasPrefix(item, ":") && len(f) == 5:
			id = f[3]
		case len(f) > 0 && isID(f[0]):
			commit = f[0]
		}
		if left == 0 {
			return errEnough
		}
		return nil
	}))
	for i := range s.res.Findings {
		f := &s.res.Findings[i]
		if f.Object != "" && f.File == "" {
			o := wanted[f.Object]
			if f.File, f.Commit = o.name, o.commit; o.commit == "" {
				f.File = looseName
			}
		}
	}
	return err
}

// Staged looks into what the next commit would bring: the blobs in the index that the last commit does not have under
// these names.
func (s *Scanner) Staged(ctx context.Context, dir string) error {
	r, err := s.repoOf(dir)
	if err != nil {
		return err
	}
	if r.top == "" {
		return cannotScan(dir, "a bare repository has no index", "run it in the working tree")
	}
	r.takeHookEnviron(s.opts.Environ)
	var ids, names []string
	add := func(mode, id, name string) {
		if mode != "160000" && isID(id) { // no submodule, and no file that is only meant to be added
			ids, names = append(ids, id), append(names, name)
		}
	}
	unborn := r.lines(ctx, '\n', []string{"rev-parse", "--verify", "--quiet", "HEAD^{commit}"}, func(string) error { return nil })
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if unborn != nil {
		err = r.lines(ctx, 0, []string{"ls-files", "--stage", "-z"}, func(item string) error {
			head, name, _ := strings.Cut(item, "\t")
			if f := strings.Fields(head); len(f) == 3 {
				add(f[0], f[1], name)
			}
			return nil
		})
	} else {
		var head []string
		args := []string{"diff-index", "--cached", "--relative", "-z", "--raw", "--no-abbrev", "--no-renames", "--no-ext-diff", "--no-textconv", "HEAD", "--"}
		err = r.lines(ctx, 0, args, func(item string) error {
			if head == nil {
				head = append(strings.Fields(item), "", "", "", "")
				return nil
			}
			add(head[1], head[3], item)
			head = nil
			return nil
		})
	}
	if err != nil || len(ids) == 0 {
		return err
	}
	work := make(chan loaded)
	go func() {
		defer close(work)
		err = r.read(ctx, []string{"cat-file", "--buffer", "--batch"}, func(w io.Writer) error {
			_, err := io.WriteString(w, strings.Join(ids, "\n")+"\n")
			return err
		}, func(out *bufio.Reader) error { return s.objects(ctx, out, work, names) })
	}()
	parallel(ctx, work, s.lookIntoObject)
	return err
}

// takeHookEnviron takes over what git tells its hooks: the index of a commit of some files is another one.
func (r *repo) takeHookEnviron(environ []string) {
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if path, err := filepath.Abs(value); value != "" && err == nil && slices.Contains([]string{"GIT_INDEX_FILE", "GIT_DIR"}, name) {
			if name == "GIT_DIR" {
				r.dir = path
			} else {
				r.index = path
			}
		}
	}
}
