package wholefile

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// Several at a time: each write succeeds, what is there is always whole, and nothing else is left.
func TestReplaceBesideOthers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var writers sync.WaitGroup
	for n := range byte(6) {
		writers.Go(func() {
			for range 20 {
				at, err := os.Open(dir)
				if err == nil {
					err = Replace(at, "file", bytes.Repeat([]byte{'a' + n}, 50_000), nil)
					_ = at.Close()
				}
				if err != nil {
					t.Error(err)
					return
				}
				got, err := os.ReadFile(filepath.Join(dir, "file"))
				if err != nil || len(got) != 50_000 || !bytes.Equal(got, bytes.Repeat(got[:1], len(got))) {
					t.Errorf("%d bytes, %v", len(got), err)
				}
			}
		})
	}
	writers.Wait()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("%d files, %v", len(entries), err)
	}
}

// What a killed process has left goes, and nothing that only looks like it.
func TestReplaceSweeps(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"file.ABCDEFGHIJ.tmp", "file.ABCDEFGHI.tmp", "file.tmp", "other.ABCDEFGHIJ.tmp", "[f]ile.ABCDEFGHIJ.tmp"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Time{}, time.Now().Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	at, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = at.Close() }()
	if err := Replace(at, "file", []byte("x"), nil); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 5 {
		t.Errorf("%v, %v", entries, err)
	}
	info, err := os.Stat(filepath.Join(dir, "file"))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}
