package push

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/httpctl/httpctl/aggregator/export"
)

// maxAnswer bounds what is read of an answer.
const maxAnswer = 4 << 10

func newSender(cfg export.Receiver, deps Deps) (sender, error) {
	to, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, err
	}
	c := &secrets{cfg: cfg}
	if _, _, err := c.tls(); err != nil {
		return nil, err
	}
	if _, err := c.authorization(); err != nil {
		return nil, err
	}
	switch to.Scheme {
	case "grpc", "grpcs":
		return &grpcSender{to: to, secrets: c, agent: "httpctl/" + deps.Version}, nil
	}
	s := &httpSender{to: to.String(), secrets: c, otlp: deps.To == export.ToOTLP, agent: "httpctl/" + deps.Version}
	if s.otlp && strings.Trim(to.Path, "/") == "" {
		s.to = to.JoinPath("v1", "metrics").String() // as OpenTelemetry's exporters complete an address
	}
	return s, nil
}

// secrets are read from their files whenever they are used, so that renewed ones need no restart.
type secrets struct {
	cfg export.Receiver

	mu    sync.Mutex
	read  string // of the file of authorities
	roots *tls.Config
	shown []string // what a receiver was shown last, as it is and as it was sent
}

// authorization is the value of the header of that name; "" is none.
func (c *secrets) authorization() (string, error) {
	secret := func(key, path string) (string, error) {
		text, err := os.ReadFile(path)
		if err != nil {
			return "", fmt.Errorf("%s: %w", key, err)
		}
		value := strings.TrimSpace(string(text))
		c.remember(value)
		if value == "" || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return "", fmt.Errorf("%s: %s is empty, or has more than one line", key, path)
		}
		return value, nil
	}
	switch {
	case c.cfg.BearerTokenFile != "":
		token, err := secret("bearer_token_file", c.cfg.BearerTokenFile)
		if err != nil {
			return "", err
		}
		return "Bearer " + token, nil
	case c.cfg.Username != "":
		password, err := secret("password_file", c.cfg.PasswordFile)
		if err != nil {
			return "", err
		}
		both := base64.StdEncoding.EncodeToString([]byte(c.cfg.Username + ":" + password))
		c.remember(both)
		return "Basic " + both, nil
	}
	return "", nil
}

// remember is told of each secret, and keeps the newest two, which are one as it is and as it was sent.
func (c *secrets) remember(secret string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if secret != "" && !slices.Contains(c.shown, secret) {
		c.shown = append(c.shown[max(0, len(c.shown)-1):], secret)
	}
}

// hide takes secrets out of a text: a receiver may say in an answer what it was asked with.
func (c *secrets) hide(text string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, secret := range c.shown {
		text = strings.ReplaceAll(text, secret, "(hidden)")
	}
	return text
}

// tls returns the configuration of TLS, and whether it is another than the last time. Without ca_file the authorities are those
// of the system.
func (c *secrets) tls() (cfg *tls.Config, changed bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var text string
	if c.cfg.CAFile != "" {
		b, err := os.ReadFile(c.cfg.CAFile)
		if err != nil {
			return nil, false, fmt.Errorf("ca_file: %w", err)
		}
		text = string(b)
	}
	if c.roots != nil && text == c.read {
		return c.roots, false, nil
	}
	roots := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.cfg.CAFile != "" {
		roots.RootCAs = x509.NewCertPool()
		if !roots.RootCAs.AppendCertsFromPEM([]byte(text)) {
			return nil, false, fmt.Errorf("ca_file: no certificate in PEM in %s", c.cfg.CAFile)
		}
	}
	c.roots, c.read = roots, text
	return roots, true, nil
}

// httpSender posts to remote write, or to OTLP over HTTP.
type httpSender struct {
	to      string
	secrets *secrets
	otlp    bool
	agent   string
	client  *http.Client
}

func (s *httpSender) send(ctx context.Context, body []byte) (refused int, why string, err error) {
	cfg, changed, err := s.secrets.tls()
	if err != nil {
		return 0, "", err
	}
	if changed || s.client == nil {
		s.close()
		s.client = &http.Client{
			Transport: &http.Transport{TLSClientConfig: cfg, Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 1, MaxResponseHeaderBytes: 64 << 10, IdleConnTimeout: 5 * time.Minute},
			// Credentials are for the address that is configured.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	authorization, err := s.secrets.authorization()
	if err != nil {
		return 0, "", err
	}
	if s.otlp {
		body = zip(body)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.to, bytes.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	h := request.Header
	h.Set("Content-Type", "application/x-protobuf")
	h.Set("User-Agent", s.agent)
	if authorization != "" {
		h.Set("Authorization", authorization)
	}
	if s.otlp {
		h.Set("Content-Encoding", "gzip")
	} else {
		h.Set("Content-Encoding", "snappy")
		h.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	}
	response, err := s.client.Do(request)
	if of, ok := errors.AsType[*url.Error](err); ok {
		err = of.Err // without the address, whose query may have a key
	}
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return 0, "", err
	}
	if response.StatusCode/100 == 2 {
		if s.otlp {
			refused, why = partialSuccess(answer)
		}
		return refused, why, nil
	}
	text := strings.TrimSpace(string(answer))
	if s.otlp {
		text = statusMessage(answer)
	}
	return 0, "", &failure{err: fmt.Errorf("it answers %s: %s", response.Status, text), final: !again(response.StatusCode, s.otlp), after: retryAfter(response)}
}

// again reports whether a request may be sent again after a status. Remote write has it so for all of 5xx, OTLP for three
// of them; what is wrong with credentials and addresses an operator mends, and counters lose nothing by waiting.
func again(status int, otlp bool) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusRequestTimeout, http.StatusTooManyRequests,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return status/100 == 3 || status/100 == 5 && !otlp
}

// retryAfter is how long a receiver asks to wait, in seconds as almost all write it.
func retryAfter(r *http.Response) time.Duration {
	n, err := strconv.Atoi(r.Header.Get("Retry-After"))
	if err != nil || n < 0 || n > 1e6 {
		return 0
	}
	return time.Duration(n) * time.Second
}

func (s *httpSender) hide(text string) string { return s.secrets.hide(text) }

func (s *httpSender) close() {
	if s.client != nil {
		s.client.CloseIdleConnections()
	}
}

func zip(body []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b) // a Buffer never fails
	_, _ = w.Write(body)
	_ = w.Close()
	return b.Bytes()
}
