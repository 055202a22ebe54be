// Package process holds the tests of vaultexec as a parent of processes: signals, terminals, PID 1, what is inherited,
// real programs under it, and what it costs. They run the built program, and the same checks against a launcher that does
// everything wrong (probe naive), which must fail them: a check that cannot fail proves nothing.
package process
