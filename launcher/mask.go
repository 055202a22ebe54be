package launcher

import (
	"encoding/binary"
	"slices"
	"sort"
	"strings"
)

// maskText is what stands in the output where a value stood.
const maskText = "***"

// maskSet is the patterns to be masked: values in all their forms (maskforms.go). It does not change.
//
// Almost all output holds none of them, so it is looked at in strides: every pattern has at least least bytes, and therefore
// one of its first few grams of four bytes lies on every stride. A table says for each gram at which places of a pattern's
// beginning it occurs; only there the patterns themselves are compared.
type maskSet struct {
	patterns []string // sorted
	first    [257]int // patterns that begin with byte c are those from first[c] to first[c+1]
	heads    map[uint64]span
	headMask uint64 // of the first bytes of a pattern, by which heads finds it
	grams    []uint8
	gramMask uint32
	shift    uint
	stride   int
}

type span struct{ from, to int }

const (
	headSize  = 8
	gramSize  = 4
	maxStride = 8  // bits of an entry of grams
	scarce    = 32 // entries of grams for each that is used
	maxBits   = 20
)

// newMaskSet makes a set of patterns, none of which is empty.
func newMaskSet(patterns []string) *maskSet {
	s := &maskSet{patterns: slices.Clone(patterns), heads: map[uint64]span{}}
	slices.Sort(s.patterns)
	s.patterns = slices.Compact(s.patterns)
	if len(s.patterns) == 0 {
		return s
	}
	least := len(s.patterns[0])
	for _, p := range s.patterns {
		least = min(least, len(p))
		s.first[int(p[0])+1]++
	}
	for c := range 256 {
		s.first[c+1] += s.first[c]
	}
	gram := min(least, gramSize)
	s.gramMask = uint32(1<<(8*gram) - 1)
	s.headMask = ^uint64(0) >> (8 * (headSize - min(least, headSize)))
	s.stride = min(least-gram+1, maxStride)
	bits := uint(12)
	for bits < maxBits && 1<<bits < scarce*s.stride*len(s.patterns) {
		bits++
	}
	s.grams, s.shift = make([]uint8, 1<<bits), 32-bits
	for i, p := range s.patterns {
		var b [headSize + maxStride + gramSize]byte
		copy(b[:], p)
		head := binary.LittleEndian.Uint64(b[:]) & s.headMask
		at, known := s.heads[head]
		if !known {
			at.from = i
		}
		s.heads[head] = span{at.from, i + 1}
		for o := range s.stride {
			s.grams[s.gram(b[o:])] |= 1 << o
		}
	}
	return s
}

// gram is the index of the gram that b begins with.
func (s *maskSet) gram(b []byte) uint32 {
	return (binary.LittleEndian.Uint32(b) & s.gramMask) * 0x9E3779B1 >> s.shift
}

// find returns the first place from from on where a pattern begins, with the length of the longest that is there in full, and
// of the shortest of which b shows only the beginning; or len(b).
func (s *maskSet) find(b []byte, from int) (at, length, partial int) {
	if len(s.patterns) == 0 {
		return len(b), 0, 0
	}
	j := from + s.stride - 1 // the starts from there back to from are looked at together
	for last := len(b) - headSize; j <= last; j += s.stride {
		places := s.grams[s.gram(b[j:])]
		if places == 0 {
			continue
		}
		for o := s.stride - 1; o >= 0; o-- {
			if places&(1<<o) == 0 {
				continue
			}
			rest := b[j-o:]
			r, ok := s.heads[binary.LittleEndian.Uint64(rest)&s.headMask]
			if !ok {
				continue
			}
			if length, partial = s.compare(rest, r, 1); length > 0 || partial > 0 {
				return j - o, length, partial
			}
		}
	}
	for at = j - s.stride + 1; at < len(b); at++ {
		r := span{s.first[b[at]], s.first[int(b[at])+1]}
		if length, partial = s.compare(b[at:], r, 1); length > 0 || partial > 0 {
			return at, length, partial
		}
	}
	return len(b), 0, 0
}

// compare looks for b's beginning among the patterns of r, which have their first depth bytes in common with b.
func (s *maskSet) compare(b []byte, r span, depth int) (length, partial int) {
	const few = 8
	for ; r.to-r.from > few && depth < len(b); depth++ {
		if len(s.patterns[r.from]) == depth {
			length = depth
			r.from++
		}
		at := func(i int) byte { return s.patterns[r.from+i][depth] }
		c, n := b[depth], r.to-r.from
		from := sort.Search(n, func(i int) bool { return at(i) >= c })
		to := from + sort.Search(n-from, func(i int) bool { return at(from+i) > c })
		r = span{r.from + from, r.from + to}
	}
	for _, p := range s.patterns[r.from:r.to] {
		switch {
		case len(p) <= len(b):
			if string(b[:len(p)]) == p {
				length = max(length, len(p))
			}
		case p[:len(b)] == string(b):
			if partial == 0 || len(p) < partial {
				partial = len(p)
			}
		}
	}
	return length, partial
}

