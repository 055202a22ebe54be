package mask

import (
	"bytes"
	"sort"
	"unicode/utf16"
	"unicode/utf8"
)

// A layer is a text that was decoded from another. It knows which bytes of that one each of its own was made of, and so
// on down to the stream.
type layer struct {
	text  []byte
	under *layer // nil: the stream

	code   coding // what was decoded
	how    string // the name of its form, where the code and the pieces do not tell
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

// piece says where the bytes from at on come from, up to those of the next piece: from n bytes at from, or one by one
// if n is 0.
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

// maxPasses bounds how many kinds of escapes may lie within each other. Of one kind any number is taken away at once.
const maxPasses = 4

// plainOf takes all quoting away. What backslashes, percent signs and entities stand for takes their place. Quotes,
// backslashes, control characters, line breaks and the blanks that follow them are left out. So a value reads alike
// however, and however often, it was quoted or folded. The result is only to be compared with another that went through
// the same.
//
// What stands in the stream from rest on may be the beginning of an escape, and is left out. rest is -1 when there is
// no such thing, as at the end. indented says that a line break and blanks came before, and escaped that there were
// escapes.
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

// decoded reports whether some of the bytes from from to to were an escape.
func (l *layer) decoded(from, to int) bool {
	for i := l.piece(from); i < len(l.pieces) && l.pieces[i].at < to; i++ {
		if l.pieces[i].n > 0 {
			return true
		}
	}
	return false
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

// decodeRun decodes the code from from to to. Its first group begins at start, which is before from if its beginning is
// missing.
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

// decodeDump decodes bytes that are written one by one, with blanks, colons, commas and 0x between them or not; whole
// reports whether something else comes behind.
func decodeDump(under *layer, at int, decimal bool, most int) (d *layer, whole bool) {
	src := under.text
	d = &layer{under: under, how: formBytes}
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
	l.under, l.how = under, formFolded
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

// fromUTF16 decodes UTF-16 in which every second byte is mostly zero, as that of Western texts is: with the zeros
// behind, and with the zeros in front.
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
		l := &layer{under: under, how: formUTF16}
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
