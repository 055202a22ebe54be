package mask

import (
	"bytes"
	"io"
	"slices"
	"sort"
	"strings"
)

// place says in which of a text's readings a pattern is looked for.
type place uint8

const (
	inExact place = iota // as it is
	inPlain              // without quoting
	inDense              // and without blanks
)

// Needles are values that are looked for in files: a Set that also knows which of its patterns belongs to which value.
// It does not change, and any number of Searchers may use it at the same time.
type Needles struct {
	set    *Set
	owners [inDense + 1]map[string][]Owner
	long   []bool // of each value: it may be found line by line, or piece by piece
}

// Owner is a value that was found.
type Owner struct {
	Value int  // its number among those of NewNeedles
	Part  bool // only a line or another piece of it was found
	plus  bool // its blanks are written as plus signs
}

// leastLine is how long a line has to be to stand for its value in a file. In lines that are shorter, or of several
// words, a value has a frame that many files share: `"type": "service_account",`.
const leastLine = 16

// NewNeedles makes needles of values, as NewSet makes a set of them.
func NewNeedles(values []string, least int) *Needles {
	n := &Needles{long: make([]bool, len(values))}
	for i := range n.owners {
		n.owners[i] = map[string][]Owner{}
	}
	for i, v := range values {
		n.long[i] = len(v) > largeValue || strings.Contains(strings.TrimRight(v, "\r\n"), "\n")
	}
	n.set = newSet(values, least, func(in place, text string, value int, part bool) {
		isPiece := len(values[value]) > largeValue && len(text) >= linePiece
		if part && !isPiece && (len(text) < leastLine || strings.Contains(text, " ")) {
			return
		}
		plus := in == inPlain && strings.Contains(text, "+") && strings.Contains(values[value], " ") &&
			text != plainText(values[value])
		list := n.owners[in][text]
		switch i := slices.IndexFunc(list, func(o Owner) bool { return o.Value == value }); {
		case i < 0:
			n.owners[in][text] = append(list, Owner{value, part, plus})
		case !part:
			list[i].Part = false
		}
	})
	n.adopt()
	return n
}

// adopt makes the owners of a pattern those of every longer one that begins with it: where both begin, a finder notices
// the longest.
func (n *Needles) adopt() {
	const most = 64 // whole values have few lengths
	for _, owners := range n.owners {
		lengths := map[int]bool{}
		for text, list := range owners {
			if slices.ContainsFunc(list, func(o Owner) bool { return !o.Part }) {
				lengths[len(text)] = true
			}
		}
		if len(owners) > 1<<16 && len(lengths) > most { // parts of one large object
			continue
		}
		added := map[string][]Owner{}
		for text := range owners {
			for length := range lengths {
				if length < len(text) {
					added[text] = append(added[text], owners[text[:length]]...)
				}
			}
		}
		for text, list := range added {
			for _, o := range list {
				if !slices.ContainsFunc(owners[text], func(p Owner) bool { return p.Value == o.Value }) {
					owners[text] = append(owners[text], o)
				}
			}
		}
	}
}

// Swarms reports whether the values are so many that none is looked for in codes.
func (n *Needles) Swarms() bool { return len(n.long) > swarm }

// Hit is a place of a stream where a value stands.
type Hit struct {
	From, To int64 // the first byte, and the one behind the last
	Line     int   // of the first byte, counted from 1
	Owner
	Long bool   // other pieces of the value may follow
	Form string // what was done to the value: FormPlain, or "URL-encoded in base64"
}

// FormPlain is the form of a value that stands there byte by byte.
const FormPlain = "plain"

// The names of the other forms.
const (
	formQuoted  = "quoted"
	formEscaped = "escaped" // with backslashes: JSON, C, Python, shells
	formURL     = "URL-encoded"
	formHTML    = "HTML-escaped"
	formFolded  = "folded"
	formUTF16   = "UTF-16"
	formBytes   = "byte by byte" // a dump in hexadecimal or decimal
	formBase64  = "base64"
	formURL64   = "base64url"
	formHex     = "hex"
)

// Searcher looks for needles in one stream after the other. It keeps a window of each, of a few times the length of the
// longest value.
type Searcher struct {
	needles *Needles
	m       Masker
	base    int64 // so many bytes of the stream were before the window
	lines   int   // so many line breaks were
	hits    []Hit
}

// NewSearcher makes a searcher. It is for one goroutine.
func NewSearcher(n *Needles) *Searcher {
	return &Searcher{needles: n, m: Masker{Set: n.set, Least: 1 << 30}} // the beginning of a value at the end is none
}

// window is how many bytes are read at a time.
const window = 64 << 10