// masker masks one stream. Every byte of every occurrence of a value is taken out, and for each run of occurrences that overlap
// there is one maskText: of two values of which one begins in the other, as a URL and the password in it, nothing remains. The
// result does not depend on how the stream is cut into pieces.
//
// Held back is only the longest end of what came that may still become a value; flush lets it go when nothing has followed for a
// moment, because it may be a prompt. It stays known all the same: if it does become a value, the rest is masked. What looks
// like a value so far is masked by flush already, as far as that is more than a coincidence: a program that writes blocks of
// 4096 bytes may write the second half of a password a minute after the first.
type masker struct {
	set   *maskSet
	least int  // --mask-min: a beginning of so many bytes is no coincidence
	typed bool // what a person types is echoed here, letter by letter; then it takes half of the value, too

	held    []byte
	covered int  // so many of the held bytes belong to an occurrence that began before them
	starred bool // for which maskText was put out
	shown   int  // so many of the held bytes were let go by flush
	tail    bool // the last of them behind a maskText
}

// write returns what can be put out, appended to out.
func (m *masker) write(out, chunk []byte) []byte {
	m.held = append(m.held, chunk...)
	out, rest, covered, starred := m.scan(out, false)
	m.covered, m.starred = max(covered-rest, 0), starred
	m.shown = max(m.shown-rest, 0)
	m.held = m.held[:copy(m.held, m.held[rest:])]
	return out
}

// holds reports whether flush would put something out.
func (m *masker) holds() bool { return m.shown < len(m.held) }

// flush appends what is held back.
func (m *masker) flush(out []byte) []byte {
	out, _, covered, starred := m.scan(out, true)
	m.shown, m.tail = len(m.held), starred && covered >= len(m.held) && len(m.held) > 0
	return out
}

// scan puts out what is decided of the held bytes and returns where the undecided ones begin; all is decided at the end.
func (m *masker) scan(out []byte, end bool) (_ []byte, rest, covered int, starred bool) {
	b := m.held
	covered, starred = m.covered, m.starred
	done := 0
	text := func(to int) {
		if from := max(done, covered, m.shown); from < to {
			out = append(out, b[from:to]...)
		}
		done = to
	}
	for next := 0; ; {
		at, length, partial := m.set.find(b, next)
		if partial > 0 && end && m.resembles(len(b)-at, partial) {
			length, partial = len(b)-at, 0
		}
		if at == len(b) || partial > 0 && !end {
			text(at)
			return out, at, covered, starred
		}
		if length > 0 {
			text(at)
			if at >= covered {
				starred = at < m.shown && m.tail
			}
			covered = max(covered, at+length)
			if !starred && covered > m.shown {
				out = append(out, maskText...)
				starred = true
			}
		}
		next = at + 1
	}
}

// resembles reports whether n bytes are so much of a value's size that they are taken for it.
func (m *masker) resembles(n, size int) bool {
	return n >= m.least && (!m.typed || 2*n >= size)
}

// maskedValues is what is to be masked of an environment, and the names of what is not: too short, or so common that masking
// it would make the output unreadable and hide nothing.
func maskedValues(env *Env, least int) (values, leftOut []string) {
	for _, v := range env.Vars {
		switch value := v.Value.Reveal(); {
		case v.unused():
		case len(value) < least || isCommon(value):
			leftOut = append(leftOut, v.Name)
		default:
			values = append(values, value)
		}
	}
	return values, leftOut
}

// commonValues are settings rather than secrets, in small letters.
var commonValues = []string{
	"true", "false", "yes", "no", "on", "off", "null", "none", "nil", "undefined", "default", "enabled", "disabled", "enable", "disable",
	"localhost", "localhost.localdomain", "127.0.0.1", "0.0.0.0", "::1", "production", "development", "staging", "testing",
	"debug", "info", "warn", "warning", "error", "utf-8", "utf8",
}

// isCommon reports whether a value stands in output for many reasons: numbers under six digits, one character repeated, and
// the like.
func isCommon(value string) bool {
	value = strings.TrimSpace(value)
	if value == "" || strings.Count(value, value[:1]) == len(value) || slices.Contains(commonValues, strings.ToLower(value)) {
		return true
	}
	const digits = "0123456789"
	if strings.Trim(value, "+-."+digits) != "" {
		return false
	}
	n := 0
	for _, c := range digits {
		n += strings.Count(value, string(c))
	}
	return n < 6
}
