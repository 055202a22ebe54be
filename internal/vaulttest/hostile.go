package vaulttest

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Hostility is an answer of a server that means harm, or is broken.
type Hostility struct {
	Name  string
	Serve func(http.ResponseWriter, *http.Request)
	Slow  bool // it is the timeout that ends it
}

// bomb is 64 MiB of zeros behind what looks like the beginning of an answer, compressed to 64 KiB.
var bomb = sync.OnceValue(func() []byte {
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestCompression)
	_, _ = io.WriteString(z, `{"errors":["`)
	zeros := make([]byte, 1<<20)
	for range 64 {
		_, _ = z.Write(bytes.ReplaceAll(zeros, []byte{0}, []byte("a")))
	}
	_, _ = io.WriteString(z, `"]}`)
	_ = z.Close()
	return b.Bytes()
})

// Hostile makes all kinds of them, with every status that a client looks at.
func Hostile() []Hostility {
	const length = 3<<20 + 1<<19 // just what is still taken
	fill := func(before, unit, after string) string {
		return before + strings.Repeat(unit+",", length/(len(unit)+1)) + unit + after
	}
	bodies := []struct{ name, encoding, body string }{
		{"gzip bomb", "gzip", string(bomb())},
		{"gzip bomb that is cut off", "gzip", string(bomb()[:len(bomb())/2])},
		{"what calls itself gzip", "gzip", "{}"},
		{"what calls itself zstd", "zstd", "\x28\xb5\x2f\xfd" + strings.Repeat("\x00", 100)},
		{"a million errors", "", fill(`{"errors":[`, `""`, `]}`)},
		{"one long error", "", `{"errors":["` + strings.Repeat("x", length) + `"]}`},
		{"a million warnings", "", fill(`{"request_id":"x","data":{},"warnings":[`, `"w"`, `]}`)},
		{"a million keys in a list", "", fill(`{"request_id":"x","data":{"keys":[`, `"k"`, `]}}`)},
		{"one key a million times", "", fill(`{"request_id":"x","data":{"data":{`, `"k":1`,
			`},"metadata":{"version":9,"created_time":"2026-01-01T00:00:00Z","destroyed":false}}}`)},
		{"lists of lists", "", fill(`{"request_id":"x","data":{"data":{"k":[`, `[1,{}]`,
			`]},"metadata":{"version":9,"created_time":"2026-01-01T00:00:00Z","destroyed":false}}}`)},
		{"numbers", "", fill(`{"request_id":"x","data":{"data":{"k":[`, `1`,
			`]},"metadata":{"version":9,"created_time":"2026-01-01T00:00:00Z","destroyed":false}}}`)},
		{"deep lists", "", `{"request_id":"x","data":{"data":{"k":` + strings.Repeat("[", length/2) +
			strings.Repeat("]", length/2) + `}}}`},
		{"deep, and never closed", "", strings.Repeat(`{"data":`, length/8)},
		{"versions without end", "",
			fill(`{"request_id":"x","data":{"current_version":9,"versions":{`, `"9":{}`, `}}}`)},
	}
	var many strings.Builder
	many.WriteString(`{"request_id":"x","data":{"data":{`)
	for i := 0; many.Len() < length; i++ {
		fmt.Fprintf(&many, `"k%d":1,`, i)
	}
	many.WriteString(`"k":1},"metadata":{"version":9,"created_time":"2026-01-01T00:00:00Z","destroyed":false}}}`)
	bodies = append(bodies, struct{ name, encoding, body string }{"a secret of half a million keys", "", many.String()})

	var all []Hostility
	for _, status := range []int{200, 403, 404, 500, 503} {
		for _, b := range bodies {
			all = append(all, Hostility{Name: fmt.Sprintf("%d %s", status, b.name),
				Serve: func(w http.ResponseWriter, _ *http.Request) {
					if b.encoding != "" {
						w.Header().Set("Content-Encoding", b.encoding)
					}
					w.Header().Set("Content-Type", "application/json")
					w.WriteHeader(status)
					_, _ = io.WriteString(w, b.body)
				}})
		}
		all = append(all, Hostility{Name: fmt.Sprintf("%d without end", status),
			Serve: func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(status)
				_, _ = io.WriteString(w, `{"errors":["`)
				for chunk := bytes.Repeat([]byte("a"), 1<<16); r.Context().Err() == nil; {
					if _, err := w.Write(chunk); err != nil {
						return
					}
				}
			}})
	}
	raw := func(name, head, unit string, pause time.Duration) Hostility {
		return Hostility{Name: name, Slow: pause > 0, Serve: func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			_, err = io.WriteString(conn, head)
			for err == nil {
				_, err = io.WriteString(conn, unit)
				if pause > 0 {
					time.Sleep(pause)
				}
			}
		}}
	}
	return append(all,
		raw("headers without end", "HTTP/1.1 200 OK\r\n", "X-A: "+strings.Repeat("a", 1000)+"\r\n", 0),
		raw("one header without end", "HTTP/1.1 200 OK\r\nX-A: ", strings.Repeat("a", 1000), 0),
		raw("a status line without end", "HTTP/1.1 200 ", strings.Repeat("a", 1000), 0),
		raw("early hints without end", "", "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n", 0),
		raw("a chunk's length without end", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
			strings.Repeat("0", 1000), 0),
		raw("trailers without end",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-A\r\n\r\n2\r\n{}\r\n0\r\n",
			"X-A: "+strings.Repeat("a", 1000)+"\r\n", 0),
		raw("a byte at a time", "HTTP/1.1 200 OK\r\n\r\n{", " ", 50*time.Millisecond),
		raw("a header at a time", "HTTP/1.1 200 OK\r\n", "X-A: a\r\n", 50*time.Millisecond),
	)
}
