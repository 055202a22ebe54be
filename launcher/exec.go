package launcher

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// program is a command that was found.
type program struct {
	path string
	argv []string // argv[0] as typed
}

// defaultPath is what execvp(3) searches when PATH is not set: glibc's confstr(_CS_PATH).
const defaultPath = "/bin:/usr/bin"

// findProgram searches like execvp(3): in vaultexec's PATH, where an empty element is the current folder. It remembers
// a file that may not be executed and goes on. (exec.LookPath reports such a file as not found and refuses the current
// folder.) If the file itself shows that a start must fail, that is found out here, before Vault is asked.
func findProgram(argv, environ []string) (program, error) { return findProgramIn("", argv, environ) }

// findProgramIn searches for a process that will be in the folder dir by then; "" is the current one. What it finds has
// the name that it has in that folder.
func findProgramIn(dir string, argv, environ []string) (program, error) {
	name := argv[0]
	if name == "" {
		return program{}, &fault.Error{Kind: fault.NotFound, What: "cannot start the command", Why: "its name is empty",
			Hint: "a variable in the command line may be empty"}
	}
	if strings.Contains(name, "/") {
		if err := executable(inDir(dir, name)); err != nil {
			failed := startErrorIn(dir, name, err)
			if f := notFound(argv); fault.Is(failed, fault.NotFound) && f.Cause != fault.Misspelled &&
				noPath(dir, name) {
				f.Err = err
				return program{}, f
			}
			return program{}, failed
		}
		return program{name, argv}, inspect(dir, name)
	}
	search := defaultPath
	for _, kv := range environ {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			search = v
			break
		}
	}
	var denied error
	deniedPath := ""
	for folder := range strings.SplitSeq(search, ":") {
		path := folder + "/" + name
		if folder == "" {
			path = "./" + name
		}
		switch err := executable(inDir(dir, path)); {
		case err == nil:
			return program{path, argv}, inspect(dir, path)
		case errors.Is(err, unix.EACCES) && denied == nil:
			denied, deniedPath = err, path
		}
	}
	if denied != nil {
		return program{}, startErrorIn(dir, deniedPath, denied)
	}
	return program{}, notFound(argv)
}

// executable returns the error that execve would give for the file's type and permission.
func executable(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return unix.EACCES
	}
	return unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS)
}

// startError turns the errno of a failed start into the failure that a shell would report.
func startError(path string, err error) error { return startErrorIn("", path, err) }

// startErrorIn is startError for a program that was started in the folder dir.
func startErrorIn(dir, path string, err error) error {
	if e := checkDir(dir); e != nil && err != nil {
		return e
	}
	e := &fault.Error{Kind: fault.NotExecutable, What: fmt.Sprintf("cannot start %q", path), Why: err.Error(), Err: err}
	var known *fault.Error
	if errors.As(err, &known) { // a file that could not be made
		return known
	}
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		e.Kind = fault.NotFound
		if executable(inDir(dir, path)) == nil {
			if f := inspect(dir, path); f != nil {
				return f
			}
			e.Why = "its interpreter is missing"
		}
	case errors.Is(err, unix.EACCES):
		e.Hint = "it must be a regular file with execute permission, on a file system that is not mounted noexec"
	case errors.Is(err, unix.ENOEXEC):
		e.Why, e.Hint = "not a program for this machine, and no #! line", "begin a script with #!, such as #!/bin/sh"
	case errors.Is(err, unix.E2BIG):
		e.Kind, e.Hint = fault.Value,
			"arguments and environment together are too large: hand large values over with --file"
	}
	return e
}

// elfMagic begins every ELF file.
var elfMagic = []byte("\x7fELF")

// inspect looks into an executable file for what would make execve fail: a missing interpreter, no #! line. It leaves
// to execve what it cannot read (mode 0111) or understand.
func inspect(dir, path string) error {
	f, err := os.Open(inDir(dir, path))
	if err != nil {
		return nil
	}
	defer f.Close()
	head := make([]byte, 256) // BINPRM_BUF_SIZE: the kernel reads no more of a #! line
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	head = head[:n]
	if why := precededBy(head); why != "" {
		return &fault.Error{Kind: fault.NotExecutable, What: fmt.Sprintf("cannot start %q", path), Why: why,
			Hint: "save the script as UTF-8 without a byte order mark, with #! as its first two bytes",
			Err:  unix.ENOEXEC}
	}
	switch {
	case bytes.HasPrefix(head, []byte("#!")):
		if interp := scriptInterpreter(head); interp != "" {
			return interpreter(dir, path, interp)
		}
		return startError(path, unix.ENOEXEC)
	case bytes.HasPrefix(head, elfMagic):
		return interpreter(dir, path, elfInterpreter(f, head))
	case bytes.IndexByte(head, 0) >= 0 || otherFormats():
		return nil
	}
	return startError(path, unix.ENOEXEC)
}

