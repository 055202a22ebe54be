package vault

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"strings"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// remoteTLS begins the text of an alert that the server sent. Its type is not exported by crypto/tls.
const remoteTLS = "remote error: tls: "

// tlsFailed reports whether no TLS connection came about, so that Vault has seen nothing of the request.
func tlsFailed(err error) bool {
	var verify *tls.CertificateVerificationError
	return errors.As(err, &verify) || strings.Contains(errText(err), remoteTLS)
}

// alerts says what the alerts of servers mean that crypto/tls words like this.
var alerts = []struct{ text, why, hint string }{
	{"protocol version not supported", "the server speaks no TLS 1.2 or newer",
		"have it switched on there (tls_min_version, tls_max_version in Vault's listener)"},
	{"unrecognized name", "the server does not know the name that it was asked for",
		"give the name that it is known by in --address or with --tls-server-name"},
	{"handshake failure", "the server and vaultexec have no cipher or key type in common",
		"compare tls_cipher_suites in Vault's listener, or what the load balancer allows"},
	{"certificate required", "the server wants a client certificate", "give it with --client-cert and --client-key"},
	{"expired certificate", "the server says that the client certificate has expired",
		"have it renewed: --client-cert; it is read again when it changes"},
	{"revoked certificate", "the server says that the client certificate is revoked",
		"have another one issued: --client-cert"},
	{"unknown certificate authority", "the server does not know the CA of the client certificate",
		"compare --client-cert with the CAs that the server takes (tls_client_ca_file in Vault's listener)"},
}

// tlsTrouble judges a failure of TLS, and reports whether it is one.
func (c *Client) tlsTrouble(e *fault.Error, err error, at string) bool {
	var (
		unknown x509.UnknownAuthorityError
		roots   x509.SystemRootsError
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
		record  tls.RecordHeaderError
		verify  *tls.CertificateVerificationError
	)
	_, alert, remote := strings.Cut(errText(err), remoteTLS)
	switch {
	case errors.As(err, &unknown), errors.As(err, &roots):
		e.Why, e.Hint = "the server's certificate is signed by an unknown authority",
			"name its CA with --ca-cert FILE (VAULT_CACERT)"
	case errors.As(err, &name):
		e.Why, e.Hint = wrongName(name.Certificate)
	case errors.As(err, &invalid):
		e.Why, e.Hint = invalidCert(invalid.Reason)
	case errors.As(err, &verify):
		e.Why, e.Hint = "the server's certificate is not valid", "name its CA with --ca-cert FILE (VAULT_CACERT)"
	case errors.Is(err, http.ErrSchemeMismatch), errors.As(err, &record):
		e.Why, e.Hint = "the server does not speak TLS",
			"write the address as http://, or have TLS switched on"
	case strings.Contains(errText(err), "tls: server selected unsupported protocol version"):
		e.Why, e.Hint = alerts[0].why, alerts[0].hint
	case remote:
		e.Why, e.Hint = "the server refused the TLS connection",
			"it may want a client certificate: --client-cert and --client-key"
		for _, a := range alerts {
			if strings.HasPrefix(alert, a.text) {
				e.Why, e.Hint = a.why, a.hint
			}
		}
	default:
		return false
	}
	e.Kind = fault.Address
	e.Why += at
	return true
}

func wrongName(cert *x509.Certificate) (why, hint string) {
	if cert != nil && len(cert.DNSNames)+len(cert.IPAddresses) == 0 {
		return "the server's certificate has only a common name, which is no longer looked at",
			"have it issued again with a subjectAltName (DNS or IP) for the host in --address"
	}
	return "the server's certificate is for another name",
		"put a name from the certificate into --address, or give it with --tls-server-name"
}

func invalidCert(reason x509.InvalidReason) (why, hint string) {
	switch reason {
	case x509.Expired:
		return "the server's certificate has expired or is not yet valid",
			"have it renewed, or correct this machine's clock"
	case x509.IncompatibleUsage:
		return "the server's certificate is not one for servers",
			"have it issued again with the extended key usage serverAuth"
	case x509.NotAuthorizedToSign:
		return "the server's certificate is signed by a certificate that is not a CA's",
			"have it issued by a CA, or name the CA itself with --ca-cert FILE (VAULT_CACERT)"
	}
	return "the server's certificate is not valid", "have it renewed"
}
