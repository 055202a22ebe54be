// Package browser is what a person's browser has to do with a login: an address is opened in it (Open), and it comes
// back from there to a server on this machine's loopback addresses (Server), which takes one answer and shows one page.
// It knows nothing of Vault, nor what an answer is good for.
package browser

import (
	"context"
	"crypto/subtle"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Path is where a browser comes back to. Providers are told so once and for all, by people who set up the Vault CLI.
const Path = "/oidc/callback"

// Whoever can connect to the loopback addresses may be hostile: other users' programs, and every page that a browser on
// this machine shows. So everything about a request has a bound.
const (
	maxHeader = 64 << 10 // with the cookies that others have set for localhost
	maxBody   = 64 << 10 // of a form with an ID token in it
	maxConns  = 32       // at a time
	headLimit = 5 * time.Second
	bodyLimit = 10 * time.Second
	pageLimit = 2 * time.Minute // with the time in which somebody finds out what an answer is good for
	lastLimit = time.Second     // for pages that are on their way when it is over
)

// Answer is what a browser came back with. It refuses to be printed.
type Answer struct {
	Code, IDToken      string
	Error, Description string // of a provider that refuses the login
}

// Format prints "***" for every verb.
func (a Answer) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("***")) }

// Server waits for one browser.
type Server struct {
	host     string // "localhost:8250"
	refused  func(why string)
	known    func(net.Conn) bool
	server   *http.Server
	answers  chan Answer
	over     chan struct{} // closed when outcome is set
	requests sync.WaitGroup

	mu      sync.Mutex
	state   string // that an answer has to have; "" while none will do
	taken   bool
	closed  bool
	outcome page
}

// Serve serves on loopback addresses that have one port, until Close. known tells whether a connection may be that of
// this user's browser. refused is called with the reason why something was not let in.
func Serve(port uint16, listeners []net.Listener, known func(net.Conn) bool, refused func(why string)) *Server {
	s := &Server{host: "localhost:" + strconv.Itoa(int(port)), refused: refused, known: known, answers: make(chan Answer, 1), over: make(chan struct{})}
	s.server = &http.Server{
		Handler: s, ReadHeaderTimeout: headLimit, ReadTimeout: bodyLimit, WriteTimeout: pageLimit,
		MaxHeaderBytes: maxHeader, ConnContext: s.met, ErrorLog: stdlog.New(io.Discard, "", 0),
	}
	s.server.SetKeepAlivesEnabled(false)
	room := make(chan struct{}, maxConns)
	for _, l := range listeners {
		go func() { _ = s.server.Serve(bounded{l, room}) }()
	}
	return s
}

// Redirect is the address to come back to.
func (s *Server) Redirect() string { return "http://" + s.host + Path }

// Expect lets the answer in that has this state.
func (s *Server) Expect(state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = state
}

// Wait waits for the answer, or until ctx ends.
func (s *Server) Wait(ctx context.Context) (Answer, error) {
	select {
	case a := <-s.answers:
		return a, nil
	case <-ctx.Done():
		return Answer{}, ctx.Err()
	}
}

// Close has the browser told whether the login succeeded, and ends.
func (s *Server) Close(ok bool) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.closed, s.outcome = true, failedPage
	if ok {
		s.outcome = donePage
	}
	close(s.over)
	s.mu.Unlock()
	shown := make(chan struct{})
	go func() {
		s.requests.Wait()
		close(shown)
	}()
	limit := time.NewTimer(lastLimit)
	defer limit.Stop()
	select {
	case <-shown:
	case <-limit.C:
	}
	_ = s.server.Close()
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.enter() {
		return
	}
	defer s.requests.Done()
	switch {
	case r.Context().Value(strangerKey{}) != nil:
		s.refused("it came from another user of this machine")
		show(w, strangerPage)
	case !s.meant(r.Host): // a name of somebody else's that leads to this machine
		s.refused("it came under another name than localhost")
		show(w, otherPage)
	case r.URL.Path != Path:
		show(w, nothingPage)
	case r.Method != http.MethodGet && r.Method != http.MethodPost:
		w.Header().Set("Allow", "GET, POST")
		show(w, methodPage)
	default:
		show(w, s.answer(w, r))
	}
}

func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.requests.Add(1)
	return true
}

// strangerKey is the key of a context for a connection that is not this user's.
type strangerKey struct{}

// met looks at who has made a connection, before a byte of it is read.
func (s *Server) met(ctx context.Context, c net.Conn) context.Context {
	if of, ok := c.(*conn); ok && !s.known(of.Conn) {
		return context.WithValue(ctx, strangerKey{}, true)
	}
	return ctx
}

// meant reports whether a request is to this server by one of the names that nobody else can have.
func (s *Server) meant(host string) bool {
	_, port, _ := strings.Cut(s.host, ":")
	return slices.Contains([]string{s.host, "127.0.0.1:" + port, "[::1]:" + port}, strings.ToLower(host))
}

// answer takes what a browser came back with, and returns the page for it.
func (s *Server) answer(w http.ResponseWriter, r *http.Request) page {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if r.ParseForm() != nil {
		s.refused("it cannot be read")
		return otherPage
	}
	form := r.Form
	a := Answer{Code: form.Get("code"), IDToken: form.Get("id_token"), Error: form.Get("error"), Description: form.Get("error_description")}
	switch s.take(form, a) {
	case wrong:
		s.refused("it belongs to another login")
		return otherPage
	case second:
		s.refused("the login has had its answer")
		return secondPage
	}
	select {
	case <-s.over:
	case <-r.Context().Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.outcome
}

// verdict is what becomes of an answer.
type verdict uint8

const (
	wrong verdict = iota
	second
	taken
)

// take takes an answer with the right state, once. A parameter that comes twice may mean something else to others.
func (s *Server) take(form url.Values, a Answer) verdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range []string{"state", "code", "id_token", "error", "error_description"} {
		if len(form[name]) > 1 {
			return wrong
		}
	}
	same := subtle.ConstantTimeCompare([]byte(form.Get("state")), []byte(s.state)) == 1
	switch {
	case !same || s.state == "", a.Code == "" && a.IDToken == "" && a.Error == "":
		return wrong
	case s.taken:
		return second
	}
	s.taken = true
	s.answers <- a
	return taken
}

// bounded lets so many connections in at a time.
type bounded struct {
	net.Listener
	room chan struct{}
}

// Accept implements net.Listener.
func (b bounded) Accept() (net.Conn, error) {
	b.room <- struct{}{}
	c, err := b.Listener.Accept()
	if err != nil {
		<-b.room
		return nil, err
	}
	return &conn{Conn: c, leave: sync.OnceFunc(func() { <-b.room })}, nil
}

type conn struct {
	net.Conn
	leave func()
}

// Close implements net.Conn.
func (c *conn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