// precededBy says what stands before a #! line, where the kernel does not look for one.
func precededBy(head []byte) string {
	const broken = "it begins with a byte order mark (BOM, %s), so that its #! line is none"
	switch {
	case bytes.HasPrefix(head, []byte("\xef\xbb\xbf")):
		return fmt.Sprintf(broken, "UTF-8")
	case bytes.HasPrefix(head, []byte("\xff\xfe")), bytes.HasPrefix(head, []byte("\xfe\xff")):
		return fmt.Sprintf(broken, "UTF-16")
	}
	if text := bytes.TrimLeft(head, " \t\r\n"); len(text) < len(head) && bytes.HasPrefix(text, []byte("#!")) {
		return "a blank or an empty line comes before its #! line, which therefore does not count"
	}
	return ""
}

// otherFormats reports whether binfmt_misc knows formats beside the kernel's own.
func otherFormats() bool {
	entries, err := os.ReadDir("/proc/sys/fs/binfmt_misc")
	return err == nil && len(entries) > 2 // register and status
}

func interpreter(dir, path, interp string) error {
	if interp == "" {
		return nil
	}
	err := executable(inDir(dir, interp))
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		e := &fault.Error{Kind: fault.NotFound, What: fmt.Sprintf("cannot start %q", path),
			Why:  fmt.Sprintf("its interpreter %q is missing", interp),
			Hint: "install it; a script names it in its #! line, and a program was perhaps built for another C library"}
		if strings.HasSuffix(interp, "\r") {
			e.Hint = "the #! line ends in a carriage return: save the script with Unix line endings"
		}
		return e
	}
	return &fault.Error{Kind: fault.NotExecutable, What: fmt.Sprintf("cannot start %q", path),
		Why: fmt.Sprintf("its interpreter %q: %s", interp, err), Hint: "it must be a program that may be executed"}
}

// scriptInterpreter returns the program of a #! line as the kernel reads it (fs/binfmt_script.c).
func scriptInterpreter(head []byte) string {
	line, _, _ := bytes.Cut(head[2:], []byte("\n"))
	fields := bytes.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' || r == 0 })
	if len(fields) == 0 {
		return ""
	}
	return string(fields[0])
}

// elfInterpreter returns the PT_INTERP of an ELF file, "" for a static one or one that cannot be read. (debug/elf would
// do it too and brings the decompressors of debug sections along.)
func elfInterpreter(f io.ReaderAt, head []byte) string {
	if len(head) < 64 {
		return ""
	}
	const class64, lsb = 2, 1
	var order binary.ByteOrder = binary.LittleEndian
	if head[5] != lsb {
		order = binary.BigEndian
	}
	var phoff uint64
	var phentsize, phnum int
	is64 := head[4] == class64
	if is64 {
		phoff, phentsize, phnum = order.Uint64(head[32:]), int(order.Uint16(head[54:])), int(order.Uint16(head[56:]))
	} else {
		phoff, phentsize, phnum = uint64(order.Uint32(head[28:])),
			int(order.Uint16(head[42:])), int(order.Uint16(head[44:]))
	}
	if phentsize < 32 || phentsize > 1024 || phnum > 256 {
		return ""
	}
	const ptInterp = 3
	entry := make([]byte, phentsize)
	for i := range phnum {
		if _, err := f.ReadAt(entry, int64(phoff)+int64(i*phentsize)); err != nil || order.Uint32(entry) != ptInterp {
			continue
		}
		var off, size uint64
		if is64 && phentsize >= 40 {
			off, size = order.Uint64(entry[8:]), order.Uint64(entry[32:])
		} else {
			off, size = uint64(order.Uint32(entry[4:])), uint64(order.Uint32(entry[16:]))
		}
		if size == 0 || size > 4096 {
			return ""
		}
		name := make([]byte, size)
		if _, err := f.ReadAt(name, int64(off)); err != nil {
			return ""
		}
		return string(bytes.TrimRight(name, "\x00"))
	}
	return ""
}

// replace becomes the command. It returns only if that failed, or with a signal that came in the last moment.
//
// A signal that Go's handler has taken and nobody has read is lost in execve. So the handlers go first: from then on
// the kernel acts on the signal itself. What was taken before is in the channel once the handlers have run, and after
// signal.Stop, which waits for deliveries that are under way. (signal.Reset loses half of the SIGTERMs that arrive just
// then.) The command gets fds and the sockets, which are close-on-exec until then.
func replace(p program, dir string, env []string, fds []int, sockets *sockets, s *signals) error {
	if err := enterDir(dir); err != nil {
		return err
	}
	if sig := s.stopForExec(); sig != 0 {
		return &Killed{Signal: sig}
	}
	for _, fd := range fds {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return fileFault("in memory", err)
		}
	}
	if err := sockets.putInPlace(); err != nil {
		return err
	}
	err := unix.Exec(p.path, p.argv, env)
	return startError(p.path, err)
}
