// Package scan looks for secrets in plain text: in a folder, in the history of a git repository, in what is staged
// there, and in a stream. It tells where one is and in what form, never the secret.
//
// The folder may be somebody else's, made to do harm: no symbolic link is followed, nothing but regular files is
// opened, and git runs without any program that the repository names (git.go).
package scan

import (
	"cmp"
	"context"
	"io"
	"runtime"
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/agenticverz/vaultexec/internal/mask"
)

// Options say what is looked for, and where.
type Options struct {
	Needles *mask.Needles
	Keys    []string // of each value among the needles the key it belongs to; several values may have one
	Parts   []bool   // of each value: it is only a part of what the key holds
	Environ []string // for git; without any credential
}

// Finding is one place where a secret stands.
type Finding struct {
	File   string // relative to the folder, or "-"; of an object in no commit ""
	Line   int    // counted from 1; 0 in binary data
	Offset int64  // in bytes, counted from 0
	Key    string
	Form   string // "plain", or how it is written: "URL-encoded in base64"
	Part   bool   // a part of the value, such as the password in an address or a line of a key
	Object string // the id of the git object, where it is not a file of the working tree
	Commit string // the oldest commit that has it; "" when no commit does
}

// Unread is something that could not be looked at, or not as a whole.
type Unread struct{ Name, Why string }

// Result is what a scan has found and seen.
type Result struct {
	Findings []Finding // in the order of the names and lines
	Unread   []Unread
	Files    int   // looked at
	Objects  int   // of git
	Bytes    int64 // of both
	More     int   // findings that are not listed, because one file has so many
}

// mostInOne bounds the findings that are kept of one file.
const mostInOne = 1000

// Scanner looks for the needles. It may be used once.
type Scanner struct {
	opts  Options
	pool  sync.Pool // of searchers
	mu    sync.Mutex
	res   Result
	bytes atomic.Int64
}

// New makes a scanner.
func New(o Options) *Scanner {
	s := &Scanner{opts: o}
	s.pool.New = func() any { return mask.NewSearcher(o.Needles) }
	return s
}

// Result is what was found, once everything was looked at.
func (s *Scanner) Result() *Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &s.res
	r.Bytes = s.bytes.Load()
	sort.SliceStable(r.Findings, func(i, j int) bool { // slices' functions would be 16 kB of code for the two
		a, b := &r.Findings[i], &r.Findings[j]
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Object, b.Object), cmp.Compare(a.Offset, b.Offset),
			cmp.Compare(a.Key, b.Key)) < 0
	})
	sort.Slice(r.Unread, func(i, j int) bool {
		a, b := &r.Unread[i], &r.Unread[j]
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Why, b.Why)) < 0
	})
	r.Unread = slices.Compact(r.Unread)
	return r
}

// Stream looks into what r has until its end.
func (s *Scanner) Stream(ctx context.Context, r io.Reader) {
	if err := s.search(ctx, r, Finding{File: "-"}); err != nil {
		s.unread("-", why(err))
	}
	s.count(1, 0)
}

func (s *Scanner) count(files, objects int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.res.Files, s.res.Objects = s.res.Files+files, s.res.Objects+objects
}

func (s *Scanner) unread(name, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.res.Unread = append(s.res.Unread, Unread{name, why})
}

// search looks into one stream. at is a finding there without what tells it from others.
func (s *Scanner) search(ctx context.Context, r io.Reader, at Finding) error {
	searcher := s.pool.Get().(*mask.Searcher)
	defer s.pool.Put(searcher)
	in := &input{ctx: ctx, r: r}
	runs := &runs{scanner: s, in: in, at: at, open: map[string]*run{}, last: map[string]Finding{}}
	n, err := searcher.Search(in, runs.add)
	s.bytes.Add(n)
	runs.end()
	if in.binary {
		for i := range runs.list {
			runs.list[i].Line = 0
		}
	}
	if len(runs.list) > 0 {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.res.Findings = append(s.res.Findings, runs.list...)
		s.res.More += runs.more
	}
	return err
}

// input notices whether a stream is binary, and that it is to be read no further.
type input struct {
	ctx    context.Context
	r      io.Reader
	seen   int
	binary bool
}

// sniffed is how much of a file tells whether it is binary: a NUL there makes it so, as for git.
const sniffed = 8000

// Read implements io.Reader.
func (in *input) Read(b []byte) (int, error) {
	if err := in.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := in.r.Read(b)
	if head := b[:n]; in.seen < sniffed {
		if in.seen == 0 && n >= 2 && (head[0] == 0xff && head[1] == 0xfe || head[0] == 0xfe && head[1] == 0xff) {
			in.seen = sniffed // UTF-16, which has lines
			return n, err
		}
		in.binary = in.binary || slices.Contains(head[:min(n, sniffed-in.seen)], 0)
		in.seen += n
	}
	return n, err
}

// run is one place where a key stands, while the next hit may still belong to it: readings of the same text, parts
// of the whole, pieces of a large value.
type run struct {
	Finding
	to    int64
	part  bool
	width int // of the form's name: the shortest says what was done
}

// runs joins the hits in one stream to findings.
type runs struct {
	scanner *Scanner
	at      Finding
	in      *input
	open    map[string]*run    // by key
	last    map[string]Finding // of each key
	list    []Finding
	more    int
}

// gap is how much may stand between two pieces of one value: a line break, a margin, quotes.
const gap = 64

func (rs *runs) add(h mask.Hit) {
	o := &rs.scanner.opts
	key, part := o.Keys[h.Value], h.Part || o.Parts[h.Value]
	r := rs.open[key]
	reach := int64(0)
	if h.Long {
		reach = gap
	}
	switch {
	case r != nil && h.From < r.to+reach: // more of the same
		r.to = max(r.to, h.To)
		if r.part && !part || r.part == part && len(h.Form) < r.width {
			r.Form, r.width = h.Form, len(h.Form)
		}
		r.part = r.part && part
		return
	case r != nil:
		rs.close(r)
	}
	r = &run{Finding: rs.at, to: h.To, part: part, width: len(h.Form)}
	r.Line, r.Offset, r.Key, r.Form = h.Line, h.From, key, h.Form
	rs.open[key] = r
}

func (rs *runs) close(r *run) {
	last, known := rs.last[r.Key]
	if known && !rs.in.binary && last.Line == r.Line && last.Form == r.Form && last.Part == r.part { // a line tells it once
		return
	}
	if len(rs.list) >= mostInOne {
		rs.more++
		return
	}
	r.Part = r.part
	rs.last[r.Key] = r.Finding
	rs.list = append(rs.list, r.Finding)
}

func (rs *runs) end() {
	for _, r := range rs.open {
		rs.close(r)
	}
}

// parallel does a job for everything that comes, on as many processors as there are, until ctx ends.
func parallel[T any](ctx context.Context, work <-chan T, do func(context.Context, T)) {
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for t := range work {
				if ctx.Err() == nil {
					do(ctx, t)
				}
			}
		})
	}
	wg.Wait()
}
