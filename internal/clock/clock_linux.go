package clock

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// watch has the kernel tell of every jump. It sets a timer by the wall clock, due in a year. The kernel cancels that
// timer when somebody sets the clock, and when the machine wakes up (timerfd_create(2), TFD_TIMER_CANCEL_ON_SET). So an
// idle process sleeps on.
func watch(jumped func()) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		compareForEver(jumped)
		return
	}
	timer := os.NewFile(uintptr(fd), "timerfd")
	for {
		inAYear, err := unix.TimeToTimespec(time.Now().AddDate(1, 0, 0))
		if err != nil {
			break
		}
		err = unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, &unix.ItimerSpec{Value: inAYear}, nil)
		if err == unix.ECANCELED { // the clock was set while the timer was being set
			jumped()
			continue
		}
		if err != nil {
			break
		}
		if _, err := timer.Read(make([]byte, 8)); err != nil && !errors.Is(err, unix.ECANCELED) {
			break
		}
		jumped()
	}
	_ = timer.Close()
	compareForEver(jumped)
}
