package mask

import (
	"cmp"
	"slices"
)

// Text is what stands in the output where a value stood.
const Text = "***"

// Masker masks one stream. It takes out every byte of every occurrence of a value. Each run of occurrences that overlap
// becomes one Text: when one value begins in another, as a password in a URL, nothing of either remains. The result
// does not depend on how the stream is cut into pieces.
//
// It holds back only the longest end of what came that may still become a value. Flush lets that go when nothing has
// followed for a moment, because it may be a prompt. It stays known all the same: if it does become a value, the rest
// is masked. Flush masks already what looks like a value so far, as far as that is more than a coincidence: a program
// that writes blocks of 4096 bytes may write the second half of a password a minute after the first.
//
// After a line break, and where a person types, a few bytes that may begin a value in another form are let go at once:
// a program that answers line by line would wait for each otherwise.
type Masker struct {
	Set   *Set
	Least int  // --mask-min: a beginning of so many bytes is no coincidence
	Typed bool // what a person types is echoed here, letter by letter; then it takes half of the value, too

	held     []byte
	pending  bool // what is held back looks like a value, and not only like what may go before one
	covered  int  // so many of the held bytes belong to an occurrence that began before them
	starred  bool // for which Text was put out
	shown    int  // so many of the held bytes were let go
	tail     bool // the last of them behind a Text
	indented bool // before the held bytes there is a line break, or one and blanks
	room     rooms
}

// Write returns what can be put out, appended to out.
func (m *Masker) Write(out, chunk []byte) []byte {
	m.held = append(m.held, chunk...)
	s := m.scan(out, false)
	m.covered, m.starred = max(s.covered-s.rest, 0), s.starred
	if s.limit > max(m.shown, s.rest) {
		m.tail = s.starred && s.covered >= s.limit
	}
	m.shown = max(m.shown, s.limit) - s.rest
	m.shown = max(m.shown, 0)
	m.indented = afterBreak(m.held[:s.rest], m.indented)
	m.held = m.held[:copy(m.held, m.held[s.rest:])]
	return s.out
}

// afterBreak reports whether a text ends in a line break, or in one and blanks.
func afterBreak(text []byte, before bool) bool {
	for i := len(text) - 1; i >= 0; i-- {
		if text[i] != ' ' {
			return bytesOf[text[i]] == lineBreak
		}
	}
	return before
}

// Holds reports whether Flush would put something out.
func (m *Masker) Holds() bool { return m.shown < len(m.held) }

// Pending reports whether what is held back looks like the beginning of a value. Otherwise it only may go before one.
func (m *Masker) Pending() bool { return m.pending }

// Held reports whether something is remembered of what came, put out or not.
func (m *Masker) Held() bool { return len(m.held) > 0 }

// Flush appends what is held back.
func (m *Masker) Flush(out []byte) []byte {
	s := m.scan(out, true)
	m.shown, m.tail = len(m.held), s.starred && s.covered >= len(m.held) && len(m.held) > 0
	return s.out
}

// scanned is what is decided of the held bytes: out is appended to, and the undecided ones begin at rest; those before
// limit are put out all the same.
type scanned struct {
	out         []byte
	rest, limit int
	covered     int
	starred     bool
}

// scan puts out what is decided of the held bytes; all is decided at the end.
func (m *Masker) scan(out []byte, end bool) scanned {
	b := m.held
	f := finder{set: m.Set, m: m, end: end}
	rest, limit := f.find(b)
	m.pending = f.like
	s := scanned{out: out, rest: rest, limit: limit, covered: m.covered, starred: m.starred}
	done := 0
	text := func(to int) {
		if from := max(done, s.covered, m.shown); from < to {
			s.out = append(s.out, b[from:to]...)
		}
		done = to
	}
	for _, v := range f.values {
		if v.from >= limit {
			break
		}
		text(v.from)
		if v.from >= s.covered {
			s.starred = v.from < m.shown && m.tail
		}
		s.covered = max(s.covered, v.to)
		if !s.starred && s.covered > m.shown {
			s.out = append(s.out, Text...)
			s.starred = true
		}
	}
	text(limit)
	return s
}

