package serving

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
)

func TestWaits(t *testing.T) {
	t.Parallel()
	s := Socket{Ino: 0x8a3f, Dev: 9}
	with := func(b []byte) func(uint64, int) []byte {
		return func(at uint64, n int) []byte {
			if at != 0x1000 {
				return nil
			}
			return b[:min(n, len(b))]
		}
	}
	poll := func(entries ...[2]int) (b []byte) {
		for _, e := range entries {
			b = binary.NativeEndian.AppendUint32(b, uint32(int32(e[0])))
			b = binary.NativeEndian.AppendUint16(b, uint16(e[1]))
			b = binary.NativeEndian.AppendUint16(b, 0)
		}
		return b
	}
	bits := func(fds ...int) []byte {
		words := make([]uint64, 4)
		for _, fd := range fds {
			words[fd/64] |= 1 << (fd % 64)
		}
		b, _ := binary.Append(nil, binary.NativeEndian, words)
		return b
	}
	one := func(c call, read func(uint64, int) []byte, args ...uint64) process {
		th := thread{call: c, read: read}
		copy(th.args[:], args)
		return process{own: []int{3, 70}, threads: []thread{{}, th}}
	}
	for name, c := range map[string]struct {
		p    process
		want How
	}{
		"nothing":               {process{own: []int{3}}, None},
		"epoll":                 {process{epolls: []entry{{1, 9}, {0x8a3f, 9}}}, Epoll},
		"epoll of another file": {process{own: []int{3}, epolls: []entry{{0x8a3f, 8}}}, None},
		"accept":                {one(callAccept, nil, 3), Accept},
		"accept elsewhere":      {one(callAccept, nil, 4), None},
		"poll":                  {one(callPoll, with(poll([2]int{4, 1}, [2]int{70, 1})), 0x1000, 2), Poll},
		"poll for less":         {one(callPoll, with(poll([2]int{4, 1}, [2]int{70, 1})), 0x1000, 1), None},
		"poll to write":         {one(callPoll, with(poll([2]int{3, 4})), 0x1000, 1), None},
		"poll of none":          {one(callPoll, with(poll([2]int{-1, 1})), 0x1000, 1), None},
		"poll without memory":   {one(callPoll, nil, 0x1000, 1), None},
		"poll, huge":            {one(callPoll, with(poll([2]int{3, 1})), 0x1000, 1<<63), Poll},
		"select":                {one(callSelect, with(bits(3)), 4, 0x1000), Select},
		"select, high":          {one(callSelect, with(bits(70)), 71, 0x1000), Select},
		"select for less":       {one(callSelect, with(bits(70)), 70, 0x1000), None},
		"select of others":      {one(callSelect, with(bits(4, 69)), 100, 0x1000), None},
		"select of nothing":     {one(callSelect, with(bits(3)), 4, 0), None},
		"asleep in accept":      {process{own: []int{3}, threads: []thread{{wchan: "inet_csk_accept"}}}, Accept},
		"asleep elsewhere":      {process{own: []int{3}, threads: []thread{{wchan: "ep_poll"}}}, None},
		"asleep, not its own":   {process{threads: []thread{{wchan: "inet_csk_accept"}}}, None},
	} {
		if got := c.p.waits(s); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	got := find([]process{{pid: 1, hidden: true}, {pid: 2, own: []int{3}}, {pid: 3, epolls: []entry{{0x8a3f, 9}}}}, s)
	if got != (Found{How: Epoll, PID: 3, Has: 1, Hidden: 1}) {
		t.Errorf("%+v", got)
	}
}

func TestParseProc(t *testing.T) {
	t.Parallel()
	text := "pos:\t0\nflags:\t02000002\nmnt_id:\t15\ntfd:        7 events:       19 data: 7  pos:0 ino:8a3f sdev:9\ntfd: 8 events: 1 data: ff pos:0 ino:x sdev:9\ntfd: 9 events: 1 data: ff\n"
	if got := parseEpoll(text); !slices.Equal(got, []entry{{0x8a3f, 9}}) {
		t.Errorf("%v", got)
	}
	numbers := map[uint64]call{43: callAccept}
	for text, want := range map[string]call{
		"43 0x3 0x0 0x7f 0x0 0x0 0x0 0x7ffc 0x7f\n": callAccept, "44 0x3 0x0 0x7f\n": callOther, "running\n": callOther, "": callOther, "-1 0x7ffc 0x7f 0x0\n": callOther, "43\n": callOther,
	} {
		c, args := parseSyscall(text, numbers)
		if c != want || c == callAccept && args != [3]uint64{3, 0, 0x7f} {
			t.Errorf("%q: %v %v", text, c, args)
		}
	}
}

func FuzzStatus(f *testing.F) {
	f.Add("HTTP/1.1 200 OK")
	f.Fuzz(func(t *testing.T, line string) {
		if n := statusOf(line); n != 0 && (n < 100 || n > 999 || !strings.HasPrefix(line, fmt.Sprintf("%.7s", "HTTP/1."))) {
			t.Errorf("%q: %d", line, n)
		}
	})
}

// Any answer that a server gives on purpose is one; errors of the server, and what is no HTTP, are none.
func TestHTTP(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]struct {
		status int
		err    error
	}{
		"HTTP/1.1 200 OK\r\n\r\n":        {200, nil},
		"HTTP/1.0 404 Not Found\r\n\r\n": {404, nil},
		"HTTP/1.1 301\r\n\r\n":           {301, nil},
		"HTTP/1.1 500 Oops\r\n\r\n":      {500, ErrNotReady},
		"HTTP/1.1 503 Not yet\r\n\r\n":   {503, ErrNotReady},
		"SSH-2.0-OpenSSH\r\n":            {0, ErrNoHTTP},
		"HTTP/1.1 abc\r\n\r\n":           {0, ErrNoHTTP},
		"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 None\r\n\r\n": {204, nil},
		strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 99):                    {100, ErrNotReady},
	} {
		status, err := Check{Dial: func(context.Context) (net.Conn, error) {
			here, there := net.Pipe()
			go func() {
				defer there.Close()
				b := make([]byte, 1024)
				n, _ := there.Read(b)
				if !strings.HasPrefix(string(b[:n]), "GET /live HTTP/1.1\r\nHost: app\r\n") {
					t.Errorf("asked %q", b[:n])
				}
				_, _ = there.Write([]byte(answer))
			}()
			return here, nil
		}}.HTTP(context.Background(), "app", "/live")
		if status != want.status || !errors.Is(err, want.err) {
			t.Errorf("%q: %d, %v", answer, status, err)
		}
	}
}

func TestServes(t *testing.T) {
	t.Parallel()
	for s, want := range map[Signs]bool{
		{}: false, {SaysSo: true}: false, {Waits: true}: true, {Accepted: true}: true, {Answered: true}: true, {Answered: true, SaysSo: true}: true,
	} {
		if got := s.Serves(); got != want {
			t.Errorf("%+v: %v", s, got)
		}
	}
}
