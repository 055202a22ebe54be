//go:build !linux

package listen

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

func cannotGroup(*Socket) string { return "this system cannot steer connections" }

func (g *Group) begin() error           { return unix.ENOSYS }
func (g *Group) join() (*Socket, error) { return nil, unix.ENOSYS }

// SteerProbe cannot be had here.
func (g *Group) SteerProbe(*Socket, netip.AddrPort) error { return errShared }

func always(int) []struct{} { return nil }

func steer(*Socket, []struct{}) error { return unix.ENOSYS }

func handshakes(uint16) []string { return nil }

func underWay(uint16, bool) []string { return nil }
