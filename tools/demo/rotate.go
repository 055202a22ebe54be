package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

const (
	rotations = 3
	clients   = 4
	patience  = time.Minute // for whatever must happen
)

// rotate gives the app new secrets under load, and counts the requests that fail.
func rotate(ctx context.Context, srv *vaulttest.Server, vaultexec string, env []string, setup string) error {
	address, err := freeAddress()
	if err != nil {
		return err
	}
	status, err := freeAddress()
	if err != nil {
		return err
	}
	s := wanted[0]
	args := []string{"--mount", mount, "--path", s.path, "--watch", "--interval", "1s", "--settle", "0", "--min-uptime", "0",
		"--log-level", "warn", "--listen", address, "--status", status, "--restart-order", "start-first", "--", "app"}
	say("$ vaultexec %s", strings.Join(args, " "))
	cmd := exec.Command(vaultexec, args...)
	cmd.Env, cmd.Stderr = env, os.Stdout
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the demo, which then stops the app
	if err := vaulttest.StartTied(cmd); err != nil {
		return fmt.Errorf("cannot start vaultexec: %w", err)
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}()
	url := "http://" + address + "/"
	process := ""
	if err := eventually(ctx, "the app does not answer", func() bool { process = answers(ctx, url); return process != "" }); err != nil {
		return err
	}

	say("%d clients ask it without a pause, with a connection for each request, and %s is rotated %d times", clients, s.keys[0], rotations)
	loaded, stop := context.WithCancel(ctx)
	defer stop()
	var asked, failed atomic.Int64
	var running sync.WaitGroup
	for range clients {
		running.Go(func() {
			for loaded.Err() == nil {
				if answers(ctx, url) == "" {
					failed.Add(1)
				}
				asked.Add(1)
			}
		})
	}
	for range rotations {
		values := map[string]string{}
		for _, k := range s.keys {
			values[k] = rand.Text()
		}
		if _, err := srv.TryPutKV(mount, s.path, values); err != nil {
			return err
		}
		next := ""
		if err := eventually(ctx, "the rotation does not arrive", func() bool {
			next = answers(ctx, url)
			return next != "" && next != process
		}); err != nil {
			return err
		}
		show(fmt.Sprintf("process %s had the old one, process %s has the new one and serves", process, next))
		process = next
	}
	stop()
	running.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	show(fmt.Sprintf("%d requests, %d failed", asked.Load(), failed.Load()))
	if failed.Load() > 0 {
		return errors.New("requests were lost")
	}
	next(setup, status, s)
	if !*keep {
		return nil
	}
	for ; ctx.Err() == nil; pause(ctx) {
		if now := answers(ctx, url); now != "" && now != process {
			show(fmt.Sprintf("process %s has taken over from process %s", now, process))
			process = now
		}
	}
	return errKept
}

// errKept is the end of a demo that ran on until somebody ended it.
var errKept = errors.New("the demo was ended")

// next says what the person would type now.
func next(setup, status string, s secret) {
	if *keep {
		say("Vault and the app run on until Ctrl-C. Type in another terminal:")
	} else {
		say("what you would type next in another terminal; make demo KEEP=1 leaves Vault and the app running for it")
	}
	show(". " + setup + "          # this Vault's address, and a token for it\n" +
		"vaultexec ps " + status + "\n" +
		"vaultexec rotate " + s.path + " " + s.keys[0])
}

// pause is how long one look at the app is from the next.
func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(200 * time.Millisecond):
	}
}

// freeAddress is one that nobody listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String(), nil
}

// answers asks for a page, with a connection of its own, and returns which process has answered; "" if it fails.
func answers(ctx context.Context, url string) string {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return ""
	}
	transport := &http.Transport{DisableKeepAlives: true} // and no proxy
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return ""
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		return ""
	}
	return resp.Header.Get("Process")
}

// eventually waits for a condition.
func eventually(ctx context.Context, otherwise string, cond func() bool) error {
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(20 * time.Millisecond) {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(deadline):
			return errors.New(otherwise)
		}
	}
	return nil
}
