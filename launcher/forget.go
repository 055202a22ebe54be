package launcher

import (
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/agenticverz/vaultexec/internal/environ"
)

// connEnd is when the goroutines of connections that were closed, and their buffers, are surely gone.
const connEnd = time.Second

// forget lets go of every secret, once the command runs and nothing looks at Vault: no other child will be started.
// Only the credentials that vaultexec was given are left then, in its copy of the environment.
func (s *supervisor) forget() {
	s.Session.Client.Secrets.Forget()
	s.status.forget()
	s.last.forget()
	s.Fallback = Fallback{}
	s.Session, s.runs, s.good, s.next = nil, s.runs.forgotten(), edition{}, nil
	for i, kv := range s.Environ {
		if name, value, _ := strings.Cut(kv, "="); environ.IsCredential(name) || environ.HasPassword(name, value) {
			s.Environ[i] = ""
		}
	}
}

// collectLate puts off the garbage collection of a start. What it frees keeps its bytes, and a stack that grows into
// such a place before clearFreed has been there would keep them for good: nothing clears the unused part of a stack. A
// start makes far less garbage than these 64 MiB, and one that waits for Vault is collected every two minutes. Where
// --status answers meanwhile, its garbage is bounded, too: 8 MiB are still more than a start makes.
func (l *launch) collectLate() {
	percent := 1600
	if l.status != nil {
		percent = 200
	}
	debug.SetGCPercent(percent)
}

// collectOften keeps small what mostly sleeps: the heap is collected at 1 MiB and not at 4.
func collectOften() { debug.SetGCPercent(25) }

// clearFreed has what was let go of overwritten. Go's collector leaves the bytes of what it frees as they are until
// somebody else gets the place; whole pages go back to the kernel, which clears them, but pages that hold anything else
// stay. So every free place is handed out once, which clears it. Of each size so many objects are made that the heap
// has to grow for them, and nothing is collected meanwhile. (With a very low GOMEMLIMIT it is collected all the same,
// and the heap might never grow: more than the whole heap is never made of one size.) It takes some 20 ms and 4 MiB,
// once. (Letting go of it in between would have the runtime ask for huge pages, which stay.)
//
// Objects with pointers have places of their own, and hold no text. Above 32 KiB every object has whole pages.
func clearFreed() {
	const (
		batch  = 16 << 10
		growth = 32 << 10 // more than another goroutine brings about just now
	)
	// A sync.Pool lets go at the second collection. Stacks that it makes smaller move to where the first was.
	for range 2 {
		debug.FreeOSMemory()
	}
	defer debug.FreeOSMemory()
	debug.SetGCPercent(-1)
	defer collectOften()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fill := func(size int) {
		most := m.HeapInuse + growth
		for made := 0; m.HeapInuse < most && uint64(made) < most; made += batch {
			for range max(batch/size, 1) {
				_ = allocate(size)
			}
			runtime.ReadMemStats(&m)
		}
	}
	largest := 16 // smaller ones share places of 16 bytes
	for _, class := range m.BySize {
		if size := int(class.Size); size >= largest {
			largest = size
			fill(size)
		}
	}
	for largest < 32<<10 { // BySize ends before the classes do
		largest += 1 << 10
		fill(largest)
	}
}

// allocate makes an object on the heap, filled with zeros.
//
//go:noinline
func allocate(size int) []byte { return make([]byte, size) }
