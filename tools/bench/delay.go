package main

import (
	"net"
	"net/url"
	"time"
)

// roundTrip is what the delaying proxy adds to each round trip.
const roundTrip = 20 * time.Millisecond

// delayed starts a TCP proxy in front of addr. Through it everything takes roundTrip longer: half of it each way, and
// once more before the first byte, since making a connection would take a round trip.
func (s *stage) delayed(addr string) string {
	u, err := url.Parse(addr)
	s.must(err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	s.must(err)
	s.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				up, err := net.Dial("tcp", u.Host)
				if err != nil {
					_ = c.Close()
					return
				}
				go pump(up, c, roundTrip)
				pump(c, up, 0)
			}()
		}
	}()
	return u.Scheme + "://" + l.Addr().String()
}

// pump copies with half a round trip of delay; first is added once.
func pump(to, from net.Conn, first time.Duration) {
	type chunk struct {
		due  time.Time
		data []byte
	}
	chunks := make(chan chunk, 1024)
	go func() {
		defer close(chunks)
		opened := time.Now().Add(first)
		for {
			buf := make([]byte, 16<<10)
			n, err := from.Read(buf)
			if n > 0 {
				at := time.Now()
				if at.Before(opened) {
					at = opened
				}
				chunks <- chunk{at.Add(roundTrip / 2), buf[:n]}
			}
			if err != nil {
				return
			}
		}
	}()
	for c := range chunks {
		time.Sleep(time.Until(c.due))
		if _, err := to.Write(c.data); err != nil {
			break
		}
	}
	_, _ = to.Close(), from.Close()
	for range chunks {
	}
}
