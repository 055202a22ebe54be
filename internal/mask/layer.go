package mask

import (
	"bytes"
	"html"
	"sort"
	"unicode/utf16"
	"unicode/utf8"
)

// A layer is a text that was decoded from another. It knows which bytes of that one each of its own was made of, and so on down
// to the stream.
type layer struct {
	text  []byte
	under *layer // nil: the stream

	code   coding // what was decoded
	start  int    // the place in the text below where the first group of a code begins, or would
	first  int    // the place where the code begins
	pieces []piece
}

// coding is how a layer was made of what is below.
type coding uint8

const (
	escapes coding = iota // by taking away all quoting; then there are pieces
	base64Code
	hexCode
)

// piece says where the bytes from at on come from, up to those of the next piece: from n bytes at from, or one by one if n is 0.
type piece struct{ at, from, n int }

// source returns the bytes of the stream that those from from to to (which is more) were made of.
func (l *layer) source(from, to int) (int, int) {
	for ; l != nil; l = l.under {
		from, to = l.below(from, to)
	}
	return from, to
}

func (l *layer) below(from, to int) (int, int) {
	switch l.code {
	case base64Code:
		return max(l.start+from*8/6, l.first), l.start + (to*8-1)/6 + 1
	case hexCode:
		return max(l.start+2*from, l.first), l.start + 2*to
	}
	p := l.pieces[l.piece(from)]
	first := p.from
	if p.n == 0 {
		first += from - p.at
	}
	p = l.pieces[l.piece(to-1)]
	if p.n > 0 {
		return first, p.from + p.n
	}
	return first, p.from + to - p.at
}

// piece returns which piece a byte of the text belongs to.
func (l *layer) piece(at int) int {
	return sort.Search(len(l.pieces), func(i int) bool { return l.pieces[i].at > at }) - 1
}

// formBreak stands for a line break that was written as in a form, where a plus sign is a blank. (It is a vertical tab.)
const formBreak = '\v'

const (
	plainByte = iota
	dropped   // control characters and quotes
	lineBreak
	escaping
)

var bytesOf = func() (class [256]uint8) {
	for c := range ' ' {
		class[c] = dropped
	}
	class['"'], class['\''], class[0x7f] = dropped, dropped, dropped
	class['\n'], class['\r'], class[formBreak] = lineBreak, lineBreak, lineBreak
	class['\\'], class['%'], class['&'] = escaping, escaping, escaping
	return class
}()

// maxPasses bounds how many kinds of escapes may lie within each other. Of one kind any number is taken away at once.
const maxPasses = 4

// longestEscape is the most bytes that one escape takes behind what begins it.
const longestEscape = 12

// plainOf takes all quoting away: what backslashes, percent signs and entities stand for takes their place; quotes, backslashes,
// control characters, line breaks and the blanks that follow them are left out. So a value reads alike however it was quoted
// or folded, and however often: it is only to be compared with another that went through the same.
//
// What stands in the stream from rest on may be the beginning of an escape, and is left out; rest is -1 when there is no such
// thing, as at the end. indented says that a line break and blanks came before; escaped, that there were escapes.
func plainOf(text []byte, under *layer, end, indented bool, room *rooms) (l *layer, rest int, escaped bool) {
	u := unescaper{end: end, last: true}
	l, rest = u.unescape(text, under, indented, room.layer(0, len(text)))
	escaped = u.decoded
	if u.again { // what is left out after one pass might have been quoted
		u.last = false
		l, rest = u.unescape(text, under, indented, room.layer(0, len(text)))
	}
	if rest < len(text) {
		rest, _ = under.source(rest, len(text))
	} else {
		rest = -1
	}
	for pass := 1; !u.last; pass++ {
		u.last = !u.again || pass == maxPasses-1
		u.done, u.before = u.last, true
		next, more := u.unescape(l.text, l, indented, room.layer(pass, len(l.text)))
		if more < len(l.text) {
			if at, _ := l.source(more, len(l.text)); rest < 0 || at < rest {
				rest = at
			}
		}
		l = next
	}
	return l, rest, escaped
}

// withoutQuotes is a text without quotes, backslashes, line breaks and the like, in which nothing is decoded.
func withoutQuotes(text []byte, under *layer, end, indented bool, room *rooms) *layer {
	u := unescaper{end: end, last: true, done: true}
	l, _ := u.unescape(text, under, indented, room.layer(maxPasses, len(text)))
	return l
}

// rooms are layers of before, whose memory is used again.
type rooms [maxPasses + 2]layer

