// Package mask takes values out of a text, however they are written there: as they are, quoted, folded, encoded, and
// encoded again.
package mask

import (
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
)

// Set is what is looked for. It does not change.
//
// A value is found in three ways: byte for byte as it is; in the plain text; and in codes. The plain text is what there
// is without any quoting and line breaks (layer.go); a value reads alike there however it was quoted. As to codes, a
// few bytes of a value have only so many forms in base64 and hexadecimal, also of one another. Where the plain text has
// one of these forms, the code around it is decoded, and the value is looked for in what that stands for.
type Set struct {
	exact *index
	plain [2]*index // of short patterns, and of others
	dense *index    // of values that have blanks, without them: a line break may stand before one, or in its place
	// How many bytes a code may have of a value before the first of its parts that is looked for; mostly few.
	before int
	// How many bytes of a stream one value takes at most, each written as an escape, with what goes before.
	most int
	// The longest value that is looked for as a whole.
	longest int
}

// NewSet makes a set of values. Of what is shorter than least nothing is looked for. Whether a value itself is too
// common is for the caller to say (Common); parts of it that are, are left out.
func NewSet(values []string, least int) *Set { return newSet(values, least, nil) }

// newSet tells note of every pattern that is looked for, where it is not nil: which value it is of, and whether it is
// only a part of that.
func newSet(values []string, least int, note func(in place, text string, value int, part bool)) *Set {
	s := &Set{before: leastLead}
	var exact []pattern
	var plain [2][]pattern
	var dense []pattern
	if note == nil {
		note = func(place, string, int, bool) {}
	}
	known := map[string]bool{}
	add := func(text string, k kind) {
		if key := string(rune(k)) + text; !known[key] {
			known[key] = true
			i := 0
			if len(text) >= gramSize+maxStride-1 {
				i = 1
			}
			plain[i] = append(plain[i], pattern{text, k})
		}
	}
	for i, v := range values {
		if len(v) < least {
			continue
		}
		if len(v) <= largeValue {
			asItIs(v, least, func(text string, part bool) {
				exact = append(exact, pattern{text, whole})
				note(inExact, text, i, part)
			})
		}
		addPlain(v, least, func(text string, k kind, part bool) {
			add(text, k)
			note(inPlain, text, i, part)
		})
		if p := strings.ReplaceAll(plainText(v), " ", ""); strings.Contains(v, " ") && len(p) >= max(least, 1) &&
			!Common(p) {
			parts := []string{p}
			if len(v) > largeValue {
				parts = pieces(p, linePiece)
			}
			for _, part := range parts {
				dense = append(dense, pattern{part, whole})
				note(inDense, part, i, len(part) < len(p))
			}
		}
		s.longest = max(s.longest, min(len(v), largeValue))
		if len(values) <= swarm {
			s.addCodes(add, v, len(values))
			addDumps(add, v)
		}
	}
	s.most = longestEscape*s.longest + s.before + leastMost
	s.dense = newIndex(dense)
	s.exact, s.plain = newIndex(exact), [2]*index{newIndex(plain[0]), newIndex(plain[1])}
	return s
}

// A large value is looked for in pieces, its lines, and pieces of the whole that overlap by half, so that one Text
// stands for all of them: a megabyte with a short period would be compared as a whole at each place.
const (
	largeValue = 4 << 10
	longLine   = 256
	linePiece  = 64
)

// asItIs adds a value and its lines, byte for byte.
func asItIs(v string, least int, put func(text string, part bool)) {
	add := func(s string, part bool) {
		if len(s) >= max(least, 1) && !Common(s) {
			put(s, part)
			if strings.Contains(s, "\n") { // as a terminal shows it
				put(strings.ReplaceAll(s, "\n", "\r\n"), part)
			}
		}
	}
	if Common(v) && len(v) >= max(least, 1) {
		put(v, false)
		return
	}
	add(v, false)
	all := strings.TrimRight(v, "\r\n")
	add(all, false) // $(cat FILE) and the like leave the last line break out
	for line := range strings.Lines(v) {
		if line = strings.TrimSpace(line); len(line) < len(v) && !isArmor(line) {
			add(line, len(line) < len(all))
		}
	}
}

// crowd is how many values are too many to look for codes within codes within codes: that would take megabytes.
const crowd = 64

// swarm is how many values are so many that none is looked for in codes: they are parts of one large object.
const swarm = 2000

// leastMost is what is held back in any case while it is undecided.
const leastMost = 512

// few is how many values are so few that line breaks beneath several codes are looked for.
const few = 16

// leastLead is how much of a code goes before what is looked for in any case: the first bits of a value share a
// character with what is before it, and so on in each code.
const leastLead = 8

// addPlain adds a value as it is without quoting.
func addPlain(v string, least int, add func(text string, k kind, part bool)) {
	put := func(v string, k kind, part bool) {
		if len(v) >= max(least, 1) && !Common(v) {
			add(v, k, part)
		}
	}
	p := plainText(v)
	for line := range strings.Lines(v) {
		if line = strings.TrimSpace(line); len(line) < len(v) && !isArmor(line) && len(line) <= longLine {
			line = plainText(line)
			put(line, 0, len(line) < len(p))
		}
	}
	if len(v) > largeValue {
		for _, piece := range pieces(p, linePiece) {
			put(piece, 0, true)
		}
		return
	}
	if Common(v) && p == v { // the caller wants it all the same
		add(p, flat, false)
		return
	}
	k := kind(0)
	if strings.Trim(p, "0123456789") == "" && len(p) < longNumber {
		k = flat // or six lines of one digit each would be a value
	}
	put(p, k, false)
	// With what follows, the end may be another escape.
	if l, rest, _ := plainOf([]byte(v), nil, false, false, nil); rest > 0 {
		put(string(l.text), k, len(l.text) < len(p)/2)
	}
	if strings.Contains(p, " ") {
		put(strings.ReplaceAll(p, " ", "+"), k, false)
	}
}

