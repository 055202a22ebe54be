//go:build !linux

package vaulttest

import "syscall"

// tieToParent does nothing where the kernel has no parent-death signal: there a test binary that panics leaves its
// Vault behind.
func tieToParent(*syscall.SysProcAttr) {}
