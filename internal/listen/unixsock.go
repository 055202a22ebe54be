package listen

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// fileID tells whether a path still names the socket that was bound there. It holds as long as that socket is open:
// then nobody else's file gets its number.
type fileID struct{ dev, ino uint64 }

// bindUnix binds a path. A socket that is there already and that nobody serves is replaced in one step: the new one is
// bound to another name and renamed, so that the path always leads to a socket.
func bindUnix(spec Spec) (*Socket, error) {
	stale, err := lookAt(spec.Path)
	if err != nil {
		return nil, err
	}
	fd, err := newSocket(unix.AF_UNIX)
	if err != nil {
		return nil, err
	}
	s := &Socket{Spec: spec, fd: fd}
	if stale {
		err = s.bindOver()
	} else {
		err = s.bindAt(spec.Path)
	}
	var st unix.Stat_t
	if err == nil {
		err = unix.Lstat(spec.Path, &st)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	s.file = fileID{uint64(st.Dev), uint64(st.Ino)}
	return s, nil
}

// lookAt finds out what is at a path: a socket that nobody serves, or nothing.
func lookAt(path string) (stale bool, err error) {
	var st unix.Stat_t
	switch err := unix.Lstat(path, &st); {
	case err == unix.ENOENT:
		return false, nil
	case err != nil:
		return false, err
	case st.Mode&unix.S_IFMT != unix.S_IFSOCK:
		return false, errNoSocket
	case int(st.Uid) != os.Geteuid() && os.Geteuid() != 0:
		return false, errOthers
	}
	fd, err := newSocket(unix.AF_UNIX)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	if err := unix.SetNonblock(fd, true); err != nil { // a queue may be full
		return false, err
	}
	switch err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); {
	case err == unix.ECONNREFUSED, err == unix.ENOENT:
		return true, nil
	case err == nil, err == unix.EAGAIN, err == unix.EINPROGRESS, err == unix.EPROTOTYPE: // the last: it takes datagrams
		return false, errServed
	default:
		return false, err
	}
}

// bindAt binds a name. Its mode is right before anybody can connect: that takes Listen.
func (s *Socket) bindAt(path string) error {
	if err := unix.Bind(s.fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return err
	}
	if s.Mode == 0 {
		return nil
	}
	if err := unix.Chmod(path, uint32(s.Mode)); err != nil {
		_ = unix.Unlink(path)
		return err
	}
	return nil
}

// bindOver binds another name in the same folder and renames it. Where that name would be too long, there is a moment
// without a socket.
func (s *Socket) bindOver() error {
	dir := filepath.Dir(s.Path)
	for range 100 {
		var b [4]byte
		_, _ = rand.Read(b[:]) // never fails
		other := filepath.Join(dir, fmt.Sprintf(".v%x", b))
		if len(other) > maxPath {
			if err := unix.Unlink(s.Path); err != nil && !errors.Is(err, unix.ENOENT) {
				return err
			}
			return s.bindAt(s.Path)
		}
		err := s.bindAt(other)
		if err == unix.EADDRINUSE {
			continue
		}
		if err == nil {
			if err = unix.Rename(other, s.Path); err != nil {
				_ = unix.Unlink(other)
			}
		}
		return err
	}
	return unix.EADDRINUSE
}

// removeFile removes the file of the socket, if it is still this one's.
func (s *Socket) removeFile() {
	var st unix.Stat_t
	if err := unix.Lstat(s.Path, &st); err == nil && s.file == (fileID{uint64(st.Dev), uint64(st.Ino)}) {
		_ = unix.Unlink(s.Path)
	}
}