// Search reads a stream to its end. It calls hit for every value in it, in the order of the stream; where values lie
// within each other, or one stands in several readings of a text, all are told. It returns how much there was.
func (s *Searcher) Search(r io.Reader, hit func(Hit)) (int64, error) {
	m := &s.m
	m.held, m.indented, s.base, s.lines = m.held[:0], false, 0, 0
	for {
		m.held = slices.Grow(m.held, window)
		n, err := r.Read(m.held[len(m.held):cap(m.held)])
		m.held = m.held[:len(m.held)+n]
		if err != nil && err != io.EOF {
			return s.base + int64(len(m.held)), err
		}
		rest := s.look(err == io.EOF)
		s.tell(rest, hit)
		if err == io.EOF {
			return s.base + int64(len(m.held)), nil
		}
		m.indented = afterBreak(m.held[:rest], m.indented)
		s.lines += bytes.Count(m.held[:rest], lineFeed)
		s.base += int64(rest)
		m.held = m.held[:copy(m.held, m.held[rest:])]
	}
}

var lineFeed = []byte{'\n'}

// look finds the needles in the window, up to where nothing is decided yet.
func (s *Searcher) look(end bool) (rest int) {
	s.hits = s.hits[:0]
	f := finder{set: s.needles.set, m: &s.m, end: end}
	f.located = func(in place, l *layer, m match) {
		text := s.m.held
		if l != nil {
			text = l.text
		}
		owners := s.needles.owners[in][string(text[m.at:m.at+m.length])]
		if len(owners) == 0 {
			return
		}
		from, to := l.source(m.at, m.at+m.length)
		h := Hit{From: int64(from), To: int64(to), Form: s.form(l, m.at, m.at+m.length)}
		for _, o := range owners {
			h.Owner, h.Long = o, s.needles.long[o.Value]
			s.hits = append(s.hits, h)
			if o.plus && h.Form == FormPlain {
				s.hits[len(s.hits)-1].Form = formURL
			}
		}
	}
	rest, _ = f.find(s.m.held)
	if end {
		return len(s.m.held)
	}
	return rest
}

// tell passes the hits on that begin before rest.
func (s *Searcher) tell(rest int, hit func(Hit)) {
	if len(s.hits) == 0 {
		return
	}
	sort.SliceStable(s.hits, func(i, j int) bool { return s.hits[i].From < s.hits[j].From })
	at, line := 0, s.lines+1
	for _, h := range s.hits {
		from := int(h.From)
		if from >= rest {
			return
		}
		line += bytes.Count(s.m.held[at:from], lineFeed)
		at = from
		h.Line, h.From, h.To = line, h.From+s.base, h.To+s.base
		hit(h)
	}
}

// form names what the bytes from from to to of a layer were made of, from the innermost to the stream.
func (s *Searcher) form(l *layer, from, to int) string {
	var names []string
	for l != nil {
		below, belowTo := l.below(from, to)
		src := s.m.held
		if l.under != nil {
			src = l.under.text
		}
		name := l.form(from, to, src[below:belowTo], below)
		if name != "" && (l.code != escapes || len(names) == 0 || names[len(names)-1] != name) {
			names = append(names, name)
		}
		l, from, to = l.under, below, belowTo
	}
	if len(names) > 1 { // whatever else was done to it says more
		names = slices.DeleteFunc(names, func(name string) bool { return name == formQuoted })
	}
	if len(names) == 0 {
		return FormPlain
	}
	return strings.ReplaceAll(strings.Join(names, " in "), " in "+formFolded, ", "+formFolded)
}

// form names how the bytes from from to to were made of raw, which begins at below; "" when they are the same.
func (l *layer) form(from, to int, raw []byte, below int) string {
	text := l.text[from:to]
	switch {
	case l.how != "":
		return l.how
	case l.code == base64Code && bytes.ContainsAny(raw, "-_"):
		return formURL64
	case l.code == base64Code:
		return formBase64
	case l.code == hexCode:
		return formHex
	case bytes.Equal(text, raw):
		return ""
	}
	for _, p := range l.pieces[l.piece(from) : l.piece(to-1)+1] {
		if p.n > 1 {
			switch raw[p.from-below] {
			case '\\':
				return formEscaped
			case '%':
				return formURL
			case '&':
				return formHTML
			}
		}
	}
	switch has := func(c byte) bool { return bytes.IndexByte(raw, c) >= 0 }; {
	case bytes.Count(raw, []byte{0}) >= len(text)/2:
		return formUTF16
	case has('\\') && bytes.IndexByte(text, '\\') < 0:
		return formEscaped
	case has('\n') || has('\r'):
		return formFolded
	}
	return formQuoted
}
