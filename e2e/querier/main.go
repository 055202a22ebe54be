// Command querier is a program that needs a database, for the tests of leases: every 50 ms it opens a connection of its
// own and asks one question. It ends with 0 on SIGTERM, after the question that it is at, so that what fails is never
// its own end.
//
// PGUSER, PGPASSWORD and PGADDR (host:port) say where and as whom. It notes in the file RECORD:
//
//	start PID|PGUSER|B|TIME
//	fail TIME|SQLSTATE|PGUSER|MESSAGE
//	asked TIME|PGUSER              at the first answer, and then at one in 20
//	end PID|PGUSER|ANSWERS|FAILURES
//
// and PGPASSWORD in the file RECORD.passwords, so that a test can look for it where it must not be.
//
// With B=fail it ends with 3 after its first answer, as a program does that cannot live with its configuration.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/agenticverz/vaultexec/internal/pgtest"
)

// pause lies between two questions.
const pause = 50 * time.Millisecond

func main() { os.Exit(run()) }

func run() int {
	stop, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	at := pgtest.Login{
		Addr: os.Getenv("PGADDR"), User: os.Getenv("PGUSER"), Password: os.Getenv("PGPASSWORD"), Database: "postgres",
	}
	// In append mode, a line is one write: the next querier writes into the same file.
	record, err := os.OpenFile(os.Getenv("RECORD"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		fmt.Fprintln(os.Stderr, "querier:", err)
		return 2
	}
	note := func(format string, args ...any) { _, _ = fmt.Fprintf(record, format+"\n", args...) }
	if !keep(os.Getenv("RECORD")+".passwords", at.Password) {
		return 2
	}
	note("start %d|%s|%s|%s", os.Getpid(), at.User, os.Getenv("B"), now())
	answers, failures := 0, 0
	tick := time.NewTicker(pause)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		_, err := pgtest.Query(ctx, at, "select 1")
		cancel()
		if err != nil {
			failures++
			note("fail %s|%s|%s|%s", now(), pgtest.Code(err), at.User, strings.ReplaceAll(err.Error(), "\n", " "))
		} else {
			if answers%20 == 0 {
				note("asked %s|%s", now(), at.User)
			}
			answers++
		}
		if os.Getenv("B") == "fail" && answers > 0 {
			return 3
		}
		select {
		case <-tick.C:
		case <-stop.Done():
			note("end %d|%s|%d|%d", os.Getpid(), at.User, answers, failures)
			return 0
		}
	}
}

// keep adds a line to a file.
func keep(file, line string) bool {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(line + "\n")
		_ = f.Close()
	}
	return err == nil
}

func now() string { return time.Now().Format(time.RFC3339Nano) }
