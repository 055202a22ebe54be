package vault

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"unicode/utf8"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// Whatever answers may be hostile, or broken. An answer has the memory of this process in its hand, and with it the
// command that runs below. So everything about an answer has a bound, after decompression.
const (
	maxHeader  = 64 << 10 // of an answer
	maxFailure = 1 << 20  // of an error answer; the rest is not read
	maxAnswer  = 4 << 20
	maxSecret  = 64 << 20 // of a secret, before a command runs. Vault takes no request over 32 MiB, so none is larger
	maxEntries = 100_000  // directly in one object or list of the data: keys of a secret, names in a folder
	maxWords   = 16       // errors and warnings that are kept,
	maxWord    = 1 << 10  // and bytes of each, and of all that is shown together
)

// errTooLong is the failure to read an answer beyond its bound.
var errTooLong = errors.New("the answer is too long")

// limitKey is the key of a request's context for the bound of its answer, where it is not maxAnswer.
type limitKey struct{}

// bounded is the body of an answer.
type bounded struct {
	io.ReadCloser
	rest  int64 // may still be read
	atEnd error // what comes at the bound
}

// bound bounds what can be read of an answer. vault/api itself reads error answers, and to their end.
func bound(resp *http.Response) {
	b := &bounded{ReadCloser: resp.Body, rest: maxAnswer, atEnd: errTooLong}
	if n, ok := resp.Request.Context().Value(limitKey{}).(int64); ok {
		b.rest = n
	}
	if resp.StatusCode >= http.StatusBadRequest {
		b.rest, b.atEnd = maxFailure, io.EOF
	}
	resp.Body = b
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.rest == 0 {
		if n, err := b.ReadCloser.Read(make([]byte, 1)); n == 0 {
			return 0, err
		}
		return 0, b.atEnd
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.rest)])
	b.rest -= int64(n)
	return n, err
}

// Bound is called when a command runs, which whatever answers from now on must not take along: a secret may be twice as
// long as the longest that was read so far, or maxAnswer.
func (c *Client) Bound() { c.running.Store(true) }

// limit is the bound of a request's answer.
func (c *Client) limit(r request) int64 {
	switch {
	case !r.secret:
		return maxAnswer
	case c.running.Load():
		return min(max(maxAnswer, 2*c.longest.Load()), maxSecret)
	}
	return maxSecret
}

// noteLength keeps the length of the longest secret that was read before a command ran.
func (c *Client) noteLength(r request, n int) {
	if r.secret && !c.running.Load() {
		for old := c.longest.Load(); int64(n) > old &&
			!c.longest.CompareAndSwap(old, int64(n)); old = c.longest.Load() {
		}
	}
}

func tooLong(what string, limit int64) *fault.Error {
	return &fault.Error{Kind: fault.Away, What: what, Why: fmt.Sprintf("the answer is longer than %d MiB", limit>>20),
		Hint: "no answer is expected to be so long: check what answers at this address. If a secret has grown to that size, a restart of vaultexec accepts it"}
}

func tooWide(what string) *fault.Error {
	return &fault.Error{Kind: fault.Away, What: what,
		Why:  fmt.Sprintf("the answer has more than %d entries in one place", maxEntries),
		Hint: "spread them over several paths"}
}

// wide reports whether JSON, which is valid, has more than maxEntries in one of its outer objects and lists. Those
// further in are kept as they stand.
func wide(b []byte) bool {
	if bytes.Count(b, []byte{','}) < maxEntries {
		return false
	}
	const outer = 3 // data, data.data of a secret or data.keys of a list, and one more
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var room []int // for tokens in each object or list that is open
	for {
		tok, err := dec.Token()
		if err != nil {
			return false // its end
		}
		if tok == json.Delim('}') || tok == json.Delim(']') {
			room = room[:len(room)-1]
			continue
		}
		if n := len(room); n > 0 && n <= outer {
			if room[n-1]--; room[n-1] < 0 {
				return true
			}
		}
		switch tok {
		case json.Delim('{'):
			room = append(room, 2*maxEntries) // keys and values
		case json.Delim('['):
			room = append(room, maxEntries)
		}
	}
}

// words are errors or warnings of a server, as many and as much of each as somebody would read.
type words []string

// UnmarshalJSON stops at its bounds.
func (w *words) UnmarshalJSON(b []byte) error {
	*w = nil
	dec := json.NewDecoder(bytes.NewReader(b))
	tok, err := dec.Token()
	if err != nil || tok == nil {
		return err
	}
	if tok != json.Delim('[') {
		return errors.New("not a list")
	}
	*w = words{}
	for dec.More() && len(*w) < maxWords {
		var s string
		if err := dec.Decode(&s); err != nil {
			return err
		}
		*w = append(*w, shortened(s, maxWord))
	}
	return nil
}

// shortened cuts s to n bytes, at a character.
func shortened(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
