package cli

import (
	"errors"
	"io"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
	"github.com/agenticverz/vaultexec/launcher"
)

// terminal asks a person for what must not be seen. Another goroutine can restore it at any time: main does that before
// a signal ends the process.
type terminal struct {
	in     *os.File
	out    io.Writer
	caught bool // somebody else catches SIGTSTP, and calls aside

	mu       sync.Mutex
	question string        // while it is being asked
	answer   chan typed    // for it
	saved    *unix.Termios // while the echo is off
	restored bool          // for good
}

// typed is an answer.
type typed struct {
	text vault.Text
	err  error
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), getTermios)
	return err == nil
}

// ask switches the echo off and prints the question. Signals stay as they are: Ctrl-C and Ctrl-Z work while somebody
// types a password.
func (t *terminal) ask() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.question == "" { // answered meanwhile
		return nil
	}
	if t.restored {
		return errNoTerminal
	}
	old, err := unix.IoctlGetTermios(int(t.in.Fd()), getTermios)
	if err != nil {
		return errNoTerminal
	}
	hidden := *old
	hidden.Lflag &^= unix.ECHO
	hidden.Lflag |= unix.ECHONL | unix.ICANON | unix.ISIG
	if err := unix.IoctlSetTermios(int(t.in.Fd()), setTermios, &hidden); err != nil {
		return errNoTerminal
	}
	t.saved = old
	_, _ = io.WriteString(t.out, t.question)
	return nil
}

// begin and end enclose a question.
func (t *terminal) begin(question string) chan typed {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.question, t.answer = question, make(chan typed, 2)
	return t.answer
}

func (t *terminal) end() {
	t.mu.Lock()
	t.question = ""
	t.mu.Unlock()
	t.show()
}

// aside calls stop, which stops this process, with the terminal as it was: whoever gets it meanwhile wants to see what
// they type. An open question is asked again afterwards.
func (t *terminal) aside(stop func()) {
	t.show()
	stop()
	if err := t.ask(); err != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		select {
		case t.answer <- typed{err: err}:
		default: // it has its answer
		}
	}
}

// show puts the terminal back as it was.
func (t *terminal) show() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.saved != nil {
		_ = unix.IoctlSetTermios(int(t.in.Fd()), setTermios, t.saved)
		t.saved = nil
	}
}

// restore is show for good: nothing is hidden afterwards.
func (t *terminal) restore() {
	t.mu.Lock()
	t.restored = true
	t.mu.Unlock()
	t.show()
}

// askPassword asks for a password.
func (t *terminal) askPassword(question string) (vault.Text, error) {
	line, err := t.readHidden(question)
	if err != nil {
		return vault.Text{}, cannotAsk("the password", "name its file with --password-file", err)
	}
	return vault.CheckPassword("the password", line)
}

// cannotAsk is the failure of a question.
func cannotAsk(what, hint string, err error) error {
	return &fault.Error{Kind: fault.Usage, What: "cannot ask for " + what, Why: err.Error(), Hint: hint}
}

// The ways in which a question can fail.
var (
	errNoTerminal = errors.New("the terminal does not allow it")
	errInputEnded = errors.New("the input ended")
)

// readHidden prints the question and reads one line without echo. It cannot be cancelled, since a read of a terminal
// cannot be taken back. Whoever gives up ends the process, after restore.
func (t *terminal) readHidden(question string) (string, error) {
	stopped := make(chan os.Signal, 1)
	if !t.caught && !signal.Ignored(unix.SIGTSTP) {
		signal.Notify(stopped, unix.SIGTSTP)
		defer signal.Stop(stopped)
	}
	answer := t.begin(question)
	defer t.end()
	if err := t.ask(); err != nil {
		return "", err
	}
	go func() {
		text, err := readLine(t.in)
		answer <- typed{vault.NewText(text), err}
	}()
	for {
		select {
		case l := <-answer:
			switch {
			case l.err == errNoTerminal:
				return "", l.err
			case l.err != nil && l.text.Empty():
				return "", errInputEnded
			}
			return l.text.Reveal(), nil
		case <-stopped:
			t.aside(launcher.StopSelf)
		}
	}
}

// readLine reads byte by byte: what follows the line belongs to the command.
func readLine(r io.Reader) (string, error) {
	var line []byte
	b := make([]byte, 1)
	for {
		n, err := r.Read(b)
		if n == 1 {
			if b[0] == '\n' {
				return string(line), nil
			}
			line = append(line, b[0])
		}
		if err != nil {
			return string(line), err
		}
		if len(line) > 4096 { // more than a terminal's line (termios(3), canonical mode)
			return "", io.ErrShortBuffer
		}
	}
}
