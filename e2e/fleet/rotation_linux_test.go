package fleet

import (
	"testing"
)

const (
	size   = 50
	places = 3
)

const (
	isTaken  = "a place in the restart lock is taken"
	notTried = "they are not tried here"
)

// Fifty restart after one rotation, and never more than three of them at once.
func TestRotation(t *testing.T) {
	onEach(t, places, false, func(t *testing.T, l lock) {
		f := newFleet(t, l)
		f.start(size)
		holders := f.observe()
		f.put("good-2")
		f.until("all have the new secret", func() bool { return f.have("good-2") == size })
		f.until("nobody has a place any more", func() bool { return len(l.holders()) == 0 })
		if n := f.most(); n > places || n == 0 {
			t.Errorf("%d restarted at once", n)
		}
		if n := holders(); n > places || n == 0 {
			t.Errorf("%d places were held at once", n)
		}
		if n := f.tried("good-2"); n != size {
			t.Errorf("%d starts", n)
		}
		if n := f.saying(`"level":"WARN"`); n > 0 {
			t.Errorf("%d warned", n)
		}
	})
}

// The control: without a lock far more restart at once, so that the test above can fail.
func TestRotationWithoutALock(t *testing.T) {
	f := newFleet(t, nil)
	f.start(20)
	f.put("good-2")
	f.until("all have the new secret", func() bool { return f.have("good-2") == 20 })
	if n := f.most(); n <= places {
		t.Errorf("only %d restarted at once", n)
	}
}

// Exactly one tries a bad secret. The others say why they do not, and a good one reaches all.
func TestCanary(t *testing.T) {
	onEach(t, places, false, func(t *testing.T, l lock) {
		f := newFleet(t, l)
		f.start(size, "--canary")
		f.put("bad-2")
		f.until("the others do not try it", func() bool { return f.saying(notTried) == size-1 })
		if n := f.tried("bad-2"); n != 1 {
			t.Errorf("%d tried the bad secret", n)
		}
		f.until("all have the first secret", func() bool { return f.have("first") == size })
		f.put("good-3")
		f.until("all have the good secret", func() bool { return f.have("good-3") == size })
		if n := f.tried("bad-2"); n != 1 {
			t.Errorf("%d tried the bad secret in the end", n)
		}
		if n := f.most(); n > places {
			t.Errorf("%d restarted at once", n)
		}
		if first := f.first("good-3"); first.by == 0 || first.next-first.by < probation-slack {
			t.Errorf("the second followed %v after the first", first.next-first.by)
		}
	})
}
