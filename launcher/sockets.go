package launcher

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/listen"
)

// --listen: vaultexec holds the listening sockets, and the command gets them by the convention of sd_listen_fds(3), from
// descriptor 3 on. They stay open from one command to the next, so that a connection that comes in between waits in the
// queue. They are bound before Vault is asked, and listened on when the first command is started: nobody is to find an
// open port while Vault is away. They are close-on-exec here: no hook, no token helper and no process of vaultexec's own
// has them.

// firstListen is SD_LISTEN_FDS_START.
const firstListen = 3

// helpTime is how soon a command fails that wants to bind the address itself.
const helpTime = 5 * time.Second

// sockets are what the command gets. All methods of a nil one do nothing.
type sockets struct {
	given  []string        // names of those that systemd has handed to vaultexec; they are in their places
	groups []*listen.Group // of vaultexec's own
	steers bool            // each command gets sockets of its own, where that can be had
	open   bool            // they are listened on
	helped bool            // the log has said how a command takes a socket
	told   []string        // addresses of which the log has said that both commands share the socket
}

// socketSet is what one command has of vaultexec's own sockets.
type socketSet []*listen.Socket

// current are the sockets that new connections go to.
func (s *sockets) current() socketSet {
	if s == nil {
		return nil
	}
	set := make(socketSet, len(s.groups))
	for i, g := range s.groups {
		set[i] = g.Current()
	}
	return set
}

// listenVariables are those of the convention.
var listenVariables = []string{"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"}

// bind binds what --listen names.
func (l *launch) bind() error {
	if len(l.Listen) == 0 {
		return nil
	}
	own, err := watched(l, func(ctx context.Context) ([]*listen.Socket, error) { return listen.Bind(ctx, l.Listen) })
	if err != nil {
		return err
	}
	l.held = &sockets{given: givenSockets(l.Environ)}
	for _, s := range own {
		l.held.groups = append(l.held.groups, listen.NewGroup(s))
	}
	for i, s := range own {
		fd := l.held.place(i)
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC == 0 {
			l.Log.Info(fmt.Sprintf("descriptor %d, which vaultexec inherited, is not passed on: the command's socket takes its place",
				fd), "listen", s.String())
		}
	}
	return nil
}

// givenSockets are the names of the sockets that systemd has handed to this process. A count that is not for this
// process, or that descriptors are missing for, means nothing.
func givenSockets(environ []string) []string {
	n, err := strconv.Atoi(variable(environ, "LISTEN_FDS"))
	if err != nil || n <= 0 || n > 1<<16 || variable(environ, "LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil
	}
	for fd := firstListen; fd < firstListen+n; fd++ {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			return nil
		}
	}
	text := variable(environ, "LISTEN_FDNAMES")
	names := strings.Split(text, ":")
	if text == "" || len(names) != n {
		names = slices.Repeat([]string{noName}, n)
	}
	return names
}

// activated are the sockets that systemd has handed over and connections come to.
func activated(environ []string) (list []warmSocket) {
	for i, name := range givenSockets(environ) {
		if own, err := listen.Adopt(name, firstListen+i); err == nil {
			list = append(list, warmSocket{own, listen.NewGroup(own)})
		}
	}
	return list
}

// noName is what sd_listen_fds_with_names(3) calls a socket without a name.
const noName = "unknown"

// place is the descriptor that the command has socket i of vaultexec's own at.
func (s *sockets) place(i int) int { return firstListen + len(s.given) + i }

// files are this process's descriptors for the places from 3 on.
func (s *sockets) files(set socketSet) []uintptr {
	if s == nil {
		return nil
	}
	var files []uintptr
	for i := range s.given {
		files = append(files, uintptr(firstListen+i))
	}
	for _, own := range set {
		files = append(files, uintptr(own.FD()))
	}
	return files
}

