//go:build !linux

package notify

import "errors"

// Receiver cannot be had here: the kernel does not say who has sent a message.
type Receiver struct{}

// Listen fails here.
func Listen(bool) (*Receiver, error) { return nil, errors.ErrUnsupported }

// Address is nothing here.
func (r *Receiver) Address() string { return "" }

// Close does nothing here.
func (r *Receiver) Close() {}

// InGroup knows nobody here.
func InGroup(int) func(pid int) bool { return func(int) bool { return false } }

// Receive fails here.
func (r *Receiver) Receive(func(pid int) bool) (Message, error) {
	return Message{}, errors.ErrUnsupported
}
