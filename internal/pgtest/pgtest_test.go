package pgtest

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
)

// play answers one connection with these bytes.
func play(t *testing.T, answer string) Login {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.WriteString(conn, answer)
		_ = conn.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, conn) // closing with something unread would reset the connection
		_ = conn.Close()
	}()
	return Login{Addr: l.Addr().String(), User: "u", Password: "p", Database: "d"}
}

const (
	askPassword = "R\x00\x00\x00\x08\x00\x00\x00\x03"
	welcome     = "R\x00\x00\x00\x08\x00\x00\x00\x00"
	ready       = "Z\x00\x00\x00\x05I"
	refused     = "E\x00\x00\x00\x10C28P01\x00Mno\x00\x00"
)

// A server that misbehaves is an error, never a panic or an empty success: a test that counts failures goes by it.
func TestQuery(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer string
		rows   []string // of the first row
		code   string   // "" for success
	}{
		"a row and a null":   {askPassword + welcome + ready + "D\x00\x00\x00\x0f\x00\x02\x00\x00\x00\x01x\xff\xff\xff\xff" + ready, []string{"x", ""}, ""},
		"refused":            {askPassword + refused, nil, InvalidPassword},
		"refused later":      {welcome + ready + refused + ready, nil, InvalidPassword},
		"nothing":            {"", nil, "-"},
		"cut":                {welcome + ready + "D\x00\x00\x00\x0f\x00\x02", nil, "-"},
		"a row that lies":    {welcome + ready + "D\x00\x00\x00\x0a\x00\x01\x00\x00\x00\x09" + ready, nil, "-"},
		"another protocol":   {"HTTP/1.1 400 Bad Request\r\n\r\n", nil, "-"},
		"another login":      {"R\x00\x00\x00\x08\x00\x00\x00\x0a", nil, "-"},
		"ended after a word": {welcome, nil, "-"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rows, err := Query(context.Background(), play(t, c.answer), "select 1")
			switch {
			case c.code == "" && (err != nil || len(rows) != 1 || !slices.Equal(rows[0], c.rows)):
				t.Errorf("%q, %v, want %q", rows, err, c.rows)
			case c.code != "" && (err == nil || Code(err) != c.code):
				t.Errorf("%v, want SQLSTATE %s", err, c.code)
			}
		})
	}
	if _, err := Query(context.Background(), Login{Addr: "127.0.0.1:1"}, ""); !errors.As(err, new(*net.OpError)) {
		t.Errorf("nobody listens: %v", err)
	}
}
