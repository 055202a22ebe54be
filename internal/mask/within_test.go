package mask

import (
	"slices"
	"testing"
)

func TestWithin(t *testing.T) {
	for value, want := range map[string][]string{
		"plain":                                                         nil,
		"postgres://app:Xk9-q@db:5432/o?x=y":                            {"Xk9-q"},
		"postgres://app:a%2Fb%40c@db/o":                                 {"a%2Fb%40c", "a/b@c"},
		"mongodb://u:p1@h1:27017,h2:27017/db":                           {"p1"},
		"redis://:onlypw@cache":                                         {"onlypw"},
		"https://0123456789abcdef@sentry/1":                             {"0123456789abcdef"},
		"https://user@host/":                                            nil,
		"amqp://a:b@c, amqp://d:e@f":                                    {"b", "e"},
		"host=db user=app password=s3cret dbname":                       {"s3cret"},
		"host=db password='with blank' port=1":                          {"with blank"},
		"Server=db;User Id=a;Password=P@ss;":                            {"P@ss"},
		"https://api/x?user=a&token=t0ken&z=1":                          {"t0ken"},
		"Endpoint=sb://x/;SharedAccessKey=abc+/=":                       {"abc+/="},
		"DefaultEndpointsProtocol=https;AccountName=n;AccountKey=kk==;": {"kk=="},
		"password: from-yaml\nuser: x":                                  {"from-yaml"},
	} {
		if got := Within(value); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", value, got, want)
		}
	}
}
