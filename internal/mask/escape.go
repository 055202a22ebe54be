package mask

import (
	"html"
	"unicode/utf16"
	"unicode/utf8"
)

// formBreak stands for a line break that was written as in a form, where a plus sign is a blank. It is a vertical tab.
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

// longestEscape is the most bytes that one escape takes behind what begins it.
const longestEscape = 12

// unescaper makes one pass of plainOf after the other.
type unescaper struct {
	end     bool
	last    bool // what quotes is left out
	done    bool // nothing is decoded any more
	before  bool // this is not the first pass
	again   bool // what was decoded may begin further escapes
	decoded bool // something was
}

// unescape makes one pass over a text. It is one long loop since it is the inner one of the whole filter: the place and
// the line break that came before would have to be handed on for every byte.
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

// decodeEscape reads what may be an escape: n bytes that stand for r, which is a byte or a character. r is -1 when it
// is none; then n is the length of what begins it. n is 0 when more has to come.
func decodeEscape(b []byte, end bool) (r rune, isByte bool, n int) {
	switch b[0] {
	case '\\':
		return backslash(b, end)
	case '%':
		n := 1
		// A percent sign, encoded again and again.
		for len(b) >= n+4 && b[n] == '2' && b[n+1] == '5' && isHex(b[n+2]) && isHex(b[n+3]) {
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

// backslash reads an escape of JSON, C, Python, JavaScript and the like, behind any number of backslashes. It is long
// since it is the table of these languages, a case for each of their forms.
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
