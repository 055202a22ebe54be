// Package ptytest gives a test a real terminal with a shell, or any other session leader, behind it: keys are typed, output
// is waited for, and the processes of the session are looked at in /proc.
package ptytest
