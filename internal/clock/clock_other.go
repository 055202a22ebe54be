//go:build !linux

package clock

func watch(jumped func()) { compareForEver(jumped) }
