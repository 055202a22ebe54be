package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
)

const (
	// joinLimit bounds the wait for a raft node that has taken its last share: until it has joined, it calls itself
	// sealed.
	joinLimit = 10 * time.Second
	// initLimit bounds the wait for a raft node that has nothing yet, in case that it is being told by its cluster.
	initLimit = 30 * time.Second
	// maxCombinations bounds how often shares are tried in other combinations: enough for 6 of 12.
	maxCombinations = 1000
)

// Unsealing feeds key shares to one server.
type Unsealing struct {
	Client *Client
	Shares []Share
	// More asks for more shares when those at hand do not suffice, and returns none when there are none; nil when
	// nobody can be asked.
	More func(SealStatus) ([]Share, error)
	// Note gets each step: a line of text without the server's address.
	Note func(text string)

	status  SealStatus
	fed     []int   // shares that Vault holds, as far as they are ours
	foreign bool    // it held others before
	failed  [][]int // combinations that Vault refused
	good    []int   // the combination that it took
	short   []int   // shares that it refused at once
}

// Run unseals the server. A server that is unsealed already is no failure: done is false then.
func (u *Unsealing) Run(ctx context.Context, patience Patience) (done bool, err error) {
	if err := u.begin(ctx, patience); err != nil || !u.status.Sealed {
		return false, err
	}
	u.foreign = u.status.Progress > 0
	if u.foreign {
		u.Note(fmt.Sprintf("progress %d/%d from before", u.status.Progress, u.status.Threshold))
	}
	for i := 0; ; i++ {
		if i >= len(u.Shares) {
			more, err := u.more()
			if err != nil {
				return false, err
			}
			if !more {
				return false, u.tooFew()
			}
		}
		refused, err := u.feed(ctx, i)
		switch {
		case err != nil:
			return false, err
		case !u.status.Sealed:
			return true, u.wait(ctx)
		case refused:
			// One of these is wrong, and only other combinations can tell which.
			return u.combine(ctx)
		}
	}
}

// Status is what the server said last.
func (u *Unsealing) Status() SealStatus { return u.status }

// begin waits until the server can take shares.
func (u *Unsealing) begin(ctx context.Context, patience Patience) error {
	ask := func() error {
		return patience.Do(ctx, func(ctx context.Context) (err error) {
			u.status, err = u.Client.Seal(ctx)
			return err
		})
	}
	if err := ask(); err != nil {
		return err
	}
	if !u.status.Initialized && u.status.StorageType == "raft" {
		// It may be about to join a cluster, and takes the seal of that over.
		u.Note("not initialized; waiting in case it is joining a cluster")
		for deadline := time.Now().Add(initLimit); !u.status.Initialized && time.Now().Before(deadline) &&
			sleep(ctx, 250*time.Millisecond); {
			if err := ask(); err != nil {
				return err
			}
		}
	}
	e := &fault.Error{Kind: fault.Away, What: "cannot unseal " + u.Client.where}
	switch s := u.status; {
	case !s.Initialized:
		e.Why, e.Hint, e.Err = "it is not initialized",
			"`vault operator init` makes its keys (deploy/bootstrap does it)", ErrUninitialized
		return e
	case !s.Sealed:
		return nil
	case s.Migration:
		e.Why, e.Hint = "a seal migration is under way", "finish it with `vault operator unseal -migrate`"
		return e
	case s.Type != "shamir":
		e.Why = fmt.Sprintf("its seal is %q: it unseals itself, and no share can", s.Type)
		e.Hint = "see Vault's log for why it cannot reach what its seal needs; recovery keys unseal nothing"
		return e
	}
	return nil
}

func (u *Unsealing) more() (bool, error) {
	if u.More == nil {
		return false, nil
	}
	for {
		shares, err := u.More(u.status)
		if err != nil || len(shares) == 0 {
			return false, err
		}
		had := len(u.Shares)
		for _, s := range shares {
			if i := slices.IndexFunc(u.Shares, s.Same); i >= 0 {
				u.Note(fmt.Sprintf("%s is %s again", s.Label, u.Shares[i].Label))
				continue
			}
			u.Shares = append(u.Shares, s)
		}
		if len(u.Shares) > had {
			return true, nil
		}
	}
}

