package cli

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"path/filepath"

	"github.com/agenticverz/vaultexec/internal/scan"
)

// maxIndex bounds what is read of a repository's index: a million files take about a hundred bytes each.
const maxIndex = 128 << 20

// gitTracks reports whether a file is in the index of the git repository that it lies in. It does not ask git: in a
// folder that somebody else made, git runs what that folder's configuration names, even a transport that fetches
// missing objects. It reads the index alone, as data. What it cannot read (another format, a split index) counts as not
// tracked.
func gitTracks(file string) bool {
	abs, err := filepath.Abs(file)
	if err != nil {
		return false
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		abs = real
	}
	top, dir := scan.GitDir(filepath.Dir(abs))
	if dir == "" {
		return false
	}
	name, err := filepath.Rel(top, abs)
	if err != nil {
		return false
	}
	f, err := scan.OpenRegular(filepath.Join(dir, "index"))
	if err != nil {
		return false
	}
	defer f.Close()
	const sha1, sha256 = 20, 32 // the configuration says which it is, and is not asked
	for _, hash := range []int{sha1, sha256} {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return false
		}
		if found, err := inIndex(io.LimitReader(f, maxIndex), hash, filepath.ToSlash(name)); err == nil {
			return found
		}
	}
	return false
}

var errIndex = errors.New("not an index that can be read")

// inIndex looks for a name in an index of version 2 to 4 with object names of hash bytes (gitformat-index(5)).
func inIndex(r io.Reader, hash int, want string) (bool, error) {
	in := bufio.NewReader(r)
	head := make([]byte, 12)
	if _, err := io.ReadFull(in, head); err != nil {
		return false, err
	}
	version, entries := binary.BigEndian.Uint32(head[4:]), binary.BigEndian.Uint32(head[8:])
	if string(head[:4]) != "DIRC" || version < 2 || version > 4 {
		return false, errIndex
	}
	index := &indexReader{in: in, version: version, fixed: make([]byte, statBytes+hash+2)}
	for range entries {
		if err := index.next(); err != nil {
			return false, err
		}
		if string(index.name) == want {
			return true, nil
		}
	}
	return false, nil
}

// statBytes is the length of what an entry says of the file's times, owner and size.
const statBytes = 40

// indexReader reads the entries of an index.
type indexReader struct {
	in      *bufio.Reader
	version uint32
	fixed   []byte // what stands before each name
	name    []byte // of the last entry
	padding int    // behind it
}

// next reads an entry.
func (x *indexReader) next() error {
	const extended, length = 1 << 14, 1<<12 - 1
	if _, err := x.in.Discard(x.padding); err != nil {
		return err
	}
	if _, err := io.ReadFull(x.in, x.fixed); err != nil {
		return err
	}
	size, flags := len(x.fixed), binary.BigEndian.Uint16(x.fixed[len(x.fixed)-2:])
	if flags&extended != 0 {
		if _, err := x.in.Discard(2); err != nil {
			return err
		}
		size += 2
	}
	if err := x.readName(); err != nil {
		return err
	}
	if min(len(x.name), length) != int(flags&length) { // the object names are of the other kind
		return errIndex
	}
	if x.version < 4 { // padded to eight bytes, of which the 0 at the end was one
		x.padding = (8 - (size+len(x.name)+1)%8) % 8
	}
	return nil
}

func (x *indexReader) readName() error {
	kept := 0
	if x.version == 4 { // the name begins like the one before
		var err error
		if kept, err = kept4(x.in, len(x.name)); err != nil {
			return err
		}
	}
	rest, err := x.in.ReadSlice(0) // longer than any path that Linux opens: an error
	if err != nil {
		return err
	}
	x.name = append(x.name[:kept], rest[:len(rest)-1]...)
	return nil
}

// kept4 reads how much of a name of n bytes the next one has in common with it: all but so many bytes at its end.
func kept4(in *bufio.Reader, n int) (int, error) {
	off := uint64(0)
	for i := range 5 {
		b, err := in.ReadByte()
		if err != nil {
			return 0, err
		}
		if i > 0 {
			off++
		}
		off = off<<7 | uint64(b&0x7f)
		if b&0x80 == 0 {
			break
		}
	}
	if off > uint64(n) {
		return 0, errIndex
	}
	return n - int(off), nil
}
