package clock

import (
	"testing"
	"time"
)

// What is due by one of the clocks is due: the monotonic one stands still in a suspended machine, the other may be set back.
func TestLeft(t *testing.T) {
	for _, c := range []struct {
		name  string
		ahead time.Duration // of the wall clock
		want  time.Duration
	}{
		{"both go alike", 0, time.Hour},
		{"slept for half an hour", 30 * time.Minute, 30 * time.Minute},
		{"slept for a night", 8 * time.Hour, -7 * time.Hour},
		{"set back by a day", -24 * time.Hour, time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			clock := New(func() time.Time { return time.Now().Add(c.ahead) }, nil)
			at := time.Now().Add(time.Hour)
			if off := clock.Left(at) - c.want; off > 0 || off < -time.Minute {
				t.Errorf("%v, want %v", clock.Left(at), c.want)
			}
		})
	}
}

// Where the kernel does not tell, a sleep shows when the clocks are compared; time that both count is none.
func TestCompare(t *testing.T) {
	readings := []time.Duration{0, 0, 0, time.Hour, time.Hour, -time.Hour, -time.Hour}
	wall := func() time.Time {
		ahead := readings[0]
		readings = readings[1:]
		return time.Now().Add(ahead)
	}
	ticks := make(chan time.Time, 3)
	for range cap(ticks) {
		ticks <- time.Now()
	}
	close(ticks)
	jumps := 0
	compare(ticks, wall, func() { jumps++ }) // nothing, an hour's sleep, set back
	if jumps != 1 {
		t.Errorf("%d jumps, want 1", jumps)
	}
}

func TestJump(t *testing.T) {
	clock := New(time.Now, nil)
	for range 2 {
		jumped := clock.Jumped()
		select {
		case <-jumped:
			t.Fatal("a jump before there was one")
		default:
		}
		clock.Jump()
		<-jumped
	}
}
