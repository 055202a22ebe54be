package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/listen"
	"github.com/agenticverz/vaultexec/internal/statusserver"
)

var psCommand = &command{
	name: "ps", args: "[ADDRESS]", summary: "what a vaultexec with --status is doing",
	about: `
ADDRESS is what --status was given there: unix:/PATH or HOST:PORT. By default it is
that of VAULTEXEC_STATUS, or of the file of --config. Vault is not asked: its own
state is shown by vaultexec status. What --status offers: vaultexec help status-endpoint.
`,
	own: []option{
		{name: "json", group: groupOwn, usage: "print the answer of /status as it is"},
		{name: "follow", group: groupOwn, usage: "refresh every second until Ctrl-C; if standard output is not a terminal, print again at each change"},
	},
	shared: append([]string{groupConfig, "--status"}, withAll...),
	most:   1,
	do:     (*app).ps,
}

const (
	psTimeout = 5 * time.Second
	psMost    = 64 << 20 // of an answer
	psEvery   = time.Second
)

func (a *app) ps(ctx context.Context, s *settings, words []string) error {
	v := s.one("status")
	if len(words) == 1 {
		v = setting{text: words[0], from: "ADDRESS"}
	}
	if v.text == "" {
		return &fault.Error{Kind: fault.Usage, What: "no address", Hint: "write vaultexec ps ADDRESS with the address of the run's --status, or set VAULTEXEC_STATUS"}
	}
	spec, err := statusAddress(v.text)
	if err != nil {
		s.fail(v, err)
	}
	if err := fault.Join(s.faults); err != nil {
		return err
	}
	show := func(_ []byte, s *statusserver.Snapshot, now time.Time) string { return psText(a.ui.screen, s, now) }
	if s.bool("json") {
		show = func(body []byte, _ *statusserver.Snapshot, _ time.Time) string { return string(body) }
	}
	p := psAsk{spec, s.bool("json")}
	body, snapshot, err := p.ask(ctx)
	if err != nil || !s.bool("follow") {
		if err == nil {
			a.ui.printf("%s", show(body, snapshot, time.Now()))
		}
		return err
	}
	return a.follow(ctx, p, show, body, snapshot)
}

// follow shows a run until it ends, or until Ctrl-C.
func (a *app) follow(ctx context.Context, p psAsk, show func([]byte, *statusserver.Snapshot, time.Time) string,
	body []byte, snapshot *statusserver.Snapshot) error {
	screen := isTerminal(os.Stdout)
	again := time.NewTicker(psEvery)
	defer again.Stop()
	var shown string
	for {
		now := string(body)
		if snapshot.Form == statusserver.Form {
			now = lasting(snapshot)
		}
		if screen || now != shown {
			text := show(body, snapshot, time.Now())
			switch {
			case screen:
				text = "\x1b[H\x1b[2J" + text
			case shown != "":
				text = "\n" + text
			}
			a.ui.printf("%s", text)
			shown = now
		}
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
		}
		var err error
		if body, snapshot, err = p.ask(ctx); ctx.Err() != nil {
			return nil
		} else if err != nil {
			return ofFollowed(err)
		}
	}
}

// ofFollowed is a failure to ask a run that has answered before.
func ofFollowed(err error) error {
	f := *fault.Of(err)
	if unserved(err) {
		f.Why, f.Hint = "the run has ended", ""
	}
	return &f
}

// unserved reports whether nothing is listening at an address.
func unserved(err error) bool {
	return errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOENT)
}

// lasting is what a block is printed again for. A look alone is not.
func lasting(s *statusserver.Snapshot) string {
	rest := *s
	rest.Paths = append([]statusserver.Path{}, s.Paths...)
	for i := range rest.Paths {
		p := &rest.Paths[i]
		p.LastLook = statusserver.Time{}
		if p.LastFailure != nil {
			p.LastFailure = &statusserver.Failure{Kind: p.LastFailure.Kind}
		}
	}
	return string(rest.JSON())
}

// psAsk is whom ps asks.
type psAsk struct {
	spec listen.Spec
	raw  bool // what it answers is passed on, in whatever version of the form
}

// ask asks a run for /status.
func (p psAsk) ask(ctx context.Context) ([]byte, *statusserver.Snapshot, error) {
	spec := p.spec
	ctx, cancel := context.WithTimeout(ctx, psTimeout)
	defer cancel()
	network, address, host := "tcp", net.JoinHostPort(spec.Host, strconv.Itoa(int(spec.Port))), spec.Host
	if spec.Host == "" || spec.Host == "0.0.0.0" || spec.Host == "::" {
		host = "localhost"
	}
	if spec.Path != "" {
		network, address, host = "unix", spec.Path, "localhost"
	}
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		}}
	fail := func(why, hint string, err error) error {
		return &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot ask %s", spec), Why: why, Hint: hint, Err: err}
	}
	stranger := func() error {
		return fail("what answers there is not a vaultexec with --status", "check the address: it must be that of the run's --status", nil)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, "80")+"/status", nil)
	if err != nil {
		return nil, nil, fail("its host is not valid", "write it as 127.0.0.1:9641 or unix:/run/app/status.sock", err)
	}
	client := http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	const start = "start the run with --status, or correct the address"
	switch {
	case unserved(err):
		return nil, nil, fail("nothing is listening there", start, err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return nil, nil, fail("permission denied", "the socket belongs to another user: run this as that user, or start the run with --status unix:/PATH,mode=0660", err)
	case errors.Is(err, context.DeadlineExceeded):
		return nil, nil, fail("no answer came within "+psTimeout.String(), start, err)
	case err != nil && (errors.As(err, new(*net.DNSError)) || errors.As(err, new(unix.Errno))):
		return nil, nil, fail("the host cannot be reached", start, err)
	case err != nil:
		return nil, nil, stranger()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, psMost))
	snapshot := &statusserver.Snapshot{}
	var head struct {
		Form    int    `json:"version"`
		Program string `json:"vaultexec"`
	}
	if err != nil || resp.StatusCode != http.StatusOK || json.Unmarshal(body, &head) != nil || head.Program == "" ||
		!bytes.HasPrefix(body, []byte("{")) {
		return nil, nil, stranger()
	}
	other := head.Form != statusserver.Form
	switch wrong := json.Unmarshal(body, snapshot) != nil; {
	case other && !p.raw:
		return nil, nil, fail(fmt.Sprintf("its answer has format %d, and this vaultexec knows format %d", head.Form,
			statusserver.Form), "use the same vaultexec as the run, or --json", nil)
	case wrong && !other:
		return nil, nil, stranger()
	}
	return body, snapshot, nil
}
