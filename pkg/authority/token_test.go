package authority

import (
	"crypto/tls"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func newToken(t testing.TB) Token {
	t.Helper()
	made, err := NewToken(Fingerprint{1, 2, 3}, []string{"center.example.org:7420", "[2001:db8::1]:7420"}, noon)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestToken(t *testing.T) {
	want := newToken(t)
	text := want.Text()
	if strings.ContainsAny(text, " \n\"'$\\") {
		t.Errorf("Text() = %s, which a shell may take apart", text)
	}
	for _, around := range []string{"", "\n", "\r\n", "  "} {
		got, err := ParseToken(around + text + around)
		if err != nil {
			t.Fatal(err)
		}
		if got.ID != want.ID || !slices.Equal(got.Secret, want.Secret) || got.Authority != want.Authority || !slices.Equal(got.Addresses, want.Addresses) || !got.Expires.Equal(want.Expires) {
			t.Errorf("ParseToken(Text()) = %+v, want %+v", got, want)
		}
	}
	if !SecretIs(want.Secret, SecretHash(want.Secret)) || SecretIs(make([]byte, 32), SecretHash(want.Secret)) || SecretIs(nil, "") {
		t.Error("SecretIs is wrong")
	}
}

// TestParseTokenRefuses: what is wrong is said, and the token never.
func TestParseTokenRefuses(t *testing.T) {
	text := newToken(t).Text()
	for name, c := range map[string]struct{ text, want string }{
		"nothing":       {"", "no enrolment token"},
		"another thing": {"hunter2", "no enrolment token"},
		"a newer form":  {strings.Replace(text, "-1:", "-2:", 1), "newer version"},
		"half":          {text[:len(text)/2], "damaged"},
		"too much":      {text + "AAAA", "damaged"},
		"endless":       {tokenPrefix + strings.Repeat("A", MaxToken), "damaged"},
		"no payload":    {tokenPrefix, "damaged"},
		"null":          {tokenPrefix + "bnVsbA", "damaged"},
	} {
		_, err := ParseToken(c.text)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("ParseToken of %s = %v, want %q", name, err, c.want)
			continue
		}
		if len(c.text) > 0 && strings.Contains(err.Error(), c.text) {
			t.Errorf("ParseToken of %s repeats it: %v", name, err)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(newToken(f).Text())
	f.Add(tokenPrefix + "e30")
	f.Fuzz(func(t *testing.T, text string) {
		made, err := ParseToken(text)
		if err != nil {
			return
		}
		again, err := ParseToken(made.Text())
		if err != nil || again.ID != made.ID || again.Authority != made.Authority || !again.Expires.Equal(made.Expires) {
			t.Errorf("ParseToken(%q) = %+v, and of its Text() %+v, %v", text, made, again, err)
		}
	})
}

func FuzzRequestedKey(f *testing.F) {
	k, err := NewKey()
	if err != nil {
		f.Fatal(err)
	}
	der, err := NewRequest(k)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Fuzz(func(t *testing.T, der []byte) {
		if pub, err := RequestedKey(der); err == nil && CheckKey(pub) != nil {
			t.Errorf("RequestedKey(%x) = a key of a kind that is not signed", der)
		}
	})
}

// TestConnect has a host connect to aggregators that are right and wrong, by fingerprint and by known authorities.
func TestConnect(t *testing.T) {
	now := time.Now()
	a, err := Create(t.TempDir()+"/ca", DefaultTrustDomain, Owner{}, now.Add(-48*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	eve, err := Create(t.TempDir()+"/ca", DefaultTrustDomain, Owner{}, now.Add(-48*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	center := Subject{Role: Aggregator, Name: "main", Hosts: []string{"127.0.0.1"}}
	show := func(signer, root *Authority, s Subject, life time.Duration, at time.Time) tls.Certificate {
		t.Helper()
		k := key(t)
		der, err := signer.Sign(k.Public(), s, life, at)
		if err != nil {
			t.Fatal(err)
		}
		c := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k}
		if root != nil {
			c.Certificate = append(c.Certificate, root.cert.Raw)
		}
		return c
	}
	for name, c := range map[string]struct {
		shown         tls.Certificate
		host          string
		pinned, known string // a part of the error
	}{
		"the aggregator":                {show(a, a, center, time.Hour, now), "127.0.0.1", "", ""},
		"an aggregator of another":      {show(eve, eve, center, time.Hour, now), "127.0.0.1", "fingerprint", "not the aggregator of this fleet"},
		"another that shows the root":   {show(eve, a, center, time.Hour, now), "127.0.0.1", "not the aggregator of this fleet", "not the aggregator of this fleet"},
		"one that does not show it":     {show(a, nil, center, time.Hour, now), "127.0.0.1", "fingerprint", ""},
		"an agent in its place":         {show(a, a, Subject{Role: Agent, Name: host, Hosts: []string{"127.0.0.1"}}, time.Hour, now), "127.0.0.1", "not the aggregator of this fleet", "not the aggregator of this fleet"},
		"one of another name":           {show(a, a, center, time.Hour, now), "center.example.org", "httpctl ca init --name", "httpctl ca init --name"},
		"one whose clock is a day back": {show(a, a, center, time.Hour, now.Add(-24*time.Hour)), "127.0.0.1", "set the clocks right", "set the clocks right"},
		"one whose clock is ahead":      {show(a, a, center, time.Hour, now.Add(Skew+time.Minute)), "127.0.0.1", "set the clocks right", "set the clocks right"},
		"one slightly ahead":            {show(a, a, center, time.Hour, now.Add(Skew-time.Minute)), "127.0.0.1", "", ""},
	} {
		for kind, want := range map[string]string{"pinned": c.pinned, "known": c.known} {
			cfg := Pinned(a.Fingerprint(), c.host)
			if kind == "known" {
				cfg = Known(a.Roots(), c.host, tls.Certificate{})
			}
			l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{c.shown}, NextProtos: []string{"h2"}})
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				if conn, err := l.Accept(); err == nil {
					_ = conn.(*tls.Conn).Handshake() // the other end says what came of it
					conn.Close()
				}
			}()
			conn, err := tls.Dial("tcp", l.Addr().String(), cfg)
			if err == nil {
				conn.Close()
			}
			l.Close()
			<-done
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s, %s: %v, want %q", name, kind, err, want)
			}
			if kind == "pinned" && want == "fingerprint" && !errors.Is(err, ErrOtherAuthority) {
				t.Errorf("%s: %v is not ErrOtherAuthority", name, err)
			}
		}
	}
}
