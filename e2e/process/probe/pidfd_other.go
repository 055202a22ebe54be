//go:build !linux

package main

// pidfdID: there are no pidfds here, nor systemd.
func pidfdID() string { return "0" }
