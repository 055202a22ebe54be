package fallback

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

var written = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

func sample() (Key, Header, []byte) {
	return NewKey(), Header{Address: "https://vault.example:8200", Namespace: "team", Paths: []string{"secret/app"},
		Versions: map[string]int{"secret/app": 3}, Written: written, Seen: written}, []byte(`{"a":"value that nobody sees"}`)
}

func sealed(t *testing.T) (Key, []byte, []byte) {
	t.Helper()
	k, h, payload := sample()
	file, err := Seal(k, h, payload)
	if err != nil {
		t.Fatal(err)
	}
	return k, file, payload
}

func TestSealAndOpen(t *testing.T) {
	k, file, payload := sealed(t)
	h, got, err := Open(k, file)
	if err != nil || !bytes.Equal(got, payload) {
		t.Fatalf("%q, %v", got, err)
	}
	if _, want, _ := sample(); fmt.Sprint(h) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", h, want)
	}
	if bytes.Contains(file, []byte("nobody sees")) {
		t.Error("the payload is readable")
	}
	_, again, _ := sample()
	other, err := Seal(k, again, payload)
	if err != nil || bytes.Equal(other[len(magic)+2:len(magic)+2+saltSize], file[len(magic)+2:len(magic)+2+saltSize]) {
		t.Errorf("two files have one salt, %v", err)
	}
}

// Whatever byte of a file is changed, and wherever it is cut: it is refused, and says why.
func TestEveryByteCounts(t *testing.T) {
	k, file, _ := sealed(t)
	for i := range file {
		for _, bit := range []byte{1, 0x80} {
			bad := bytes.Clone(file)
			bad[i] ^= bit
			if _, _, err := Open(k, bad); err == nil {
				t.Fatalf("byte %d of %d changed, and it opens", i, len(file))
			}
		}
		if _, _, err := Open(k, file[:i]); !errors.Is(err, ErrCut) && !errors.Is(err, ErrChanged) {
			t.Fatalf("cut off at %d of %d: %v", i, len(file), err)
		}
	}
	if _, _, err := Open(k, append(bytes.Clone(file), 0)); !errors.Is(err, ErrChanged) {
		t.Errorf("a byte more: %v", err)
	}
}

func TestRefused(t *testing.T) {
	k, file, _ := sealed(t)
	newer := bytes.Clone(file)
	newer[len(magic)+1]++
	for name, c := range map[string]struct {
		key  Key
		file []byte
		want error
	}{
		"another key":    {NewKey(), file, ErrChanged},
		"another format": {k, newer, ErrFormat},
		"another file":   {k, []byte(strings.Repeat("KEY=value\n", 20)), ErrNoCopy},
		"empty":          {k, nil, ErrCut},
	} {
		if _, _, err := Open(c.key, c.file); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func FuzzOpen(f *testing.F) {
	k, h, payload := sample()
	file, _ := Seal(k, h, payload)
	f.Add(file)
	f.Add([]byte(magic))
	f.Add(append([]byte(magic), 0, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, _, err := Open(k, b); err == nil && !bytes.Equal(b, file) {
			t.Fatalf("%q opens", b)
		}
	})
}

func TestAge(t *testing.T) {
	h := Header{Written: written, Seen: written.Add(30 * time.Hour)}
	for now, want := range map[time.Time]time.Duration{
		written.Add(40 * time.Hour): 40 * time.Hour,
		written.Add(time.Hour):      30 * time.Hour, // the clock went back
		written.Add(-time.Hour):     30 * time.Hour,
	} {
		if got := h.Age(now); got != want {
			t.Errorf("at %v: %v, want %v", now, got, want)
		}
	}
}

func TestMismatch(t *testing.T) {
	_, h, _ := sample()
	if s := h.Mismatch(h.Address, h.Namespace, []string{"secret/app"}); s != "" {
		t.Error(s)
	}
	for _, s := range []string{h.Mismatch("https://other", h.Namespace, h.Paths), h.Mismatch(h.Address, "", h.Paths), h.Mismatch(h.Address, h.Namespace, nil),
		h.Mismatch(h.Address, h.Namespace, []string{"secret/app", "secret/b"})} {
		if s == "" {
			t.Error("no difference")
		}
	}
}

func TestKey(t *testing.T) {
	k := NewKey()
	again, err := ParseKey(k.Encode() + "\n")
	if err != nil || again.Encode() != k.Encode() {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "abc", k.Encode()[1:], k.Encode() + "A", strings.Repeat("!", 44)} {
		if _, err := ParseKey(bad); err == nil {
			t.Errorf("%d characters are a key", len(bad))
		}
	}
	for _, s := range []string{fmt.Sprint(k), fmt.Sprintf("%+v %#v %x", k, k, k), fmt.Sprint(struct{ k Key }{k})} {
		if strings.Contains(s, k.Encode()[:8]) || strings.Contains(s, fmt.Sprintf("%x", k.held())[:8]) {
			t.Error("a key is printed")
		}
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "copy")
	for _, content := range []string{magic + "one", magic + "another"} {
		if err := Write(path, []byte(content)); err != nil {
			t.Fatal(err)
		}
		got, err := Read(path)
		info, _ := os.Stat(path)
		if err != nil || string(got) != content || info.Mode() != 0o600 {
			t.Errorf("%q, %v, %v", got, info.Mode(), err)
		}
	}
	for _, there := range []bool{true, false} {
		if was, err := Remove(path); was != there || err != nil {
			t.Errorf("%v, %v", was, err)
		}
	}
}

// What is no copy stays as it is: a file of somebody else's, however large and whether it can be read or not, a link, a
// folder, a FIFO.
func TestLeavesOthersAlone(t *testing.T) {
	for name, there := range map[string]func(path string) error{
		"file": func(path string) error { return os.WriteFile(path, []byte("KEY=value\n"), 0o600) },
		"large file": func(path string) error {
			return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, mostFile+1))
		},
		"unreadable": func(path string) error {
			if os.Geteuid() == 0 { // reads everything
				return os.WriteFile(path, []byte("KEY=value\n"), 0)
			}
			return os.WriteFile(path, []byte(magic), 0)
		},
		"link":   func(path string) error { return os.Symlink("/dev/null", path) },
		"folder": func(path string) error { return os.Mkdir(path, 0o700) },
		"fifo":   func(path string) error { return unix.Mkfifo(path, 0o600) },
	} {
		path := filepath.Join(t.TempDir(), "there")
		if err := there(path); err != nil {
			t.Fatal(err)
		}
		before, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := Write(path, []byte(magic)); err == nil {
			t.Errorf("%s: it is replaced", name)
		}
		if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
			t.Errorf("%s: it is another one now, %v", name, err)
		}
		if _, err := Read(path); err == nil && slices.Contains([]string{"large file", "folder", "fifo"}, name) {
			t.Errorf("%s: it is read", name)
		}
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := errors.Join(os.WriteFile(empty, nil, 0o644), Write(empty, []byte(magic))); err != nil {
		t.Errorf("an empty file: %v", err)
	}
	if err := Write(empty, make([]byte, mostFile+1)); !errors.Is(err, errTooLarge) {
		t.Errorf("a copy that could not be read is written: %v", err)
	}
}