// environ is env with the variables of the convention. LISTEN_PID names this process, as systemd's does; the stub has it
// name the command's (stub.go). Where the stub cannot be started it is left out, and a command that asks for it finds
// its sockets by their numbers only.
func (s *sockets) environ(env []string) []string {
	if s == nil {
		return env
	}
	env = slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.Contains(listenVariables, name) || name == "LISTEN_PIDFDID" && len(s.given) == 0 ||
			strings.HasPrefix(name, "VAULTEXEC_FD_") // those of a vaultexec around this one
	})
	names := slices.Clone(s.given)
	var numbers []string
	for i, own := range s.current() {
		name := noName
		if own.Name != "" {
			name = own.Name
			numbers = append(numbers, fmt.Sprintf("%s=%d", own.Variable(), s.place(i)))
		}
		names = append(names, name)
	}
	if executable(selfExe) == nil {
		env = append(env, fmt.Sprintf("LISTEN_PID=%d", os.Getpid()))
	}
	env = append(env, fmt.Sprintf("LISTEN_FDS=%d", len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	return append(env, numbers...)
}

// begin is called where vaultexec stays, and more than one command may have the sockets.
func (s *sockets) begin() {
	if s != nil {
		s.steers = true
	}
}

// canSteer reports whether a command may have a socket of its own.
func (s *sockets) canSteer() bool {
	return s != nil && slices.ContainsFunc(s.groups, func(g *listen.Group) bool { return g.Shared() == "" })
}

// listen opens the sockets, or makes their queues as long as possible again.
func (s *sockets) listen() error {
	if s == nil {
		return nil
	}
	for _, g := range s.groups {
		listen := g.Current().Listen
		if s.steers && !s.open {
			listen = g.Listen
		}
		if err := listen(); err != nil {
			return err
		}
	}
	s.open = true
	return nil
}

// add makes the sockets of the next command. Nothing reaches them before they are steered to, unless they are shared.
func (s *sockets) add() (socketSet, error) {
	if s == nil {
		return nil, nil
	}
	var set socketSet
	for _, g := range s.groups {
		own, err := g.Add()
		if err != nil {
			s.retire(set)
			return nil, err
		}
		set = append(set, own)
	}
	return set, nil
}

// steer has every new connection go to a command's sockets.
func (s *sockets) steer(to socketSet) {
	for i, own := range to {
		if s.groups[i].Shared() == "" && s.groups[i].Current() != own {
			_ = s.groups[i].SteerAll(own)
		}
	}
}

// drained reports whether nothing waits for a command that new connections no longer go to.
func (s *sockets) drained(set socketSet) bool {
	for i, own := range set {
		if g := s.groups[i]; g.Shared() == "" && g.Current() != own && !g.Drained(own) {
			return false
		}
	}
	return true
}

// retire closes the sockets of a command, unless others have them.
func (s *sockets) retire(set socketSet) {
	for i, own := range set {
		_ = s.groups[i].Retire(own)
	}
}

// close closes the sockets here. When no command follows, nobody will serve who waits in the queue.
func (s *sockets) close() {
	if s == nil {
		return
	}
	for _, g := range s.groups {
		g.Close()
	}
}

// commandStops is called when the command is about to be told to stop, and accepts nothing more soon. Until another
// one follows, the queues are as long as they can be. If none does, who comes now is to be refused.
func (s *sockets) commandStops(followed bool) {
	if followed {
		_ = s.listen()
		return
	}
	s.close()
}

// commandEnded makes the queues long again: the command may have made them shorter, or have closed them for everybody.
// Before that it looks whether a command that has failed at once has ever used its sockets.
func (s *supervisor) commandEnded(status unix.WaitStatus) {
	if s.held == nil {
		return
	}
	failed := status.Exited() && status.ExitStatus() != 0
	if failed && !s.served && s.stopAt.IsZero() && time.Since(s.forkedAt) < helpTime {
		s.held.help(s.launch, s.sockets)
	}
	_ = s.held.listen() // where it fails, the next start says so
}

// help says once how a command takes the first of its sockets that it did not listen on.
func (s *sockets) help(l *launch, set socketSet) {
	for i, own := range set {
		if touched, known := own.TouchedByListen(); s.helped || touched || !known {
			continue
		}
		s.helped = true
		l.Log.Warn(
			fmt.Sprintf("the command never listened on the socket of --listen %s, which is its descriptor %d",
				own.Spec, s.place(i)),
			"hint", fmt.Sprintf("if it binds the address itself, have it take the descriptor instead: "+
				"uvicorn --fd %d; gunicorn takes it without an option", s.place(i)))
	}
}

// putInPlace gives this process, which is about to become the command, the sockets at their numbers.
//
// Go's runtime has its own descriptors there, and another thread would end the process if its epoll were a socket of a
// sudden. So this thread gets a table of descriptors of its own first, which is the one that execve(2) keeps. Nothing
// but the exec may follow.
func (s *sockets) putInPlace() error {
	if s == nil {
		return nil
	}
	ownDescriptors()
	var high []int // above all places: one may be where another is to go
	set := s.current()
	for _, own := range set {
		fd, err := unix.FcntlInt(uintptr(own.FD()), unix.F_DUPFD_CLOEXEC, s.place(len(set)))
		if err != nil {
			return socketFault(own, err)
		}
		high = append(high, fd)
	}
	for i, own := range set {
		if err := dupTo(high[i], s.place(i)); err != nil {
			return socketFault(own, err)
		}
	}
	return nil
}

func socketFault(s *listen.Socket, err error) error {
	return &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot hand over the socket of --listen %s", s.Spec),
		Why: err.Error(), Err: err, Hint: "ulimit -n may be too low for it"}
}
