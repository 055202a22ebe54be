//go:build !linux

package serving

// Identify cannot tell here.
func Identify(int) (Socket, error) { return Socket{}, ErrUnknown }

// Look cannot tell here.
func Look(int, Socket) (Found, error) { return Found{}, ErrUnknown }