// layer returns an empty one, in which a text of n bytes has room.
func (r *rooms) layer(pass, n int) *layer {
	if r == nil {
		return &layer{text: make([]byte, 0, n)}
	}
	l := &r[pass]
	if l.pieces = l.pieces[:0]; cap(l.text) < n {
		l.text = make([]byte, 0, n+n/2)
	}
	l.text = l.text[:0]
	return l
}

// align moves a place of the stream that lies within an escape to where that begins.
func (l *layer) align(at int) int {
	for ; l != nil; l = l.under {
		i := sort.Search(len(l.pieces), func(i int) bool {
			from, _ := l.source(l.pieces[i].at, l.pieces[i].at+1)
			return from > at
		}) - 1
		if i >= 0 && l.pieces[i].n > 0 {
			if from, to := l.source(l.pieces[i].at, l.pieces[i].at+1); to > at {
				at = from
			}
		}
	}
	return at
}

// unescaper makes one pass of plainOf after the other.
type unescaper struct {
	end     bool
	last    bool // what quotes is left out
	done    bool // nothing is decoded any more
	before  bool // this is not the first pass
	again   bool // what was decoded may begin further escapes
	decoded bool // something was
}

// decoded reports whether some of the bytes from from to to were an escape.
func (l *layer) decoded(from, to int) bool {
	for i := l.piece(from); i < len(l.pieces) && l.pieces[i].at < to; i++ {
		if l.pieces[i].n > 0 {
			return true
		}
	}
	return false
}

func (u *unescaper) unescape(src []byte, under *layer, indented bool, l *layer) (_ *layer, rest int) {
	l.under, u.again = under, false
	emit := func(r rune, isByte bool, p piece) {
		l.pieces = append(l.pieces, p)
		if isByte {
			l.text = append(l.text, byte(r))
		} else {
			l.text = utf8.AppendRune(l.text, r)
		}
	}
	indented = indented && u.last
	form := false // blanks may be written as in forms: the line break was
	for i := 0; i < len(src); {
		if indented {
			for i < len(src) && (src[i] == ' ' || form && src[i] == '+') {
				i++
			}
		}
		j := i
		for ; j+4 <= len(src); j += 4 {
			if bytesOf[src[j]]|bytesOf[src[j+1]]|bytesOf[src[j+2]]|bytesOf[src[j+3]] != plainByte {
				break
			}
		}
		for j < len(src) && bytesOf[src[j]] == plainByte {
			j++
		}
		if j > i {
			indented, form = false, false
			l.pieces = append(l.pieces, piece{at: len(l.text), from: i})
			l.text = append(l.text, src[i:j]...)
			i = j
			continue
		}
		if i == len(src) {
			break
		}
		switch class := bytesOf[src[i]]; {
		case class == escaping && !u.done:
		case class == escaping && src[i] != '\\':
			indented, form = false, false
			emit(rune(src[i]), true, piece{at: len(l.text), from: i})
			i++
			continue
		case u.last:
			if class == lineBreak {
				indented, form = true, src[i] == formBreak
			}
			for i++; i < len(src) && bytesOf[src[i]] == dropped; i++ {
			}
			continue
		default:
			emit(rune(src[i]), true, piece{at: len(l.text), from: i})
			i++
			continue
		}
		r, isByte, n := decodeEscape(src[i:], u.end)
		if n == 0 {
			return l, i
		}
		if r >= 0 && u.before && !under.decoded(i, i+n) {
			r, n = -1, 1 // it was none at first sight
		}
		from := i
		i += n
		u.decoded = u.decoded || r >= 0
		if r == formBreak {
			r = '\f'
		}
		switch {
		case r < 0 && src[from] == '\\': // it quotes what follows, or nothing
			continue
		case r < 0:
			r, isByte = rune(src[from]), true
		case r < utf8.RuneSelf && bytesOf[r] == escaping, r == ';', r == '#', r == '{', r == '}':
			u.again = true
		case !u.last:
			if src[from] == '%' && (r == '\n' || r == '\r') {
				r = formBreak
			}
		case r < utf8.RuneSelf && bytesOf[r] != plainByte:
			if bytesOf[r] == lineBreak {
				indented, form = true, src[from] == '%'
			}
			continue
		case indented && r == ' ':
			continue
		}
		indented, form = false, false
		emit(r, isByte, piece{at: len(l.text), from: from, n: n})
	}
	return l, len(src)
}

