package launcher

// What supervise.go and the others ask the machine. They decide nothing by its state themselves.

// over reports whether nothing is left to do.
func (m *machine) over() bool { return m.state == ended }

// isEnding reports whether a signal from outside is ending the run.
func (m *machine) isEnding() bool { return m.state == ending }

// isStopping reports whether vaultexec has told the child to stop, which need not be told again.
func (m *machine) isStopping() bool { return m.state == stopping }

// awaitsRead reports whether the result of a read has a use.
func (m *machine) awaitsRead() bool { return m.state == reading }

// awaitsHook reports whether the change under way goes on when the hook has ended.
func (m *machine) awaitsHook() bool { return m.state == hooking }

// awaitsGroup reports whether the group of the last child is to be looked at.
func (m *machine) awaitsGroup() bool { return m.state == clearing && !m.held }

// polls reports whether processes or queues are looked at again and again.
func (m *machine) polls() bool {
	return m.awaitsGroup() || m.isSweeping() || m.isDraining() || m.isDiverting()
}

// isDiverting reports whether the command that serves still has requests that are to be served before it is told to stop.
func (m *machine) isDiverting() bool { return m.state == diverting }

// isDraining reports whether the old command still has a queue that is to be served first.
func (m *machine) isDraining() bool { return m.companion == draining }

// isSweeping reports whether what is left of the command that does not serve is being ended.
func (m *machine) isSweeping() bool { return m.companion == sweeping }

// gaveUpNext reports whether the next command of the last handover was not taken.
func (m *machine) gaveUpNext() bool { return m.gaveUp }

// onProbation reports whether the child that runs is still on probation.
func (m *machine) onProbation() bool { return !m.onTrial.IsZero() }

// bySignal reports whether what was read last goes to the child that runs.
func (m *machine) bySignal() bool { return m.reaction == ReactSignal }

// insteadOfSignal reports whether it should go to the child that runs and cannot: the child is restarted.
func (m *machine) insteadOfSignal() bool {
	return m.onChange == ReactSignal && m.reaction != ReactSignal
}

// followed reports whether another child follows the one that runs or ran last.
func (m *machine) followed() bool { return m.next == toRestart || m.next == toRevert }

// goesBack reports whether the next child gets what worked before.
func (m *machine) goesBack() bool { return m.next == toRevert }

// tries reports whether the next child is on probation at first.
func (m *machine) tries() bool { return m.next == toRestart && m.rollback && m.probation > 0 }

// hurried reports whether a signal has asked for the end of the run.
func (m *machine) hurried() bool { return m.next == toDie || !m.termAt.IsZero() }

// outcome is what vaultexec ends with.
func (m *machine) outcome() error {
	switch {
	case m.err != nil:
		return m.err
	case m.next == toDie:
		return &Killed{Signal: m.signal}
	case m.signal != 0 && m.status.Signaled() && m.status.Signal() == m.stopSignal: // which was vaultexec's own
		return &Killed{Signal: m.signal}
	case m.next == toExit:
		return &Exited{Code: m.exitCode} // the decision was logged
	case m.status.Signaled():
		return &Killed{Signal: m.status.Signal()}
	}
	return &Exited{Code: m.status.ExitStatus()}
}

// ownCode reports whether the exit code is the one that --on-change exit names.
func (m *machine) ownCode() bool { return m.next == toExit }
