package cli

import (
	"cmp"
	"context"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/restartlock"
	"github.com/agenticverz/vaultexec/launcher"
)

// mostPlaces is more than anybody needs: a fleet of which so many may restart at once needs no lock.
const mostPlaces = 1000

// restartLock reads --restart-lock and what belongs to it.
func (a *app) restartLock(s *settings) launcher.RestartLock {
	v := s.one("restart-lock")
	if v.text == "" {
		for _, name := range []string{"restart-limit", "restart-lock-wait", "restart-lock-required", "canary", "service-account"} {
			if o := s.one(name); o.from != "" && o.text != "false" {
				s.bad(o, "only --restart-lock uses it", "give --restart-lock kubernetes:NAME or consul:NAME, too")
			}
		}
		return launcher.RestartLock{}
	}
	if s.bool("replace") {
		s.bad(v, "with --replace nobody restarts the command", "give one of them")
	}
	o := launcher.RestartLock{Limit: 1, Wait: s.duration("restart-lock-wait"), Required: s.bool("restart-lock-required"),
		Canary: s.bool("canary"), Holder: holderName()}
	if l := s.one("restart-limit"); l.text != "" {
		n, err := strconv.Atoi(l.text)
		if err != nil || n < 1 || n > mostPlaces {
			s.bad(l, "not a number from 1 to "+strconv.Itoa(mostPlaces), "write how many may restart at once")
		}
		o.Limit = n
	}
	if o.Canary {
		a.checkCanary(s)
	}
	spec, err := restartlock.Parse(v.text)
	if err != nil {
		s.bad(v, fault.Of(err).Why, fault.Of(err).Hint)
		return o
	}
	if o.Engine, err = restartlock.Open(spec, a.getenv, s.str("service-account"), s.owners()); err != nil {
		o.Engine = nil
		s.fail(v, err)
		return o
	}
	if to := restartlock.Exposed(o.Engine); to != "" && !s.bool("allow-http") {
		attrs := []any{"lock", o.Engine.Name(), "readers", to, "acknowledge", "--allow-http"}
		if restartlock.Unverified(o.Engine) {
			a.warnOnce("the certificate of the restart lock's server is not verified (CONSUL_HTTP_SSL_VERIFY), and its token goes to whoever answers", attrs...)
		} else {
			a.warnOnce("the token of the restart lock crosses the network unencrypted", attrs...)
		}
	}
	return o
}

// checkCanary refuses what a canary can find out nothing with.
func (a *app) checkCanary(s *settings) {
	v := s.one("canary")
	switch {
	case s.bool("no-rollback"):
		s.bad(v, "with --no-rollback nobody learns that a command has failed", "leave --no-rollback out")
	case s.str("on-change") != "restart":
		s.bad(v, "only a restart shows whether the command works with what is new", "leave --on-change out")
	case s.option("probation").mismatch(s.str("probation")) == "" && s.duration("probation") == 0:
		s.bad(v, "with --probation 0 nobody waits to see whether the command works", "give a --probation of some seconds")
	}
}

// holderName is who tried a change, as the others read it: the name of a pod or of a host.
func holderName() string {
	name, err := os.Hostname()
	if err != nil {
		name = "a host without a name"
	}
	return name
}

// lockCheck is what check finds out about --restart-lock.
type lockCheck struct {
	name   string
	limit  int
	faults []*fault.Error
}

// checkLock tries each place without taking it. What stands in the way of one usually does so for the others: it is said once.
func checkLock(l launcher.RestartLock, timeout time.Duration) *lockCheck {
	if l.Engine == nil {
		return nil
	}
	defer l.Engine.Close()
	c := &lockCheck{name: l.Engine.Name(), limit: l.Limit}
	said, same := map[string]*fault.Error{}, map[*fault.Error]int{}
	for i := range l.Limit {
		ctx, cancel := context.WithTimeout(context.Background(), cmp.Or(timeout, 10*time.Second))
		err := l.Engine.Check(ctx, i)
		cancel()
		if err == nil {
			continue
		}
		f := fault.Of(err)
		text := strings.ReplaceAll(f.Error()+f.Hint, nameOfPlace(l.Engine.Name(), i), "")
		if first := said[text]; first != nil {
			same[first]++
		} else {
			said[text] = f
			c.faults = append(c.faults, f)
		}
		if f.Kind == fault.Away || f.Kind == fault.Address { // nor will it answer for the others
			break
		}
	}
	if l.Canary && len(c.faults) == 0 {
		ctx, cancel := context.WithTimeout(context.Background(), cmp.Or(timeout, 10*time.Second))
		if _, err := l.Engine.Outcomes(ctx); err != nil {
			c.faults = append(c.faults, fault.Of(err))
		}
		cancel()
	}
	for f, n := range same {
		f.Why += "; the same for " + strconv.Itoa(n) + " more of " + strconv.Itoa(l.Limit) + " places"
	}
	return c
}

// nameOfPlace is how texts name a Lease: api-2 of kubernetes:shop/api.
func nameOfPlace(lock string, place int) string {
	return lock[strings.LastIndexAny(lock, ":/")+1:] + "-" + strconv.Itoa(place)
}

// verdict is the failure of a lock that cannot be used, nil otherwise. A run would work, and its restarts would be late.
func (c *lockCheck) verdict() error {
	if c == nil || len(c.faults) == 0 {
		return nil
	}
	f := c.faults[0]
	return &fault.Error{Kind: f.Kind, What: "cannot use the restart lock " + c.name, Why: f.Why, Hint: f.Cure(), Exit: f.Code()}
}
