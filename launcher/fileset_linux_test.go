package launcher

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// twoInSet are two files in the folder "set" of dir, which is a set.
func twoInSet(dir, value string) *environ.Env {
	env := twoFiles(filepath.Join(dir, "set"), value)
	for i := range env.Vars {
		env.Vars[i].File.Set = filepath.Join(dir, "set")
	}
	return env
}

// readFrom reads A and B, which are in the folder of a descriptor.
func readFrom(dir int) (a, b string, err error) {
	read := func(name string) (string, error) {
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		defer unix.Close(fd)
		buf := make([]byte, 100)
		n, err := unix.Read(fd, buf)
		return string(buf[:max(n, 0)]), err
	}
	a, errA := read("A")
	b, errB := read("B")
	return a, b, errors.Join(errA, errB)
}

// mixed has readers read the pair again and again while it changes, and counts how often they had one of each edition. Each opens
// the folder once for a pair, or goes the whole way for each file. No file may be missing or half.
func mixed(t *testing.T, dir string, change func(n int), wholeWay bool) (pairs int64) {
	t.Helper()
	change(0)
	var count, reads atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				var a, b string
				var err error
				if wholeWay {
					x, errA := os.ReadFile(dir + "/A")
					y, errB := os.ReadFile(dir + "/B")
					a, b, err = string(x), string(y), errors.Join(errA, errB)
				} else {
					var fd int
					if fd, err = unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
						a, b, err = readFrom(fd)
						unix.Close(fd)
					}
				}
				valueA, okA := strings.CutSuffix(a, " of A")
				valueB, okB := strings.CutSuffix(b, " of B")
				if err != nil || !okA || !okB {
					t.Errorf("%q and %q: %v", a, b, err)
					return
				}
				if valueA != valueB {
					count.Add(1)
				}
				reads.Add(1)
			}
		})
	}
	for n, began := 1, time.Now(); n < 300 || reads.Load() < 3000 && time.Since(began) < 30*time.Second; n++ {
		change(n)
	}
	close(stop)
	wg.Wait()
	if reads.Load() < 1000 {
		t.Errorf("%d reads only", reads.Load())
	}
	return count.Load()
}