// feed gives Vault one share. refused is true when the threshold was reached and the shares do not belong together.
func (u *Unsealing) feed(ctx context.Context, i int) (refused bool, err error) {
	before := u.status
	s, err := u.Client.Unseal(ctx, u.Shares[i].Key)
	switch {
	case err == nil:
		u.status = s
		u.fed = append(u.fed, i)
		switch {
		case !s.Sealed:
		case s.Progress == 0: // taken, and sealed still: a node that joins
		case s.Progress <= before.Progress:
			u.fed = u.fed[:len(u.fed)-1]
			u.Note(fmt.Sprintf("progress %d/%d: %s was there already", s.Progress, s.Threshold, u.Shares[i].Label))
		default:
			u.Note(fmt.Sprintf("progress %d/%d", s.Progress, s.Threshold))
		}
		if s.Sealed && s.Progress == 0 {
			return false, u.join(ctx)
		}
		return false, nil
	case !fault.Is(err, fault.Value):
		return false, err
	case before.Progress+1 < before.Threshold:
		u.short = append(u.short, i)
		u.Note(fmt.Sprintf("%s is wrong: %s", u.Shares[i].Label, fault.Of(err).Why))
		return false, nil
	}
	set := append(slices.Clone(u.fed), i)
	slices.Sort(set)
	if !u.foreign {
		u.failed = append(u.failed, set)
	}
	which := "one of " + u.labels(set)
	if len(set) == 1 && !u.foreign {
		which = u.labels(set)
	}
	u.Note(fmt.Sprintf("refused: %s is wrong; Vault can tell only once it has %d, and starts again at 0", which,
		before.Threshold))
	u.fed, u.foreign, u.status.Progress = nil, false, 0
	return true, nil
}

// combine tries the shares at hand in every other combination, and those with each further share.
func (u *Unsealing) combine(ctx context.Context) (bool, error) {
	tried := 0
	for {
		for set := range u.untried() {
			if tried++; tried > maxCombinations {
				return false, u.allWrong()
			}
			ok, err := u.try(ctx, set)
			if err != nil {
				return false, err
			}
			if ok {
				return true, u.unsealedBy(ctx, set)
			}
		}
		more, err := u.more()
		if err != nil {
			return false, err
		}
		if !more {
			return false, u.allWrong()
		}
	}
}

// untried yields the combinations of shares that Vault has not refused, neither together nor one of them at once.
func (u *Unsealing) untried() func(yield func([]int) bool) {
	usable := slices.DeleteFunc(indices(len(u.Shares)), func(i int) bool { return slices.Contains(u.short, i) })
	return func(yield func([]int) bool) {
		for set := range combinations(usable, u.status.Threshold) {
			refused := slices.ContainsFunc(u.failed, func(f []int) bool { return slices.Equal(f, set) })
			if !refused && !yield(set) {
				return
			}
		}
	}
}

// unsealedBy keeps the combination that Vault took, and names the shares that are wrong by that.
func (u *Unsealing) unsealedBy(ctx context.Context, set []int) error {
	u.good = set
	if wrong := u.Wrong(); len(wrong) > 0 {
		u.Note(strings.Join(wrong, ", ") + " is wrong, the others are right")
	}
	return u.wait(ctx)
}

// try feeds one combination from the start.
func (u *Unsealing) try(ctx context.Context, set []int) (bool, error) {
	s, err := u.Client.ResetUnseal(ctx)
	if err != nil {
		return false, err
	}
	u.status, u.fed, u.foreign = s, nil, false
	u.Note("trying " + u.labels(set))
	for _, i := range set {
		refused, err := u.feed(ctx, i)
		if err != nil || refused {
			return false, err
		}
		if !u.status.Sealed {
			return true, nil
		}
	}
	return false, nil // one was refused at once, and is not tried again
}

