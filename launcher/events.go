package launcher

import (
	"time"

	"golang.org/x/sys/unix"
)

// What goes into the state machine (machine.go) and what comes out of it.

// event is what happened.
type event interface{ isEvent() }

type (
	evStarted     struct{}            // a child was started
	evStartFailed struct{ err error } // it could not be started
	evExited      struct {            // the child has ended
		status unix.WaitStatus
		typed  bool // it had a terminal's foreground: somebody may have ended it by a key
		key    bool // a key was seen that ends it
	}
	evGroupGone struct{}                  // no live process of its group is left
	evSignal    struct{ sig unix.Signal } // vaultexec received a signal that may end it
	evTimer     struct{}                  // the deadline is over
	evChanged   struct {                  // the watch sees something new
		again bool      // or wants a failed read repeated
		by    time.Time // the child must be told to stop by then, or its credentials end under it; zero for any time
	}
	evRead struct { // everything was read
		failed bool   // not everything can be read, or it makes no valid environment
		same   bool   // the environment is that of the running child
		moving bool   // something changed again since the last look, or a replica that lags behind has answered
		id     string // names this set of versions
		set    string // names it to others; "" for what they cannot have
		pinned bool   // the environment is not made of it, but of what worked before
		by     time.Time
		beside bool // something else than files with a path is new: a signal cannot bring it to a command that runs
	}
	evHooked struct {
		ok   bool // the hook succeeded, the command can be started, the files are written
		hook bool // otherwise: it is the hook that failed
	}
)

func (evStarted) isEvent()     {}
func (evStartFailed) isEvent() {}
func (evExited) isEvent()      {}
func (evGroupGone) isEvent()   {}
func (evSignal) isEvent()      {}
func (evTimer) isEvent()       {}
func (evChanged) isEvent()     {}
func (evRead) isEvent()        {}
func (evHooked) isEvent()      {}

// action is what is to be done now.
type action uint8

const (
	actStart     action = iota // start a child with the candidate environment, or the only one there is
	actRevert                  // make the last good environment the candidate
	actAccept                  // the candidate environment is now the one that runs
	actKeepGood                // the running environment is proven good
	actRead                    // read everything
	actHook                    // run the hook and look the program up
	actDivert                  // have what is new wait for the next child
	actSkipHook                // look the program up, without the hook
	actStop                    // send the stop signal to the child
	actSignal                  // send the signal of --on-change signal:NAME, the files are written
	actKill                    // SIGKILL to the group
	actTermGroup               // SIGTERM to what is left of the group
	actAbortHook               // end a hook that runs
	actWarnLeft                // name what survived SIGKILL
	actLogSettle               // the lines of the log
	actLogWait
	actLogSame
	actLogNone
	actLogTriedBefore
	actLogRevert
	actLogLate  // the change is given up, the child is ending
	actLogHurry // the hook is not waited for any longer
	// --restart-order start-first, with two commands:
	actStartBeside // start the next command beside the one that serves
	actSwitch      // the other one serves from now on
	actStopOther   // send the stop signal to the one that does not serve
	actKillOther   // SIGKILL to its group
	actSweepOther  // SIGTERM to what is left of its group
	actForgetOther // it is gone
	actWarnOther   // name what of it survived SIGKILL
	actLogUnready
	actLogUndrained
	actLogTakesOver
	actLogBack
	actDrop // what was read is not taken
	// --restart-lock:
	actQueue       // ask for a place
	actLeaveTurn   // give it back, or ask for it no longer
	actRejectTried // what was read has failed elsewhere
	actTellGood    // leave at the place what became of the change
	actTellBad
	actLogNoPlace
	actLogWithout
)
