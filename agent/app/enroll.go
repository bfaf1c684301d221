package app

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/httpctl/httpctl/agent/enroll"
	"github.com/httpctl/httpctl/agent/spool"
	"github.com/httpctl/httpctl/agent/uplink"
	"github.com/httpctl/httpctl/pkg/authority"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/daemon"
	"github.com/httpctl/httpctl/pkg/security"
	"github.com/httpctl/httpctl/pkg/telemetry"
)

// enrolled chooses what is not given from the host's enrolment, if it has one: where the aggregator is, and with
// which certificate to go there. It returns the keys it chose.
func (c *Config) enrolled(given func(key string) bool) (keys []string) {
	before, files := c.chosen, enroll.In(c.State)
	c.chosen = uplink.Config{}
	if c.State != "" && files.Exist() {
		c.chosen = uplink.Config{Aggregator: files.Aggregator(), TLS: files.TLS()}
	}
	why := func(key string) {
		keys = append(keys, key)
		c.reasons[key] = "this host is enrolled"
	}
	// What was chosen before, from another state directory, goes.
	if !given("aggregator") && before.Aggregator != "" && c.Aggregator == before.Aggregator {
		c.Aggregator = uplink.DefaultConfig().Aggregator
	}
	if !given("aggregator") && c.chosen.Aggregator != "" && c.Aggregator == uplink.DefaultConfig().Aggregator {
		c.Aggregator = c.chosen.Aggregator
		why("aggregator")
	}
	name := c.TLS.ServerName // which may be given by itself
	c.TLS.ServerName = ""
	if !given("tls.cert_file") && !given("tls.key_file") && !given("tls.ca_file") && (c.TLS.IsZero() || c.TLS == before.TLS) {
		if c.TLS = c.chosen.TLS; !c.TLS.IsZero() {
			for _, key := range []string{"tls.cert_file", "tls.key_file", "tls.ca_file"} {
				why(key)
			}
		}
	}
	c.TLS.ServerName = name
	return keys
}

// startRenewal has the host's certificate renewed, if it was enrolled and uses that.
func (a *Agent) startRenewal(registry prometheus.Registerer) {
	files := enroll.In(a.cfg.State)
	r := enroll.NewRenewer(files, a.spool.Host(), enroll.Deps{
		Aggregator: a.cfg.Aggregator, ServerName: a.cfg.TLS.ServerName, Dial: uplink.Announcing(a.connecting),
		Version: telemetry.Version(), Log: a.log, Registry: registry,
	})
	if network, _, err := security.SplitAddress(a.cfg.Aggregator); err != nil || network != "tcp" || !files.Are(a.cfg.TLS) {
		return
	}
	a.group.Go("renew the certificate", r.Run)
}

// enrollHelp is the help of `httpctl-agent enroll`.
func enrollHelp() daemon.Help {
	return daemon.Help{
		Name:  "httpctl-agent enroll",
		Short: "let this host into a fleet",
		Long: `Lets this host into a fleet: makes a key, which never leaves the host, and gets a certificate for it
from the aggregator that the token names. Both are kept in the agent's state directory, and the agent
uses them from its next start on. The token comes from httpctl enroll create.`,
		Example: `sudo httpctl-agent enroll --token-file web1.token
ssh center.example.org sudo httpctl enroll create | sudo httpctl-agent enroll --token-file -`,
		Usage: []string{"httpctl-agent enroll --token-file FILE [flags]"},
		Flags: []daemon.Entry{
			{Name: "--token-file FILE", Text: "the file with the token; - is standard input"},
			{Name: "--state DIR", Text: "the agent's state directory"},
			{Name: "--config FILE", Text: "the agent's configuration, which names it (agent.state)"},
			{Name: "--again", Text: "also if this host is enrolled with the token's authority already"},
		},
		End: "Exit codes: 0 it is enrolled, 1 it is not, 2 wrong usage.",
	}
}

// enrollWait bounds one enrolment.
const enrollWait = 2 * time.Minute