// Two runs have one file. The one that notes the time in what it has read brings nothing back that the other has removed, or
// replaced by something newer.
func TestRewrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "copy")
	read, noted, newer := []byte(magic+"read"), []byte(magic+"noted"), []byte(magic+"newer")
	if err := errors.Join(Write(path, read), Rewrite(path, noted, read)); err != nil {
		t.Fatal(err)
	}
	if is, err := Read(path); err != nil || !bytes.Equal(is, noted) {
		t.Errorf("%q, %v", is, err)
	}
	if err := Write(path, newer); err != nil {
		t.Fatal(err)
	}
	if err := Rewrite(path, noted, read); !errors.Is(err, ErrOther) {
		t.Errorf("a newer one is there: %v", err)
	}
	if is, err := Read(path); err != nil || !bytes.Equal(is, newer) {
		t.Errorf("%q, %v", is, err)
	}
	if _, err := Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := Rewrite(path, noted, read); !errors.Is(err, ErrOther) {
		t.Errorf("it was removed: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is back: %v", err)
	}
}

// A process that writes is killed at 200 moments: the file is the old one or the new one, and opens.
func TestKilledWhileWriting(t *testing.T) {
	if path := os.Getenv("FALLBACK_TEST_WRITE"); path != "" {
		k, err := ParseKey(os.Getenv("FALLBACK_TEST_KEY"))
		if err != nil {
			t.Fatal(err)
		}
		_, h, _ := sample()
		for n := byte('a'); ; n = 'a' + (n-'a'+1)%26 {
			file, err := Seal(k, h, bytes.Repeat([]byte{n}, 100_000))
			if err == nil {
				err = Write(path, file)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	k, dir := NewKey(), t.TempDir()
	path := filepath.Join(dir, "copy")
	for i := range 200 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledWhileWriting$")
		cmd.Env = append(os.Environ(), "FALLBACK_TEST_WRITE="+path, "FALLBACK_TEST_KEY="+k.Encode())
		if err := vaulttest.StartTied(cmd); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Duration(i%20) * 100 * time.Microsecond) {
			if info, err := os.Stat(path); err == nil && info.ModTime().After(time.Now().Add(-time.Hour)) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("nothing was written")
			}
		}
		time.Sleep(time.Duration(i*37%400) * 20 * time.Microsecond) // any moment of a write
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		file, err := Read(path)
		if err != nil {
			t.Fatal(err)
		}
		_, payload, err := Open(k, file)
		if err != nil || len(payload) != 100_000 || !bytes.Equal(payload, bytes.Repeat(payload[:1], len(payload))) {
			t.Fatalf("kill %d: %d bytes, %v", i, len(payload), err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 1 {
		t.Errorf("%d files are left, %v", len(entries), err)
	}
}
