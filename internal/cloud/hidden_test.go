package cloud

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// What holds credentials of AWS prints without them, however it is printed.
func TestSecretsDoNotPrint(t *testing.T) {
	const marker = "marker-of-a-secret"
	s := newSecret(marker)
	keys := &awsKeys{"AKIA", s, s}
	wire := wireKeys{SecretAccessKey: wireText{s}, Token: wireText{s}}
	for _, v := range []any{s, &s, *keys, keys, wire, AWSRequest{Headers: s, Secrets: []Secret{s}}, &awsProver{secrets: []Secret{s}}} {
		var log strings.Builder
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		b, _ := json.Marshal(v)
		for _, text := range []string{fmt.Sprint(v), fmt.Sprintf("%+v", v), fmt.Sprintf("%#v", v), fmt.Sprintf("%q", v), fmt.Sprintf("%x", v), log.String(), string(b)} {
			if strings.Contains(text, marker) {
				t.Errorf("%T shows: %s", v, text)
			}
		}
	}
	if s.Reveal() != marker || (Secret{}).Reveal() != "" {
		t.Error("it is not what it was made of")
	}
}
