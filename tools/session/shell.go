//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	prompt  = "$ "
	patient = time.Minute
)

// shell is bash on a terminal of its own. What comes out of it is kept, with the time of each line.
type shell struct {
	cmd    *exec.Cmd
	master *os.File

	mu    sync.Mutex
	text  []byte
	from  int // what was seen of text before the recording
	mark  int // what was seen of text before the last line was typed
	times []time.Duration
	begin time.Time
	ended bool
}

// line is one line as it was seen, and when it began to be.
type line struct {
	text  string
	at    time.Duration
	class string // of the drawing
}

func openShell(dir string, env []string, columns uint16) (*shell, error) {
	master, slave, err := openTerminal(columns)
	if err != nil {
		return nil, fmt.Errorf("cannot open a terminal: %w", err)
	}
	defer slave.Close()
	// Without readline, which redraws lines: what is typed is echoed by the terminal itself.
	cmd := exec.Command("bash", "--norc", "--noprofile", "--noediting", "-i")
	cmd.Dir, cmd.Env = dir, env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGHUP}
	s := &shell{cmd: cmd, master: master, begin: time.Now()}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go s.read()
	return s, s.wait(regexp.QuoteMeta(prompt) + "$")
}

func openTerminal(columns uint16) (master, slave *os.File, err error) {
	if master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		return nil, nil, err
	}
	fd := int(master.Fd())
	if err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return nil, nil, err
	}
	if err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: columns}); err != nil {
		return nil, nil, err
	}
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	return master, slave, err
}

func (s *shell) read() {
	buf := make([]byte, 4096)
	for {
		n, err := s.master.Read(buf)
		s.mu.Lock()
		now := time.Since(s.begin)
		for _, b := range buf[:n] {
			if len(s.text) == 0 || s.text[len(s.text)-1] == '\n' {
				s.times = append(s.times, now)
			}
			if b != '\r' {
				s.text = append(s.text, b)
			}
		}
		s.ended = err != nil
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// play types a line and waits for what it says.
func (s *shell) play(st step) error {
	s.mu.Lock()
	s.mark = len(s.text)
	s.mu.Unlock()
	if _, err := s.master.WriteString(st.line + "\n"); err != nil {
		return err
	}
	until := st.until
	if until == "" {
		until = `\n` + regexp.QuoteMeta(prompt) + "$"
	}
	if err := s.wait(until); err != nil {
		return fmt.Errorf("%s: %w", st.line, err)
	}
	return nil
}

func (s *shell) wait(pattern string) error {
	re := regexp.MustCompile(pattern)
	for end := time.Now().Add(patient); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		s.mu.Lock()
		found, ended := re.Match(s.text[s.mark:]), s.ended
		s.mu.Unlock()
		if found {
			return nil
		}
		if ended {
			return errors.New("the shell has ended")
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Errorf("not seen in time: %s\n%s", pattern, s.text[s.mark:])
}

// skip begins the recording here: with the line of the prompt.
func (s *shell) skip() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.from = bytes.LastIndexByte(s.text, '\n') + 1
}

// lines returns what was seen. Where a job in the background wrote beside the prompt, the two stand in lines of their
// own.
func (s *shell) lines(steps []step) []line {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lines []line
	before := bytes.Count(s.text[:s.from], []byte("\n"))
	for i, text := range strings.Split(string(s.text), "\n") {
		if i < before {
			continue
		}
		text = strings.TrimPrefix(text, prompt)
		is := func(st step) bool { return st.line == text }
		switch {
		case i >= len(s.times) || text == "":
		case slices.ContainsFunc(steps, is):
			lines = append(lines, line{text: prompt + text, at: s.times[i]})
		default:
			lines = append(lines, line{text: text, at: s.times[i]})
		}
	}
	return lines
}

func (s *shell) close() {
	_ = s.cmd.Process.Kill() // its session gets SIGHUP with the terminal
	_ = s.master.Close()
	_ = s.cmd.Wait()
}