// enrollCommand is `httpctl-agent enroll`.
func enrollCommand(ctx context.Context, args, env []string, stdout, stderr io.Writer) int {
	failed := func(code int, err error) int {
		fmt.Fprintf(stderr, "httpctl-agent enroll: %v\n", err)
		return code
	}
	flags := daemon.Quiet("httpctl-agent enroll")
	tokenFile := flags.String("token-file", "", "")
	state := flags.String("state", "", "")
	path := flags.String("config", "", "")
	again := flags.Bool("again", false, "")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		enrollHelp().Write(stdout)
		return 0
	case err != nil:
		return failed(2, fmt.Errorf("%w\nSee httpctl-agent enroll --help", daemon.FlagError(flags, err)))
	case flags.NArg() > 0: // not repeated: it may be a token
		return failed(2, errors.New("it takes no arguments: the token is read from the file of --token-file, so that it is in no list of processes"))
	case *tokenFile == "":
		return failed(2, errors.New("--token-file is missing: the file with the token, or - for standard input"))
	}
	cfg := DefaultConfig()
	f, err := config.Load(*path, env, config.Section{Name: "agent", Into: &cfg})
	if err == nil && *state != "" {
		err = f.Set("agent.state", *state, "flag --state")
	}
	if err == nil && cfg.State == "" {
		err = errors.New("no state directory is known: name it with --state")
	}
	if err != nil {
		return failed(2, err)
	}
	token, err := readToken(*tokenFile)
	if err != nil {
		return failed(2, err)
	}
	ctx, cancel := context.WithTimeout(ctx, enrollWait)
	defer cancel()
	r, err := enrollHost(ctx, cfg, token, *again)
	if err != nil {
		return failed(1, err)
	}
	said := "enrolled"
	if r.Already {
		said = "enrolled already"
	}
	fmt.Fprintf(stdout, "%s as %s, with the aggregator at %s, until %s; the agent renews it\n", said,
		security.CleanText(r.Identity), security.CleanText(r.Aggregator), r.Until.UTC().Format(time.RFC3339))
	return 0
}

// readToken reads a token from a file, "-" being standard input.
func readToken(path string) (t authority.Token, err error) {
	in, name := os.Stdin, "standard input"
	if path != "-" {
		name = path
		if in, err = os.Open(path); err != nil {
			return t, fmt.Errorf("read the token: %w", err)
		}
		defer in.Close()
		if fi, err := in.Stat(); err == nil && fi.IsDir() {
			return t, fmt.Errorf("read the token: %s is a directory", path)
		}
	}
	text, err := io.ReadAll(io.LimitReader(in, authority.MaxToken+1024))
	if err == nil && strings.TrimSpace(string(text)) == "" {
		err = errors.New("it is empty")
	}
	if err == nil {
		t, err = authority.ParseToken(string(text))
	}
	if err != nil {
		return t, fmt.Errorf("read the token from %s: %w", name, err)
	}
	return t, nil
}

// enrollHost enrols the host whose state directory the settings name.
func enrollHost(ctx context.Context, cfg Config, token authority.Token, again bool) (*enroll.Result, error) {
	files := enroll.In(cfg.State)
	already := files.Already(token)
	if already != nil && !again && time.Now().Before(already.Until) {
		return already, nil
	}
	if err := os.MkdirAll(cfg.State, 0o700); err != nil {
		if errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("%w; run it as root or as the agent's user", err)
		}
		return nil, fmt.Errorf("make the state directory: %w", err)
	}
	owner := authority.OwnerOf(cfg.State)
	id, err := spool.HostID(cfg.State, owner.Give)
	if err != nil {
		return nil, err
	}
	r, err := files.Enroll(ctx, token, enroll.Host{ID: id, Name: cfg.HostName, Version: telemetry.Version()}, owner)
	if already != nil && !again && enroll.Taken(err) {
		return already, nil // it has ended, and can still be renewed
	}
	return r, err
}