// resembles reports whether n bytes are so much of a value's size that they are taken for it.
func (m *Masker) resembles(n, size int) bool {
	return n >= m.Least && (!m.Typed || 2*n >= size)
}

// finder finds values in a part of a stream, and in everything that can be decoded there.
type finder struct {
	set    *Set
	m      *Masker
	end    bool
	values []span
	rest   int  // what begins here is undecided
	few    int  // so many bytes of it may begin a value in another form
	like   bool // they do

	located func(place, *layer, match) // is told of each value, where it is not nil

	lineEnds bool // with the bytes that came: a line is what it is, and begins no value that goes on in the next
}

// maxDepth is how many codes may lie within each other.
const maxDepth = 3

// tail says what comes behind a text.
type tail uint8

const (
	open   tail = iota // more of it
	cut                // nobody knows: nothing came for a moment
	closed             // something else
)

// find fills values, and returns from where on nothing is decided, and up to where it is put out all the same.
func (f *finder) find(b []byte) (rest, limit int) {
	f.rest = len(b)
	for next := 0; ; next++ {
		m := f.set.exact.find(b, next)
		next = m.at
		if m.partial > 0 && f.end && f.m.resembles(len(b)-m.at, m.partial) {
			m.length, m.partial = len(b)-m.at, 0
		}
		if m.at == len(b) || m.partial > 0 && !f.end {
			rest = m.at
			f.like = m.at < len(b)
			break
		}
		if m.length > 0 {
			f.values = append(f.values, span{m.at, m.at + m.length})
			f.locate(inExact, nil, m)
		}
	}
	if len(f.set.plain[0].patterns)+len(f.set.plain[1].patterns) == 0 {
		return rest, rest
	}
	behind := open
	if f.end {
		behind = cut
	}
	f.lineEnds = len(b) > 0 && bytesOf[b[len(b)-1]] == lineBreak
	l := f.look(b, nil, 0, behind)
	slices.SortStableFunc(f.values, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	if f.end {
		return rest, rest
	}
	limit = rest
	rest = l.align(max(min(rest, f.rest), len(b)-f.set.most))
	rest = max(rest, len(b)-2*f.set.most) // an escape may have no end
	if f.few >= f.m.Least || !f.m.Typed && !f.lineEnds {
		limit = rest
	}
	return rest, max(limit, rest)
}

// look finds values in one text, of which under says where it comes from, and in what can be decoded there.
func (f *finder) look(text []byte, under *layer, depth int, behind tail) *layer {
	var room *rooms
	if depth == 0 {
		room = &f.m.room
	}
	l, rest, escaped := plainOf(text, under, behind != open, depth == 0 && f.m.indented, room)
	if rest >= 0 {
		f.undecided(rest, f.m.Least)
	}
	if depth > 0 {
		f.searchExact(text, under, behind)
	}
	seen := f.searchPlain(l, depth, behind)
	if escaped {
		// What an escape has eaten may have been the first byte of a value that stands behind a backslash or a percent
		// sign.
		f.searchPlain(withoutQuotes(text, under, behind != open, depth == 0 && f.m.indented, room), depth, behind)
	}
	if len(f.set.dense.patterns) > 0 {
		f.search(inDense, f.set.dense, withoutBlanks(l, room), seen, depth, behind)
	}
	if depth == 0 && behind == open {
		f.lead(l, len(l.text))
	}
	return l
}

// searchExact looks for values byte for byte in what was decoded.
func (f *finder) searchExact(text []byte, under *layer, behind tail) {
	for next := 0; ; next++ {
		m := f.set.exact.find(text, next)
		if next = m.at; m.at == len(text) {
			return
		}
		if m.partial > 0 {
			n := len(text) - m.at
			from, to := under.source(m.at, len(text))
			switch {
			case behind == open:
				f.undecided(from, n)
			case behind == cut && f.m.resembles(n, m.partial):
				f.values = append(f.values, span{from, to})
			}
		}
		if m.length > 0 {
			from, to := under.source(m.at, m.at+m.length)
			f.values = append(f.values, span{from, to})
			f.locate(inExact, under, m)
		}
	}
}

// searchPlain looks for values and beginnings of codes in a plain text.
func (f *finder) searchPlain(l *layer, depth int, behind tail) *runs {
	seen := &runs{}
	for _, patterns := range f.set.plain {
		f.search(inPlain, patterns, l, seen, depth, behind)
	}
	return seen
}

// search looks for patterns in a plain text.
func (f *finder) search(in place, patterns *index, l *layer, seen *runs, depth int, behind tail) {
	for next := 0; ; next++ {
		m := patterns.find(l.text, next)
		if next = m.at; m.at == len(l.text) {
			break
		}
		if m.length > 0 {
			if from, to := l.source(m.at, m.at+m.length); !m.flat || depth > 0 || to-from == m.length {
				f.values = append(f.values, span{from, to})
				f.locate(in, l, m)
			}
		}
		if m.partial > 0 || m.waits {
			from, to := l.source(m.at, len(l.text))
			switch n := len(l.text) - m.at; {
			case behind == open:
				f.undecided(from, n)
				f.like = f.like || m.partial > 0
				if m.waits {
					f.lead(l, m.at)
				}
			case behind == cut && m.partial > 0 && f.m.resembles(n, m.partial) && !(depth == 0 && f.lineEnds):
				f.values = append(f.values, span{from, to})
			}
		}
		if m.any && depth < maxDepth {
			for k, yes := range m.coded {
				if yes {
					f.decode(l, seen, m.at, coded0+kind(k), depth, behind)
				}
			}
		}
	}
}

// lead notes that what stands before a place may be the beginning of a code that goes on there.
func (f *finder) lead(l *layer, at int) {
	from := at
	for from > 0 && at-from < f.set.before && inCode(base64Code, l.text[from-1]) {
		from--
	}
	if from == at {
		return
	}
	place, _ := l.source(from, at)
	if f.rest = min(f.rest, place); f.set.before > leastLead && !f.m.Typed {
		f.few = max(f.few, at-from)
	}
}

// locate tells where a value was found.
func (f *finder) locate(in place, l *layer, m match) {
	if f.located != nil {
		f.located(in, l, m)
	}
}

// undecided notes that n bytes from a place on may become a value.
func (f *finder) undecided(at, n int) {
	f.rest, f.few = min(f.rest, at), max(f.few, n)
}

// runs are the last stretches of base64 and hexadecimal that were looked at, and in which phases they were decoded.
type runs [3]struct {
	from, to int
	phases   [4]bool
}

// decode looks into the code around a place where one of the given kind begins.
func (f *finder) decode(l *layer, seen *runs, at int, k kind, depth int, behind tail) {
	if k >= dumped {
		d, whole := decodeDump(l, at, k == counted, f.set.longest)
		if whole {
			behind = closed
		}
		f.look(d.text, d, depth+1, behind)
		return
	}
	code, size, phase := base64Code, 4, int(k-coded0)
	if k == hexed {
		code, size, phase = hexCode, 2, 0
	}
	run := &seen[code]
	if at < run.from || at >= run.to {
		run.from, run.to, run.phases = at, at, [4]bool{}
		for run.from > 0 && inCode(code, l.text[run.from-1]) {
			run.from--
		}
		for run.to < len(l.text) && inCode(code, l.text[run.to]) {
			run.to++
		}
	}
	first := (at - phase + 4*size) % size // of each group, modulo its size
	if run.phases[first] {
		return
	}
	run.phases[first] = true
	start := run.from - ((run.from-first)%size+size)%size
	if run.to < len(l.text) {
		behind = closed
	}
	d := decodeRun(l, code, start, run.from, run.to)
	f.look(d.text, d, depth+1, behind)
	for _, w := range fromUTF16(d) {
		f.look(w.text, w, depth+1, behind)
	}
}
