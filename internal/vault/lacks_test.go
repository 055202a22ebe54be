package vault

import (
	"errors"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// What this machine lacks is not said to be Vault's absence, and is tried again.
func TestLocalShortage(t *testing.T) {
	t.Parallel()
	c, err := New(Config{Address: "https://vault.example:8200"})
	if err != nil {
		t.Fatal(err)
	}
	judge := func(err error) *fault.Error {
		return fault.Of(c.transportError(request{what: "cannot read x"}, &url.Error{Op: "Get", URL: "https://vault.example:8200/x", Err: err}))
	}
	dial := func(err error) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("socket", err)}
	}
	for _, err := range []error{
		dial(syscall.EMFILE), dial(syscall.ENFILE), dial(syscall.ENOBUFS), dial(syscall.ENOMEM), dial(syscall.EADDRNOTAVAIL),
		&net.DNSError{Err: "open /etc/resolv.conf: " + syscall.EMFILE.Error(), Name: "vault.example"},
		&net.DNSError{Err: dial(syscall.EMFILE).Error(), Name: "vault.example"},
	} {
		e := judge(err)
		if e.Kind != fault.Away || !strings.Contains(e.Hint, "Vault was not asked") || strings.Contains(e.Error(), "vault.example") {
			t.Errorf("%v: %s; %s", err, e, e.Hint)
		}
	}
	for _, err := range []error{dial(syscall.ECONNREFUSED), &net.DNSError{Err: "no such host", Name: "vault.example", IsNotFound: true}, errors.New("x")} {
		if e := judge(err); strings.Contains(e.Hint, "Vault was not asked") {
			t.Errorf("%v: %s; %s", err, e, e.Hint)
		}
	}
}
