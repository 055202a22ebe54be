package mask

import (
	"cmp"
	"encoding/binary"
	"slices"
	"sort"
	"strings"
)

// index finds patterns in a text. It does not change.
//
// Almost all output holds none of them, so it is looked at in strides: every pattern has at least least bytes, and
// therefore one of its first few grams of four bytes lies on every stride. A table says for each gram at which places
// of a pattern's beginning it occurs; only there the patterns themselves are compared.
type index struct {
	patterns []string // sorted
	kinds    []kind   // of each; nil when all are whole
	first    [257]int // patterns that begin with byte c are those from first[c] to first[c+1]
	heads    map[uint64]span
	headMask uint64 // of the first bytes of a pattern, by which heads finds it
	grams    []uint8
	sieve    []uint64 // where there are many: whether a gram occurs at all, by another hash
	gramMask uint32
	shift    uint
	stride   int
}

// kind says what it means that a pattern was found.
type kind uint8

const (
	whole  kind = iota // it is to be masked
	flat               // it is to be masked unless it was in pieces
	coded0             // from here on: a value may be in the code there, with the phase of coded0 + 0 to 3 for base64
	coded1
	coded2
	coded3
	hexed   // and for hexadecimal
	dumped  // bytes begin here that are written one by one, in hexadecimal
	counted // and in decimal
)

type span struct{ from, to int }

const (
	headSize  = 8
	gramSize  = 4
	maxStride = 8  // bits of an entry of grams
	scarce    = 16 // entries of grams for each that is used
	maxBits   = 20
	sieveBits = 23
)

type pattern struct {
	text string
	kind kind
}

// newIndex makes an index of patterns, none of which is empty.
func newIndex(list []pattern) *index {
	slices.SortFunc(list,
		func(a, b pattern) int { return cmp.Or(strings.Compare(a.text, b.text), cmp.Compare(a.kind, b.kind)) })
	list = slices.Compact(list)
	s := &index{patterns: make([]string, len(list)), heads: map[uint64]span{}}
	mixed := false
	for i, p := range list {
		s.patterns[i] = p.text
		mixed = mixed || p.kind != whole
	}
	if mixed {
		s.kinds = make([]kind, len(list))
		for i, p := range list {
			s.kinds[i] = p.kind
		}
	}
	if len(list) == 0 {
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
	if bits == maxBits {
		s.sieve = make([]uint64, 1<<(sieveBits-6))
	}
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
			if s.sieve != nil {
				h := s.sieved(b[o:])
				s.sieve[h>>6] |= 1 << (h & 63)
			}
		}
	}
	return s
}

// gram is the index of the gram that b begins with.
func (s *index) gram(b []byte) uint32 {
	return (binary.LittleEndian.Uint32(b) & s.gramMask) * 0x9E3779B1 >> s.shift
}

// sieved is the place in the sieve of the gram that b begins with.
func (s *index) sieved(b []byte) uint32 {
	return (binary.LittleEndian.Uint32(b) & s.gramMask) * 0x85EBCA6B >> (32 - sieveBits)
}

// match is what begins at one place of a text.
type match struct {
	at      int
	length  int     // of the longest whole pattern that is there in full
	partial int     // length of the shortest whole pattern of which the text shows only the beginning
	flat    bool    // the longest is one that must not be in pieces
	coded   [7]bool // the kinds of the others, by their place after coded0
	any     bool    // one of them is there
	waits   bool    // one of them may be there
}

func (m *match) found() bool { return m.length > 0 || m.partial > 0 || m.any || m.waits }

// find returns the first place from from on where a pattern begins; at is len(b) when there is none.
func (s *index) find(b []byte, from int) (m match) {
	if len(s.patterns) == 0 {
		m.at = len(b)
		return m
	}
	j := from + s.stride - 1 // the starts from there back to from are looked at together
	for last := len(b) - headSize; j <= last; j += s.stride {
		if s.sieve != nil {
			if h := s.sieved(b[j:]); s.sieve[h>>6]&(1<<(h&63)) == 0 {
				continue
			}
		}
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
			if s.compare(&m, rest, r, 1); m.found() {
				m.at = j - o
				return m
			}
		}
	}
	for m.at = j - s.stride + 1; m.at < len(b); m.at++ {
		r := span{s.first[b[m.at]], s.first[int(b[m.at])+1]}
		if s.compare(&m, b[m.at:], r, 1); m.found() {
			return m
		}
	}
	m.at = len(b)
	return m
}

// compare looks for b's beginning among the patterns of r, which have their first depth bytes in common with b.
func (s *index) compare(m *match, b []byte, r span, depth int) {
	const few = 8
	for ; r.to-r.from > few && depth < len(b); depth++ {
		for r.from < r.to && len(s.patterns[r.from]) == depth {
			s.note(m, r.from)
			r.from++
		}
		at := func(i int) byte { return s.patterns[r.from+i][depth] }
		c, n := b[depth], r.to-r.from
		from := sort.Search(n, func(i int) bool { return at(i) >= c })
		to := from + sort.Search(n-from, func(i int) bool { return at(from+i) > c })
		r = span{r.from + from, r.from + to}
	}
	for i := r.from; i < r.to; i++ {
		p := s.patterns[i]
		switch {
		case len(p) <= len(b):
			if string(b[:len(p)]) == p {
				s.note(m, i)
			}
		case p[:len(b)] == string(b):
			switch {
			case s.kinds != nil && s.kinds[i] >= coded0:
				m.waits = true
			case m.partial == 0 || len(p) < m.partial:
				m.partial = len(p)
			}
		}
	}
}

// note takes in that pattern i is there in full.
func (s *index) note(m *match, i int) {
	k := whole
	if s.kinds != nil {
		k = s.kinds[i]
	}
	switch n := len(s.patterns[i]); {
	case k >= coded0:
		m.coded[k-coded0], m.any = true, true
	case n > m.length:
		m.length, m.flat = n, k == flat
	case n == m.length:
		m.flat = m.flat && k == flat
	}
}
