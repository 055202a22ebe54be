package cli

import (
	"crypto/rand"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
	"github.com/agenticverz/vaultexec/launcher"
)

// newValue is the value from wherever it comes: the command line, standard input, a file, or chance.
func (a *app) newValue(s *settings, words []string) (vault.Text, error) {
	file := s.str("from-file")
	random := len(words) == 0 && file == ""
	for _, name := range []string{"length", "charset"} {
		if s.given.has(name) && !random {
			return vault.Text{}, &fault.Error{Kind: fault.Usage, What: "cannot use --" + name,
				Why: "it is for random values, and the value is given", Hint: "leave one of them out"}
		}
	}
	switch {
	case random && s.bool("raw"):
		return vault.Text{}, &fault.Error{Kind: fault.Usage, What: "cannot use --raw",
			Why:  "it is for a value from standard input or a file",
			Hint: "leave it out, or give the value with - or --from-file"}
	case random:
		return randomValue(s)
	case len(words) > 0 && file != "":
		return vault.Text{}, &fault.Error{Kind: fault.Usage, What: "cannot use --from-file",
			Why: "the value is given on the command line, too", Hint: "leave one of them out"}
	case file != "":
		return a.valueIn(s, file, "--from-file ")
	case words[0] == "-" && !a.literalDash():
		return a.valueTyped(s, "New value: ", "--from-file FILE")
	}
	value := strings.Clone(words[0])
	launcher.HideArgument(words[0])
	a.ui.log.Warn(
		"the value was in the process list and is in the shell's history; use - (stdin)")
	if value == "" { // meant: nobody writes '' by accident
		return vault.NewText(""), nil
	}
	return checkValue(value, false, "the value")
}

// valueIn is the value in a file, which an option may name.
func (a *app) valueIn(s *settings, file, option string) (vault.Text, error) {
	b, err := readUpTo(file, maxValue+2) // more than a value and its line break
	if err != nil {
		return vault.Text{}, &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot read %s%q", option, file),
			Why: vault.Errno(err), Hint: vault.FileHint}
	}
	return checkValue(string(b), !s.bool("raw"), fmt.Sprintf("the value in %q", file))
}

// valueTyped is the value that somebody types at a terminal, or that standard input is. fromFile is how a file is named.
func (a *app) valueTyped(s *settings, question, fromFile string) (vault.Text, error) {
	hint := "read it from a file: " + fromFile
	if isTerminal(a.terminal.in) {
		line, err := a.terminal.readHidden(question)
		if err != nil {
			return vault.Text{}, &fault.Error{Kind: fault.Usage, What: "cannot ask for the value",
				Why: err.Error(), Hint: hint}
		}
		return checkValue(line, false, "the value")
	}
	b, err := io.ReadAll(io.LimitReader(a.terminal.in, maxValue+2))
	if err != nil {
		return vault.Text{}, &fault.Error{Kind: fault.Usage, What: "cannot read the value from standard input",
			Why: vault.Errno(err), Hint: hint}
	}
	return checkValue(string(b), !s.bool("raw"), "the value on standard input")
}

// literalDash reports whether a lone - stood after --, where it is a value.
func (a *app) literalDash() bool { return len(a.command) > 0 && a.command[len(a.command)-1] == "-" }

// checkValue refuses what Vault would change or no variable could hold. The value itself is in no text.
func checkValue(v string, trim bool, what string) (vault.Text, error) {
	if trim {
		if line, ok := strings.CutSuffix(v, "\n"); ok {
			v = strings.TrimSuffix(line, "\r")
		}
	}
	e := &fault.Error{Kind: fault.Value, What: "cannot use " + what}
	switch {
	case v == "":
		e.Why, e.Hint = "it is empty", "`vaultexec rotate PATH KEY ''` makes it empty"
	case len(v) > maxValue:
		e.Why, e.Hint = "it is longer than Vault takes (1 MiB)",
			"keep it elsewhere, encrypted with a key that is in Vault"
	case !utf8.ValidString(v):
		e.Why, e.Hint = "it is not UTF-8, and Vault would change it", "encode it, for example with base64"
	case strings.ContainsRune(v, 0):
		e.Why, e.Hint = "it holds a NUL byte, which no variable can", "encode it, for example with base64"
	default:
		return vault.NewText(v), nil
	}
	return vault.Text{}, e
}

const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// charsets are what random values are made of. ascii is everything that can be seen, without the blank.
var charsets = map[string]string{
	"alnum":  letters + "0123456789",
	"hex":    "0123456789abcdef",
	"base64": letters + "0123456789+/",
	"ascii":  visible(),
}

func visible() string {
	var b []byte
	for c := byte('!'); c <= '~'; c++ {
		b = append(b, c)
	}
	return string(b)
}

func randomValue(s *settings) (vault.Text, error) {
	charset := s.choice("charset")
	if charset == "uuid" {
		if s.given.has("length") {
			return vault.Text{}, &fault.Error{Kind: fault.Usage, What: "cannot use --length",
				Why: "a uuid has its own length", Hint: "leave it out, or choose another --charset"}
		}
		return vault.NewText(newUUID()), nil
	}
	v := s.one("length")
	n, err := strconv.Atoi(v.text)
	switch {
	case err != nil || n < 8 || n > 4096:
		s.bad(v, "not a number from 8 to 4096", "")
	case charset == "hex" && n%2 != 0, charset == "base64" && n%4 != 0:
		s.bad(v, "a value of this length cannot be decoded",
			"use an even number with hex and a multiple of 4 with base64")
	}
	if alphabet := charsets[charset]; len(s.faults) == 0 {
		return vault.NewText(randomText(alphabet, n)), nil
	}
	return vault.Text{}, nil // what is wrong has been noted
}

// randomText draws n characters, each with the same probability: bytes beyond the last whole multiple of the alphabet's
// size are drawn again.
func randomText(alphabet string, n int) string {
	limit := 256 - 256%len(alphabet)
	out, buf := make([]byte, 0, n), make([]byte, 64)
	for len(out) < n {
		_, _ = rand.Read(buf) // never fails, says its documentation
		for _, b := range buf {
			if int(b) < limit && len(out) < n {
				out = append(out, alphabet[int(b)%len(alphabet)])
			}
		}
	}
	return string(out)
}

// newUUID makes a random UUID (RFC 9562, version 4).
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
