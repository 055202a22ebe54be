package browser

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Which program opens the address, and with which words.
func TestCommand(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"firefox", "xdg-open", "open"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	const address = "https://login.example/auth?state=st_x&redirect_uri=http%3A%2F%2Flocalhost; rm $(x)"
	for _, c := range []struct {
		env  map[string]string
		want []string // nil for none
	}{
		{map[string]string{"BROWSER": "firefox"}, []string{"firefox", address}},
		{map[string]string{"BROWSER": "firefox -P work"}, []string{"firefox", "-P", "work", address}},
		{map[string]string{"BROWSER": "firefox --url=%s -x %s"}, []string{"firefox", "--url=" + address, "-x", address}},
		{map[string]string{"BROWSER": "missing:: firefox:open"}, []string{"firefox", address}},
		{map[string]string{"BROWSER": "missing", "DISPLAY": ":0"}, nil},
		{map[string]string{"BROWSER": "missing:%s"}, nil},
	} {
		got := command(address, func(name string) string { return c.env[name] })
		if len(got) > 0 {
			got[0] = filepath.Base(got[0])
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%v: got %q, want %q", c.env, got, c.want)
		}
	}
}

// Nothing of the address is read by a shell, and whoever is started has no terminal and is not waited for.
func TestOpen(t *testing.T) {
	dir := t.TempDir()
	opener, seen, end := filepath.Join(dir, "opener"), filepath.Join(dir, "seen"), filepath.Join(dir, "end")
	script := "#!/bin/sh\nprintf '%s\\n' \"$@\" >" + seen + ".new; ps -o sid= -p $$ >>" + seen + ".new; mv " + seen + ".new " + seen + "\nread end <" + end + "\n"
	if err := os.WriteFile(opener, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := mkfifo(end); err != nil {
		t.Fatal(err)
	}
	address := "https://x/?a=$(touch${IFS}" + dir + "/run)&b='\";`id`&state=x"
	done := make(chan error, 1)
	go func() {
		done <- Open(address, []string{"PATH=" + os.Getenv("PATH")}, func(name string) string { return map[string]string{"BROWSER": opener}[name] })
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it waits for the browser")
	}
	f, err := os.OpenFile(end, os.O_WRONLY, 0) // once the browser reads
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(seen)
	f.Close()
	if err != nil || !strings.HasPrefix(string(b), address+"\n") {
		t.Errorf("the browser got %q: %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "run")); err == nil {
		t.Error("the address was run")
	}
	if err := Open(address, nil, func(string) string { return "" }); err != ErrNone && hasNoDesktop {
		t.Errorf("without a screen: %v", err)
	}
}

// server is one that waits at a port of this machine.
func server(t *testing.T, known func(net.Conn) bool) (*Server, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	s := Serve(uint16(port), []net.Listener{l}, known, func(string) {})
	t.Cleanup(func() { s.Close(false) })
	return s, fmt.Sprintf("127.0.0.1:%d", port)
}

func anybody(net.Conn) bool { return true }

// Who connects and says nothing, or says it slowly, keeps nobody out for longer than a moment.
func TestIdleConnections(t *testing.T) {
	t.Parallel()
	s, addr := server(t, anybody)
	s.Expect("st_x")
	for range maxConns {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nX: "); err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		resp, err := http.Get("http://" + addr + Path + "?code=c&state=st_x")
		if err == nil {
			resp.Body.Close()
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 4*headLimit)
	defer cancel()
	if a, err := s.Wait(ctx); err != nil || a.Code != "c" {
		t.Errorf("the answer does not get through: %v", err)
	}
}

// A page is shown whole, although the server ends as soon as it can; and a browser that does not take it does not hold it up.
func TestClose(t *testing.T) {
	t.Parallel()
	for range 50 {
		s, addr := server(t, anybody)
		s.Expect("st_x")
		idle, err := net.Dial("tcp", addr) // as browsers do ahead of time
		if err != nil {
			t.Fatal(err)
		}
		page := make(chan string, 1)
		go func() {
			resp, err := http.Get("http://" + addr + Path + "?code=c&state=st_x")
			if err != nil {
				page <- err.Error()
				return
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			page <- fmt.Sprint(string(b), err)
		}()
		if _, err := s.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		s.Close(true)
		if took := time.Since(begin); took >= lastLimit { // on a busy machine
			t.Errorf("it takes %s to end", took)
		}
		if got := <-page; !strings.Contains(got, donePage.text) || !strings.HasSuffix(got, "</html>\n<nil>") {
			t.Fatalf("the browser shows %q", got)
		}
		idle.Close()
	}
}

// Who is not let in changes nothing, and an answer prints as nothing.
func TestStranger(t *testing.T) {
	t.Parallel()
	s, addr := server(t, func(net.Conn) bool { return false })
	s.Expect("st_x")
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET %s?code=c&state=st_x HTTP/1.1\r\nHost: %s\r\n\r\n", Path, addr)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != http.StatusForbidden {
		t.Fatalf("%v %v", resp, err)
	}
	select {
	case <-s.answers:
		t.Error("the answer is taken")
	default:
	}
	if text := fmt.Sprintf("%v %+v %#v %s", Answer{Code: "c"}, Answer{Code: "c"}, Answer{Code: "c"}, Answer{Code: "c"}); text != "*** *** *** ***" {
		t.Errorf("an answer prints as %q", text)
	}
}