// decodeEscape reads what may be an escape: n bytes that stand for r, which is a byte or a character. r is -1 when it is none; then
// n is the length of what begins it. n is 0 when more has to come.
func decodeEscape(b []byte, end bool) (r rune, isByte bool, n int) {
	switch b[0] {
	case '\\':
		return backslash(b, end)
	case '%':
		n := 1
		for len(b) >= n+4 && b[n] == '2' && b[n+1] == '5' && isHex(b[n+2]) && isHex(b[n+3]) { // a percent sign, encoded again and again
			n += 2
		}
		if len(b) >= n+2 && isHex(b[n]) && isHex(b[n+1]) {
			if !end && len(b) < n+4 && b[n] == '2' && b[n+1] == '5' {
				return 0, false, 0
			}
			return rune(hexValue(b[n])<<4 | hexValue(b[n+1])), true, n + 2
		}
		if !end && len(b) < n+2 && (len(b) < n+1 || isHex(b[n])) {
			return 0, false, 0
		}
		return -1, false, 1
	}
	return entity(b, end)
}

// backslash reads an escape of JSON, C, Python, JavaScript and the like, behind any number of backslashes.
func backslash(b []byte, end bool) (r rune, isByte bool, n int) {
	for n < len(b) && b[n] == '\\' {
		n++
	}
	if n == len(b) {
		if !end {
			return 0, false, 0
		}
		return -1, false, n
	}
	digits := func(from, least, most int, is func(byte) bool) (value rune, length int, open bool) {
		for length < most && from+length < len(b) && is(b[from+length]) {
			value = value<<4 | rune(hexValue(b[from+length]))
			length++
		}
		open = !end && length < most && from+length == len(b)
		if length < least {
			length = 0
		}
		return value, length, open
	}
	switch c := b[n]; {
	case c >= '0' && c <= '7':
		_, length, open := digits(n, 1, 3, func(c byte) bool { return c >= '0' && c <= '7' })
		if open {
			return 0, false, 0
		}
		for _, c := range b[n : n+length] {
			r = r<<3 | rune(c-'0')
		}
		return r & 0xff, true, n + length
	case c == 'x':
		v, length, open := digits(n+1, 2, 2, isHex)
		switch {
		case open:
			return 0, false, 0
		case length == 2:
			return v, true, n + 3
		}
	case c == 'U':
		v, length, open := digits(n+1, 8, 8, isHex)
		switch {
		case open:
			return 0, false, 0
		case length == 8 && v >= 0 && v <= utf8.MaxRune:
			return v, false, n + 9
		}
	case c == 'u' && len(b) > n+1 && b[n+1] == '{':
		v, length, open := digits(n+2, 1, 6, isHex)
		at := n + 2 + length
		switch {
		case open || !end && at == len(b):
			return 0, false, 0
		case length > 0 && at < len(b) && b[at] == '}':
			return v, false, at + 1
		}
	case c == 'u':
		v, length, open := digits(n+1, 4, 4, isHex)
		switch {
		case open:
			return 0, false, 0
		case length < 4:
			return -1, false, n
		case !utf16.IsSurrogate(v):
			return v, false, n + 5
		}
		// The other half follows, behind as many backslashes.
		at := n + 5
		for at < len(b) && b[at] == '\\' {
			at++
		}
		switch {
		case !end && len(b) < at+5:
			return 0, false, 0
		case at > n+5 && len(b) >= at+5 && b[at] == 'u':
			if low, length, _ := digits(at+1, 4, 4, isHex); length == 4 {
				if r := utf16.DecodeRune(v, low); r != utf8.RuneError {
					return r, false, at + 5
				}
			}
		}
		return utf8.RuneError, false, n + 5
	default:
		for i, e := range []byte("abefnrtvE") {
			if c == e {
				return rune("\a\b\x1b\f\n\r\t\v\x1b"[i]), true, n + 1
			}
		}
	}
	return -1, false, n
}

