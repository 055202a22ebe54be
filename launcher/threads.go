package launcher

import (
	"runtime"
	"sync"
)

// spareThreads are enough for what vaultexec does at one time beside a child: the system calls of the watcher, the
// token and the log, the delivery of signals, and the main thread that waits in a fork.
const spareThreads = 6

// reserveThreads makes the runtime's threads before there is a child. They never go, and wait where there is nothing to
// do. By itself the runtime makes threads as it needs them, and aborts the process where the kernel refuses one. So a
// command that uses up the process limit (pids.max of a container, ulimit -u) would end vaultexec, and itself with it.
// Further calls only wait until they are there.
var reserveThreads = sync.OnceFunc(func() {
	var all, met sync.WaitGroup
	all.Add(spareThreads)
	met.Add(spareThreads)
	for range spareThreads {
		go func() {
			runtime.LockOSThread()
			all.Done()
			all.Wait() // each has a thread now, as none has let go of its own
			runtime.UnlockOSThread()
			met.Done()
		}()
	}
	met.Wait()
})