// join waits for a node that has taken its shares.
func (u *Unsealing) join(ctx context.Context) error {
	u.Note("it has all shares, and is joining its cluster")
	for deadline := time.Now().Add(joinLimit); time.Now().Before(deadline) && sleep(ctx, 100*time.Millisecond); {
		s, err := u.Client.Seal(ctx)
		if err == nil && !s.Sealed {
			u.status = s
			return nil
		}
	}
	return &fault.Error{Kind: fault.Away, What: "cannot unseal " + u.Client.where,
		Why:  fmt.Sprintf("it took the shares and is still sealed after %s", joinLimit),
		Hint: "it may not reach the leader of its cluster: see its log, and try again"}
}

// wait makes sure that the server stays unsealed: it says so a moment before it has set itself up.
func (u *Unsealing) wait(ctx context.Context) error {
	s, err := u.Client.Seal(ctx)
	if err != nil {
		return nil // it did unseal; what happens later is not ours
	}
	if u.status = s; s.Sealed {
		return u.join(ctx)
	}
	return nil
}

// Wrong names the shares that are certainly wrong.
func (u *Unsealing) Wrong() []string {
	var wrong []int
	wrong = append(wrong, u.short...)
	for _, f := range u.failed {
		rest := slices.DeleteFunc(slices.Clone(f), func(i int) bool { return slices.Contains(u.good, i) })
		if u.good != nil && len(rest) == 1 && !slices.Contains(wrong, rest[0]) {
			wrong = append(wrong, rest[0])
		}
	}
	slices.Sort(wrong)
	names := make([]string, len(wrong))
	for i, w := range wrong {
		names[i] = u.Shares[w].Label
	}
	return names
}

// GoodFirst returns the shares for the next server: those that worked first, and none that is certainly wrong.
func (u *Unsealing) GoodFirst() []Share {
	wrong := u.Wrong()
	var first, rest []Share
	for i, s := range u.Shares {
		switch {
		case slices.Contains(wrong, s.Label):
		case slices.Contains(u.good, i):
			first = append(first, s)
		default:
			rest = append(rest, s)
		}
	}
	return append(first, rest...)
}

func (u *Unsealing) tooFew() error {
	s := u.status
	missing := s.Threshold - s.Progress
	e := &fault.Error{Kind: fault.Away, What: "cannot unseal " + u.Client.where,
		Why:  fmt.Sprintf("progress %d/%d: %d more needed", s.Progress, s.Threshold, missing),
		Hint: "whoever holds them runs `vaultexec unseal` too; what was given stays until Vault restarts",
		Err:  ErrTooFew}
	if len(u.short) > 0 {
		e.Kind = fault.Refused
	}
	return e
}

// ErrTooFew is the Err of an unsealing that needs shares that were not at hand.
var ErrTooFew = errors.New("too few shares")

func (u *Unsealing) allWrong() error {
	n, t := len(u.Shares)-len(u.short), u.status.Threshold
	e := &fault.Error{Kind: fault.Refused, What: "cannot unseal " + u.Client.where,
		Hint: "they may belong to another Vault, or date from before a rekey"}
	switch {
	case n == t:
		e.Why, e.Hint = fmt.Sprintf("one of the %d shares is wrong, and Vault cannot tell which", n),
			"give one more share: the wrong one can then be told from the others. "+e.Hint
	case n < t:
		e.Why = fmt.Sprintf("a share is wrong: %d right ones are needed, and only %d others are at hand", t, n)
	default:
		e.Why = fmt.Sprintf("fewer than %d of the %d shares are right", t, n)
	}
	return e
}

func (u *Unsealing) labels(set []int) string {
	names := make([]string, len(set))
	for i, s := range set {
		names[i] = u.Shares[s].Label
	}
	return strings.Join(names, ", ")
}

func indices(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

// combinations yields every choice of k of the list, in order.
func combinations(list []int, k int) func(yield func([]int) bool) {
	return func(yield func([]int) bool) {
		var choose func(from int, set []int) bool
		choose = func(from int, set []int) bool {
			if len(set) == k {
				return yield(slices.Clone(set))
			}
			for i := from; i <= len(list)-(k-len(set)); i++ {
				if !choose(i+1, append(set, list[i])) {
					return false
				}
			}
			return true
		}
		choose(0, make([]int, 0, k))
	}
}
