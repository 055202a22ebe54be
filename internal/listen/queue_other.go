//go:build !linux

package listen

// longestQueue is more than any kernel allows, and cut to that.
func longestQueue() int { return 1 << 15 }

// TouchedByListen cannot be told here.
func (s *Socket) TouchedByListen() (touched, known bool) { return false, false }

// Queued cannot be told here.
func (s *Socket) Queued() (n int, known bool) { return 0, false }
