// Package fault is the one error taxonomy of vaultexec. The kind of a failure decides its exit code and whether waiting
// can help. Every failure carries a text for a person and a hint on what to do. No text holds a secret: an Error is
// made of names and of our own words, never of a response body or of a wrapped error that was not looked at.
package fault

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Kind classifies a failure.
type Kind uint8

// The kinds. The zero Kind is not used, so that a forgotten one shows.
const (
	Usage         Kind = iota + 1 // wrong option, reference or configuration
	Defect                        // vaultexec did something that it never should
	Away                          // Vault cannot answer now: unreachable, sealed, standby, overloaded
	Address                       // Vault cannot be talked to like this: TLS refused, wrong protocol
	Refused                       // login refused
	Denied                        // a policy denies
	BadToken                      // the token itself is not valid
	Missing                       // no such secret, version or mount
	Deleted                       // the version is deleted or destroyed
	Value                         // a secret that cannot become a variable
	Changed                       // --on-change exit
	NotExecutable                 // the command was found and cannot be executed
	NotFound                      // the command was not found
	Conflict                      // somebody else wrote first (check-and-set)
	Found                         // a secret is where none belongs
)

// kinds is the table of exit codes in the README. 125 to 127 are those of docker and env(1).
var kinds = [...]struct {
	name  string
	code  int
	retry bool
	cure  string // for a failure that has no hint of its own
}{
	Usage:         {"usage", 125, false, ""},
	Defect:        {"defect", 125, false, "this should not happen: report it with what vaultexec --version prints"},
	Away:          {"away", 120, true, "Vault's own log says more; --wait sets how long vaultexec waits for this to pass"},
	Address:       {"address", 120, false, "check --address or VAULT_ADDR"},
	Refused:       {"refused", 121, false, "vaultexec help login says what each method needs"},
	Denied:        {"denied", 121, false, "vaultexec check shows which policy rule is missing"},
	BadToken:      {"token", 121, false, "log in again (`vaultexec login`), or give another token"},
	Missing:       {"missing", 122, false, "check its spelling; vaultexec list shows what there is, where a policy allows it"},
	Deleted:       {"deleted", 122, false, "vaultexec get --versions shows what there is"},
	Value:         {"value", 123, false, ""},
	Changed:       {"changed", 124, false, ""},
	NotExecutable: {"not-executable", 126, false, ""},
	NotFound:      {"not-found", 127, false, ""},
	Conflict:      {"conflict", 123, false, ""},
	Found:         {"found", 1, false, ""},
}

// String names the kind in logs.
func (k Kind) String() string {
	if int(k) >= len(kinds) || kinds[k].name == "" {
		return fmt.Sprintf("kind(%d)", uint8(k))
	}
	return kinds[k].name
}

// Code is the exit code of the kind.
func (k Kind) Code() int { return kinds[k].code }

// Retryable reports whether the same request may succeed later without anybody changing anything.
func (k Kind) Retryable() bool { return kinds[k].retry }

// Cause tells failures of one kind apart where code has to. The texts are for people: no code goes by them.
type Cause uint8

// The causes. Most failures have none: their kind says enough.
const (
	NoSecret    Cause = iota + 1 // there is no such secret
	NoMount                      // there is no such mount
	NoNamespace                  // there is no such namespace
	NoPath                       // the engine of the mount has no such path
	Unsupported                  // the path is there and does not support the operation
	OtherPath                    // the path was probably meant in another way, which the hint says
	NotVault                     // what answers is not Vault
	PlainDenial                  // a login is denied, and Vault says nothing further
	NoTLS                        // the login needs a TLS connection
	Empty                        // a credential is empty
	NoLease                      // Vault knows no such lease: it has ended or was revoked
	NoToken                      // no token is stored
	Misspelled                   // no program has that name, which is otherwise one that a program may have
)

// Error is one failure.
type Error struct {
	Kind  Kind
	Cause Cause  // 0 for most
	What  string // what could not be done: "cannot read agenticverz/app-prod"
	Why   string // the cause: "permission denied"
	Hint  string // what to do about it; may be empty

	// Passing says that somebody else may be about to end it, whatever its kind: a credential file is not written yet.
	Passing    bool
	Exit       int           // exit code in place of the kind's, if not 0
	RetryAfter time.Duration // how long the server asked to wait; 0 if it did not
	Err        error         // what errors.Is and errors.As may find; never printed
}

// Error returns "what: why".
func (e *Error) Error() string {
	if e.Why == "" {
		return e.What
	}
	return e.What + ": " + e.Why
}

// Unwrap returns the cause that is not printed.
func (e *Error) Unwrap() error { return e.Err }

// Code is the exit code of the failure.
func (e *Error) Code() int {
	if e.Exit != 0 {
		return e.Exit
	}
	return e.Kind.Code()
}

// Cure is the hint, or what helps against most failures of the kind; "" when nothing does.
func (e *Error) Cure() string {
	if e.Hint != "" {
		return e.Hint
	}
	return kinds[e.Kind].cure
}

// AddHint adds a further hint to what there is.
func (e *Error) AddHint(text string) {
	if e.Hint != "" {
		text = e.Hint + "; " + text
	}
	e.Hint = text
}

// Under names the option or variable that the failure is about, unless its text does so already.
func (e *Error) Under(name string) {
	if !strings.Contains(e.What, name) {
		e.What = name + ": " + e.What
	}
}

// SameWhy reports whether both give a person the same cause, so that the second is no news. Neither may be nil.
func (e *Error) SameWhy(o *Error) bool { return e.Why == o.Why }

// List is several failures that were found together. The first decides the exit code.
type List []*Error

// Error joins the texts with "; ".
func (l List) Error() string {
	texts := make([]string, len(l))
	for i, e := range l {
		texts[i] = e.Error()
	}
	return strings.Join(texts, "; ")
}

// Unwrap makes errors.As find the first failure.
func (l List) Unwrap() []error {
	errs := make([]error, len(l))
	for i, e := range l {
		errs[i] = e
	}
	return errs
}

// Join returns nil for no failure, the failure itself for one, and a List for more.
func Join(errs []*Error) error {
	switch len(errs) {
	case 0:
		return nil
	case 1:
		return errs[0]
	}
	return List(errs)
}

// All returns every failure in err, wrapping what is not one of ours as a Defect.
func All(err error) []*Error {
	if err == nil {
		return nil
	}
	if l, ok := err.(List); ok {
		return slices.Clone(l)
	}
	return []*Error{Of(err)}
}

// Of returns the (first) failure in err. An error from elsewhere becomes a Defect whose text is only its type, because
// nobody checked that the text holds no secret.
func Of(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Kind: Defect, What: "unexpected failure", Why: fmt.Sprintf("%T", err), Err: err}
}

// Has reports whether the (first) failure in err has the cause.
func Has(err error, cause Cause) bool {
	var e *Error
	return errors.As(err, &e) && e.Cause == cause
}

// Is reports whether err is a failure of one of the kinds.
func Is(err error, want ...Kind) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	for _, k := range want {
		if e.Kind == k {
			return true
		}
	}
	return false
}