// entity reads a reference of HTML or XML. An ampersand may have been encoded again and again.
func entity(b []byte, end bool) (r rune, isByte bool, n int) {
	n = 1
	for len(b) >= n+4 && string(b[n:n+4]) == "amp;" {
		n += 4
	}
	name := n
	for name < len(b) && name-n < longestEscape && (b[name] == '#' || isLetter(b[name])) {
		name++
	}
	switch {
	case name == len(b) && name-n < longestEscape && !end:
		return 0, false, 0
	case name < len(b) && b[name] == ';' && name > n:
		text := html.UnescapeString("&" + string(b[n:name+1]))
		if r, size := utf8.DecodeRuneInString(text); size == len(text) {
			return r, false, name + 1
		}
	}
	if n > 1 {
		return '&', true, n
	}
	return -1, false, 1
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' }

func isHex(c byte) bool { return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f' }

func hexValue(c byte) int {
	if c <= '9' {
		return int(c - '0')
	}
	return int(c|0x20-'a') + 10
}

// digitsOf64 is the value of each character of base64, in both alphabets, or 64.
var digitsOf64 = func() (values [256]uint8) {
	for c := range values {
		values[c] = 64
	}
	for i := range 64 {
		values["ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[i]] = uint8(i)
	}
	values['-'], values['_'] = 62, 63
	return values
}()

// inCode reports whether a byte may belong to a code.
func inCode(code coding, c byte) bool {
	if code == hexCode {
		return isHex(c)
	}
	return digitsOf64[c] < 64
}

// decodeRun decodes the code from from to to, whose first group begins at start: before from if its beginning is missing.
func decodeRun(l *layer, code coding, start, from, to int) *layer {
	d := &layer{under: l, code: code, start: start, first: from}
	bits, size := 6, 4
	if code == hexCode {
		bits, size = 4, 2
	}
	d.text = make([]byte, 0, (to-start)*bits/8+3)
	for at := start; at < to; at += size {
		var group uint32
		n := min(size, to-at)
		for i := range size {
			group <<= bits
			if i < n && at+i >= from {
				if code == hexCode {
					group |= uint32(hexValue(l.text[at+i]))
				} else {
					group |= uint32(digitsOf64[l.text[at+i]])
				}
			}
		}
		for i := range n * bits / 8 {
			d.text = append(d.text, byte(group>>(size*bits-8*(i+1))))
		}
	}
	return d
}

// decodeDump decodes bytes that are written one by one, with blanks, colons, commas and 0x between them or not; whole reports
// whether something else comes behind.
func decodeDump(under *layer, at int, decimal bool, most int) (d *layer, whole bool) {
	src := under.text
	d = &layer{under: under}
	for i := at; i < len(src); {
		switch c := src[i]; {
		case c == ' ' || c == ':' || c == ',':
			i++
			continue
		case !decimal && c == '0' && i+1 < len(src) && src[i+1] == 'x':
			i += 2
			continue
		}
		n, value := 0, 0
		switch {
		case decimal:
			for i+n < len(src) && n < 3 && src[i+n] >= '0' && src[i+n] <= '9' {
				value = 10*value + int(src[i+n]-'0')
				n++
			}
		case i+1 < len(src) && isHex(src[i]) && isHex(src[i+1]):
			n, value = 2, hexValue(src[i])<<4|hexValue(src[i+1])
		}
		if n == 0 || value > 255 || len(d.text) > most {
			return d, i+4 <= len(src) || len(d.text) > most
		}
		d.text, d.pieces = append(d.text, byte(value)), append(d.pieces, piece{at: len(d.text), from: i, n: n})
		i += n
	}
	return d, false
}

// withoutBlanks leaves out the blanks of a plain text.
func withoutBlanks(under *layer, room *rooms) *layer {
	l := room.layer(maxPasses+1, len(under.text))
	l.under = under
	for from := 0; from < len(under.text); {
		to := bytes.IndexByte(under.text[from:], ' ') + from
		if to < from {
			to = len(under.text)
		}
		if to > from {
			l.pieces = append(l.pieces, piece{at: len(l.text), from: from})
			l.text = append(l.text, under.text[from:to]...)
		}
		from = to + 1
	}
	return l
}

// fromUTF16 decodes UTF-16 in which every second byte is mostly zero, as that of Western texts is: with the zeros behind, and with
// the zeros in front.
func fromUTF16(under *layer) []*layer {
	src := under.text
	var zeros [2]int
	for i, c := range src {
		if c == 0 {
			zeros[i%2]++
		}
	}
	odd := 0
	if zeros[1] > zeros[0] {
		odd = 1
	}
	if len(src) < 2 || zeros[odd] < len(src)/4 {
		return nil
	}
	var list []*layer
	for _, little := range []bool{true, false} {
		from := odd
		if little {
			from = (odd + 1) % 2
		}
		l := &layer{under: under}
		for i := from; i+2 <= len(src); i += 2 {
			unit := uint16(src[i])<<8 | uint16(src[i+1])
			if little {
				unit = unit<<8 | unit>>8
			}
			p := piece{at: len(l.text), from: i, n: 2}
			r := rune(unit)
			if utf16.IsSurrogate(r) && i+4 <= len(src) {
				low := uint16(src[i+2])<<8 | uint16(src[i+3])
				if little {
					low = low<<8 | low>>8
				}
				r = utf16.DecodeRune(r, rune(low))
				p.n, i = 4, i+2
			}
			l.text, l.pieces = utf8.AppendRune(l.text, r), append(l.pieces, p)
		}
		list = append(list, l)
	}
	return list
}
