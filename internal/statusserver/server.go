package statusserver

import (
	"context"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Limits for clients. They keep the buffers small: the command has better use for the memory.
const (
	headerTime  = 5 * time.Second // for the headers of a request, and for its body, which is ignored
	writeTime   = 10 * time.Second
	idleTime    = 90 * time.Second // Prometheus asks each minute by default, over a connection that it keeps
	headerBytes = 8 << 10
	turnTime    = time.Second
)

// Config is what a Server needs to know.
type Config struct {
	Unix   bool          // it listens on a unix socket: the mode of its file says who may connect
	Host   string        // as --status names it, for TCP; a request may name it, too
	MaxAge time.Duration // of the last look, for /readyz; 0 for any
}

// Server answers requests. The main loop of a run receives from Turns and Refreshes.
type Server struct {
	config    Config
	http      *http.Server
	door      *door
	done      chan struct{}
	latest    atomic.Pointer[Snapshot]
	turns     chan struct{}
	refreshes chan struct{}
	pages     [3]page
}

// page is a cached answer: a hundred clients in one second get the same one.
type page struct {
	mu     sync.Mutex
	of     *Snapshot
	second int64
	body   []byte
}

// New starts a server on a listener.
func New(l net.Listener, config Config, first *Snapshot) *Server {
	s := &Server{config: config, door: newDoor(l), done: make(chan struct{}), turns: make(chan struct{}), refreshes: make(chan struct{})}
	s.latest.Store(first)
	mux := http.NewServeMux()
	for path, f := range map[string]http.HandlerFunc{"/livez": s.livez, "/readyz": s.readyz, "/status": s.status, "/metrics": s.metrics} {
		mux.HandleFunc(path, only(f, http.MethodGet, http.MethodHead))
	}
	mux.HandleFunc("/refresh", only(s.refresh, http.MethodPost))
	s.http = &http.Server{
		Handler: s.door.occupied(s.known(mux)), ReadHeaderTimeout: headerTime, ReadTimeout: headerTime, WriteTimeout: writeTime,
		IdleTimeout: idleTime, MaxHeaderBytes: headerBytes, ConnContext: s.door.context,
		ErrorLog: stdlog.New(io.Discard, "", 0),

		DisableGeneralOptionsHandler: true,                                                    // it would answer OPTIONS * whatever the Host
		TLSNextProto:                 map[string]func(*http.Server, *tlsConn, http.Handler){}, // no HTTP/2, and no memory for it
	}
	go func() {
		defer close(s.done)
		_ = s.http.Serve(s.door)
	}()
	return s
}

// Publish replaces the snapshot that answers are made from.
func (s *Server) Publish(snapshot *Snapshot) { s.latest.Store(snapshot) }

// Turns delivers when /livez asks whether the main loop responds. Receiving is the answer.
func (s *Server) Turns() <-chan struct{} { return s.turns }

// Refreshes delivers when /refresh asks for a look at the secrets.
func (s *Server) Refreshes() <-chan struct{} { return s.refreshes }

// Close ends the server and all connections, without waiting for any.
func (s *Server) Close() {
	_ = s.http.Close()
	<-s.done
}

// only refuses other methods.
func only(f http.HandlerFunc, methods ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for _, m := range methods {
			if r.Method == m {
				f(w, r)
				return
			}
		}
		w.Header().Set("Allow", strings.Join(methods, ", "))
		say(w, http.StatusMethodNotAllowed, "only "+strings.Join(methods, " and ")+" here")
	}
}

// known lets a TCP request through only if its Host is an IP address, a name for the machine itself, or the host of --status.
// A web page whose own name points at this address (DNS rebinding) has another Host. HTTP/1.0 has no Host.
func (s *Server) known(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		if !s.config.Unix && !s.names(r.Host) {
			say(w, http.StatusForbidden, "the Host header must be an IP address, localhost, or the host of --status")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) names(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	_, err := netip.ParseAddr(host)
	return host == "" || err == nil || host == "localhost" || strings.HasSuffix(host, ".localhost") ||
		s.config.Host != "" && host == strings.ToLower(strings.TrimSuffix(s.config.Host, "."))
}

func say(w http.ResponseWriter, status int, line string) {
	send(w, status, "text/plain; charset=utf-8", []byte(line+"\n"))
}

func send(w http.ResponseWriter, status int, kind string, body []byte) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // of HEAD the server drops it
}

