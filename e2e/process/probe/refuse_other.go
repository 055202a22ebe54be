//go:build !linux

package main

// refuse needs seccomp(2).
func refuse([]string) int { return 99 }