// addDumps adds the beginning of a value as programs print bytes one by one.
func addDumps(add func(string, kind), v string) {
	const some = 6
	if len(v) < some {
		return
	}
	var lower, decimal []string
	for i := range some {
		lower = append(lower, hex.EncodeToString([]byte{v[i]}))
		decimal = append(decimal, strconv.Itoa(int(v[i])))
	}
	for _, between := range []string{" ", ":", ", ", ","} {
		for _, prefix := range []string{"", "0x"} {
			text := strings.Join(lower, between+prefix)
			add(text, dumped)
			add(strings.ToUpper(text), dumped)
			add(strings.ReplaceAll(strings.ToUpper(text), "X", "x"), dumped)
		}
		if between != ":" {
			add(strings.Join(decimal, between), counted)
		}
	}
}

// longNumber is how many digits are no coincidence.
const longNumber = 16

// plainText is a whole text without quoting.
func plainText(v string) string {
	l, _, _ := plainOf([]byte(v), nil, true, false, nil)
	return string(l.text)
}

const (
	leastCore  = 4       // the bytes of a value that are looked for in codes, at least
	mostCore   = 24      // and at most
	codeLength = 12      // and so much of the code
	coreEvery  = 2 << 10 // in a large value there are several
)

// addCodes adds what a value has for certain when it is encoded: the code of some of its bytes that no quoting changes,
// at each place of a group that they may have.
func (s *Set) addCodes(add func(string, kind), v string, values int) {
	c := coder{put: add, depth: maxDepth, folds: values <= few}
	switch {
	case len(v) > 16*coreEvery:
		c.depth = 1
	case values > crowd:
		c.depth = maxDepth - 1
	}
	for at := 0; at < len(v); at += coreEvery {
		part := v[at:min(at+coreEvery, len(v))]
		cores := cores(part)
		if from := cores[0].from; at == 0 && from > 0 {
			s.before = max(s.before, min(8*(longestEscape*from+leastCore), 2*coreEvery))
		}
		if at > 0 {
			s.before = 4 * coreEvery
		}
		if !c.folds {
			cores = cores[:1]
		}
		for _, core := range cores {
			c.codes([]byte(part[core.from:core.to]), c.depth)
		}
	}
}

// cores finds bytes that every quoting leaves as they are. It looks for two stretches of letters and digits, since a
// line break may lie in one; the first is the one at the beginning, if it is long enough. Where there is none, the
// value is found in a code only as it is.
func cores(v string) []span {
	const enough = 8
	safe := func(c byte) bool { return isLetter(c) || c == '.' || c == '_' || c == '-' }
	var list []span
	for i := 0; i < len(v); {
		j := i
		for j < len(v) && j-i < mostCore && safe(v[j]) {
			j++
		}
		if j-i >= leastCore {
			list = append(list, span{i, j})
		}
		i = max(i+1, j)
	}
	if len(list) == 0 {
		return []span{{0, min(len(v), mostCore)}}
	}
	atBegin := list[0].from == 0 && list[0].to >= enough
	slices.SortStableFunc(list, func(a, b span) int {
		if atBegin && (a.from == 0) != (b.from == 0) {
			return cmp.Compare(a.from, b.from)
		}
		return cmp.Compare(b.to-b.from, a.to-a.from)
	})
	return list[:min(len(list), 2)]
}

// coder adds beginnings of codes to a set.
type coder struct {
	put   func(string, kind)
	depth int  // of codes within each other
	folds bool // also the ends, for a line break may lie in the beginning
}

// codes adds the codes of some bytes, and the codes of those.
func (c *coder) codes(b []byte, depth int) {
	put := func(code string, k kind) {
		if len(code) < leastCore {
			return
		}
		begin := code[:min(len(code), codeLength)]
		c.put(begin, k)
		if depth > 1 {
			c.codes([]byte(begin), depth-1)
			if c.folds && len(code) >= codeLength+leastCore {
				c.codes([]byte(code[len(code)-codeLength:]), depth-1)
			}
		}
	}
	put64 := func(b []byte) {
		for offset := range 3 {
			k := coded0 + kind((8*offset+5)/6%4)
			std := base64Within(base64.RawStdEncoding, string(b), offset)
			put(std, k)
			if url := base64Within(base64.RawURLEncoding, string(b), offset); url != std {
				put(url, k)
			}
		}
	}
	put16 := func(b []byte) {
		lower := hex.EncodeToString(b)
		put(lower, hexed)
		if upper := strings.ToUpper(lower); upper != lower {
			put(upper, hexed)
		}
	}
	put64(b)
	put16(b)
	if depth == c.depth { // UTF-16, whichever byte comes first
		wide := make([]byte, 0, 2*len(b)-1)
		for i, c := range b {
			if i > 0 {
				wide = append(wide, 0)
			}
			wide = append(wide, c)
		}
		put64(wide)
		put16(wide)
	}
}

// Clean masks a text that is whole.
func (s *Set) Clean(text string) string {
	m := Masker{Set: s, Least: 1 << 30}
	return string(m.Flush(m.Write(nil, []byte(text))))
}