// turn waits for the main loop to receive, and reports whether it did in time.
func turn(ctx context.Context, c chan<- struct{}) bool {
	late := time.NewTimer(turnTime)
	defer late.Stop()
	select {
	case c <- struct{}{}:
		return true
	case <-late.C:
	case <-ctx.Done():
	}
	return false
}

func (s *Server) livez(w http.ResponseWriter, r *http.Request) {
	if !turn(r.Context(), s.turns) {
		say(w, http.StatusServiceUnavailable, "the main loop does not respond")
		return
	}
	say(w, http.StatusOK, "ok")
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	if why := s.latest.Load().unready(time.Now(), s.config.MaxAge); why != "" {
		say(w, http.StatusServiceUnavailable, why)
		return
	}
	say(w, http.StatusOK, "ok")
}

// unready says why the command does not count as ready now; "" when it does.
func (s *Snapshot) unready(now time.Time, maxAge time.Duration) string {
	if s.Command.NotReady != "" || maxAge == 0 {
		return s.Command.NotReady
	}
	p, ok := s.OldestLook()
	if !ok {
		return ""
	}
	if age := now.Round(0).Sub(p.LastLook.Time); age > maxAge {
		return fmt.Sprintf("the last successful look at %s was %s ago, and --max-age is %s", p.Path, age.Round(time.Second), maxAge)
	}
	return ""
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	send(w, http.StatusOK, "application/json", s.page(0, 0, func(of *Snapshot) []byte { return of.JSON() }))
}

// The content types of /metrics.
const (
	textType = "text/plain; version=0.0.4; charset=utf-8"
	openType = "application/openmetrics-text; version=1.0.0; charset=utf-8"
)

func (s *Server) metrics(w http.ResponseWriter, r *http.Request) {
	now := time.Now()
	open, kind, which := wantsOpen(r.Header.Values("Accept")), textType, 1
	if open {
		kind, which = openType, 2
	}
	w.Header().Set("Vary", "Accept")
	send(w, http.StatusOK, kind, s.page(which, now.Unix(), func(of *Snapshot) []byte { return of.Metrics(now, open) }))
}

// page makes an answer, or takes the cached one of the same snapshot and second.
func (s *Server) page(which int, second int64, make func(*Snapshot) []byte) []byte {
	p := &s.pages[which]
	p.mu.Lock()
	defer p.mu.Unlock()
	if of := s.latest.Load(); p.of != of || p.second != second {
		p.of, p.second, p.body = of, second, make(of)
	}
	return p.body
}

// wantsOpen reports whether Accept ranks OpenMetrics at least as high as the text format.
func wantsOpen(accept []string) bool {
	best := func(name string) (most float64) {
		for item := range strings.SplitSeq(strings.Join(accept, ","), ",") {
			kind, params, _ := strings.Cut(item, ";")
			if !strings.EqualFold(strings.TrimSpace(kind), name) {
				continue
			}
			q, fits := 1.0, true
			for param := range strings.SplitSeq(params, ";") {
				key, value, _ := strings.Cut(strings.TrimSpace(param), "=")
				switch {
				case strings.EqualFold(key, "q"):
					q, _ = strconv.ParseFloat(value, 64)
				case strings.EqualFold(key, "version"):
					v := strings.Trim(value, `"`)
					fits = v == "1.0.0" || v == "0.0.1" || v == "0.0.4"
				}
			}
			if fits {
				most = max(most, q)
			}
		}
		return most
	}
	open := best("application/openmetrics-text")
	return open > 0 && open >= best("text/plain")
}

func (s *Server) refresh(w http.ResponseWriter, r *http.Request) {
	switch {
	case !s.config.Unix:
		say(w, http.StatusForbidden, "only over a unix socket, where the mode of the file says who may: --status unix:/PATH")
	case !s.latest.Load().Watches:
		say(w, http.StatusConflict, "vaultexec is not watching any secret")
	case !turn(r.Context(), s.refreshes):
		say(w, http.StatusServiceUnavailable, "the main loop does not respond")
	default:
		say(w, http.StatusAccepted, "looking")
	}
}