// TestSetIsOneEdition: who opens the folder of a set once has the files of one edition, however often they change; without a set
// it is now and then one of each.
func TestSetIsOneEdition(t *testing.T) {
	for _, wholeWay := range []bool{false, true} {
		dir := shm(t)
		f := newFiles(false)
		n := mixed(t, filepath.Join(dir, "set"), func(n int) {
			if err := f.place(twoInSet(dir, fmt.Sprint(n))); err != nil {
				t.Fatal(err)
			}
		}, wholeWay)
		if n > 0 && !wholeWay {
			t.Errorf("%d pairs of two editions", n)
		}
		f.removeAll()
		if left := besides(t, dir); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
	dir := shm(t)
	f := newFiles(false)
	if n := mixed(t, dir, func(n int) {
		if err := f.place(twoFiles(dir, fmt.Sprint(n))); err != nil {
			t.Fatal(err)
		}
	}, false); n == 0 {
		t.Error("control: files of their own were never seen in two editions")
	}
}

// TestSetEditions: an edition stays for a moment after it was replaced, for those who are in its folder, and no longer. A set
// that has no file any more is gone.
func TestSetEditions(t *testing.T) {
	dir := shm(t)
	defer func(d time.Duration) { keepEdition = d }(keepEdition)
	keepEdition = time.Hour
	f := newFiles(false)
	place := func(value string) {
		t.Helper()
		if err := f.place(twoInSet(dir, value)); err != nil {
			t.Fatal(err)
		}
	}
	place("one")
	in, err := unix.Open(dir+"/set", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(in)
	var st unix.Stat_t
	if err := unix.Stat(dir+"/set", &st); err != nil || st.Mode&0o7777 != 0o755 {
		t.Errorf("the folder has mode %o: %v", st.Mode, err)
	}
	if err := unix.Lstat(dir+"/set/A", &st); err != nil || st.Mode != unix.S_IFREG|0o400 {
		t.Errorf("the file has mode %o: %v", st.Mode, err)
	}
	place("two")
	if a, b, err := readFrom(in); err != nil || a != "one of A" || b != "one of B" {
		t.Errorf("%q %q %v", a, b, err)
	}
	keepEdition = 0
	place("three")
	// What is left are the set, its folder, and the one that stays for an hour.
	wait.Until(t, 20*time.Second, "the edition to go", func() bool { return len(besides(t, dir)) == 3 })
	// What somebody else has put there is not removed.
	vaultexecs := dir + "/set/mine"
	if err := os.WriteFile(vaultexecs, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.place(&environ.Env{}); err != nil {
		t.Fatal(err)
	}
	if exists(dir + "/set") {
		t.Error("the set stays without files")
	}
	f.removeAll()
	left := besides(t, dir)
	if len(left) != 1 {
		t.Fatalf("left behind: %v", left)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, left[0], "mine")); string(b) != "mine" || len(besides(t, filepath.Join(dir, left[0]))) != 1 {
		t.Errorf("%q in %v", b, besides(t, filepath.Join(dir, left[0])))
	}
	if _, _, err := readFrom(in); err == nil {
		t.Error("the first edition is still there")
	}
}

// TestSetOfAnother: two runs that name one set do not remove each other's, as with files of their own.
func TestSetOfAnother(t *testing.T) {
	dir := shm(t)
	one, two := newFiles(false), newFiles(false)
	if err := errors.Join(one.place(twoInSet(dir, "one")), two.place(twoInSet(dir, "two"))); err != nil {
		t.Fatal(err)
	}
	one.removeAll()
	if b, _ := os.ReadFile(dir + "/set/A"); string(b) != "two of A" || len(besides(t, dir)) != 2 {
		t.Errorf("A holds %q, and there are %v", b, besides(t, dir))
	}
	two.removeAll()
	if left := besides(t, dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestSetRefuses: what has the name of a set and was not made by vaultexec is not replaced, nor is anything made where others may
// change it, or on a disk.
func TestSetRefuses(t *testing.T) {
	dir := shm(t)
	for what, make := range map[string]func() error{
		"folder":  func() error { return os.Mkdir(dir+"/set", 0o700) },
		"file":    func() error { return os.WriteFile(dir+"/set", nil, 0o600) },
		"link":    func() error { return os.Symlink("elsewhere", dir+"/set") },
		"way out": func() error { return os.Symlink("../.set.vaultexec-0123456789ab", dir+"/set") },
		"another's": func() error {
			return errors.Join(os.Symlink(".set.vaultexec-0123456789ab", dir+"/set"), os.Lchown(dir+"/set", 4242, 4242))
		},
		"open to all":   func() error { return os.Chmod(dir, 0o777) },
		"no folder":     func() error { return os.Rename(dir, dir+"-moved") },
		"earlier run's": func() error { return os.Symlink(".set.vaultexec-0123456789ab", dir+"/set") },
	} {
		if what == "another's" && os.Geteuid() != 0 {
			continue
		}
		if err := make(); err != nil {
			t.Fatal(err)
		}
		env := twoInSet(dir, "x")
		atStart := CheckFilePlaces([]environ.FileSpec{*env.Vars[0].File}, false)
		f := newFiles(false)
		err := f.place(env)
		good := what == "earlier run's"
		if (err == nil) != good || (atStart == nil) != good || !good && (fault.Of(err).Kind != fault.Usage || fault.Of(err).Hint == "") {
			t.Errorf("%s: %v; at the start %v", what, err, atStart)
		}
		f.removeAll()
		if what == "no folder" {
			err = os.Rename(dir+"-moved", dir)
		} else {
			err = errors.Join(os.Chmod(dir, 0o700), os.RemoveAll(dir+"/set"))
		}
		if err != nil {
			t.Fatal(err)
		}
		if left := besides(t, dir); len(left) > 0 {
			t.Errorf("%s: left behind: %v", what, left)
		}
	}
	disk := t.TempDir()
	var st unix.Statfs_t
	if err := unix.Statfs(disk, &st); err == nil && st.Type != unix.TMPFS_MAGIC {
		if err := newFiles(false).place(twoInSet(disk, "x")); !errors.Is(err, errOnDisk) {
			t.Errorf("on a disk: %v", err)
		}
	}
}

// TestKilledDuringASet: whatever the moment in which SIGKILL comes, the folder has both files of one edition or is not there yet,
// and the next start leaves nothing beside it.
func TestKilledDuringASet(t *testing.T) {
	for _, way := range []string{"unnamed", "named"} {
		dir := shm(t)
		lefts := 0
		for moment := 1; moment <= 18; moment++ { // three changes: two files staged, two named, the folder filled, the link made
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=set-%s %d %s", dieAt, way, moment, dir))
			out, err := cmd.CombinedOutput()
			if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || ws.Signal() != unix.SIGKILL {
				t.Fatalf("%s, moment %d: %v: %s", way, moment, err, out)
			}
			lefts += len(besides(t, dir))
			fd, err := unix.Open(dir+"/set", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err == nil {
				a, b, err := readFrom(fd)
				unix.Close(fd)
				valueA, _ := strings.CutSuffix(a, " of A")
				valueB, _ := strings.CutSuffix(b, " of B")
				if err != nil || valueA != valueB || valueA == "" {
					t.Errorf("%s, moment %d: %q and %q: %v", way, moment, a, b, err)
				}
			} else if moment > 6 {
				t.Errorf("%s, moment %d: %v", way, moment, err)
			}
			testOnlyNamed = way == "named"
			f := newFiles(false)
			if err := f.place(twoInSet(dir, "next")); err != nil {
				t.Fatal(err)
			}
			testOnlyNamed = false
			if left := besides(t, dir); len(left) != 2 {
				t.Errorf("%s, moment %d: after the next start there are %v", way, moment, left)
			}
			if b, _ := os.ReadFile(dir + "/set/A"); string(b) != "next of A" {
				t.Errorf("A holds %q", b)
			}
			if moment%2 == 0 { // a run that ends removes its files
				f.removeAll()
				if left := besides(t, dir); len(left) > 0 {
					t.Errorf("%s, moment %d: the end leaves %v", way, moment, left)
				}
			} else {
				f.sets[dir+"/set"].dir.Close() // as if killed, too: its lock is gone
			}
		}
		if lefts == 0 {
			t.Errorf("%s: no kill has left anything: the sweep was not tried", way)
		}
	}
}
