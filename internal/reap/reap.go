// Package reap shares the ends of children between who reaps them all and who waits for one. As PID 1, and while a command is
// supervised, one loop asks the kernel for any child that has ended; a goroutine that waits for a child of its own would find
// it gone, and would not learn how it ended.
package reap

import (
	"sync"
	"syscall"
	"time"
)

var (
	mu       sync.Mutex
	starting int                                 // children whose number is not known yet
	awaited  = map[int]chan syscall.WaitStatus{} // started here and not ended
	early    = map[int]syscall.WaitStatus{}      // ended while starting was not 0
)

// patience is how long an end that somebody else has taken may take to be told.
const patience = time.Second

// Start is syscall.ForkExec. The function that it returns waits for the end of the child, and says false when nobody can tell how
// it ended. It must be called.
func Start(path string, argv []string, attr *syscall.ProcAttr) (wait func() (syscall.WaitStatus, bool), err error) {
	mu.Lock()
	starting++
	mu.Unlock()
	pid, err := syscall.ForkExec(path, argv, attr)
	mu.Lock()
	defer mu.Unlock()
	starting--
	told := make(chan syscall.WaitStatus, 1)
	if err == nil {
		awaited[pid] = told
		if status, ended := early[pid]; ended {
			told <- status
			delete(awaited, pid)
		}
	}
	if starting == 0 {
		clear(early)
	}
	if err != nil {
		return nil, err
	}
	return func() (syscall.WaitStatus, bool) { return end(pid, told) }, nil
}

func end(pid int, told <-chan syscall.WaitStatus) (syscall.WaitStatus, bool) {
	select {
	case status := <-told: // its number may be another's by now
		return status, true
	default:
	}
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(pid, &status, 0, nil)
		switch err {
		case syscall.EINTR:
			continue
		case nil:
			forget(pid)
			return status, true
		}
		break
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case status = <-told:
		return status, true
	case <-t.C:
		forget(pid)
		return 0, false
	}
}

func forget(pid int) {
	mu.Lock()
	delete(awaited, pid)
	mu.Unlock()
}

// Awaited reports whether a child was started by Start and has not ended.
func Awaited(pid int) bool {
	mu.Lock()
	defer mu.Unlock()
	_, ok := awaited[pid]
	return ok || starting > 0
}

// Ended tells how a child ended that is not the caller's own.
func Ended(pid int, status syscall.WaitStatus) {
	mu.Lock()
	defer mu.Unlock()
	switch told, ours := awaited[pid]; {
	case ours:
		told <- status
		delete(awaited, pid)
	case starting > 0:
		early[pid] = status
	}
}
