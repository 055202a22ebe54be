//go:build !linux

package listen

// longestQueue is more than any kernel allows, and cut to that.
func longestQueue() int { return 1 << 15 }

// TouchedByListen cannot be told here.
func (s *Socket) TouchedByListen() (touched, known bool) { return false, false }

// queued cannot be told here.
func queued(*Socket) int { return -1 }
