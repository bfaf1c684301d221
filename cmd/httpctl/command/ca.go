package command

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/httpctl/httpctl/pkg/authority"
	"github.com/httpctl/httpctl/pkg/config"
)

func newCACommand(w *world) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "Make or replace the authority of a fleet, and make certificates for readers",
		Long: `Make or replace the authority of a fleet, and make certificates for readers. All work on the files
of the authority, on the aggregator's host and as its user or root; the aggregator need
not run.`,
		Example: `  sudo httpctl ca init --name center.example.org,192.0.2.1
  sudo httpctl ca issue --role viewer alice -o alice`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error { return usagef("ca needs a command: init, issue or rotate") },
	}
	cmd.AddCommand(newCAInitCommand(w), newCAIssueCommand(w), newCARotateCommand(w))
	return cmd
}

// addData adds the flag that names the aggregator's data directory. Without it the environment names that, as it does
// for the aggregator: in its container, for instance.
func addData(w *world, cmd *cobra.Command, data *string) {
	dir := w.getenv(config.EnvPrefix + "AGGREGATOR_DATA")
	if dir == "" {
		dir = config.DataDir(w.uid, w.getenv)
	}
	cmd.Flags().StringVar(data, "data", dir, "data `DIR` of the aggregator (its setting aggregator.data)")
}

func newCAInitCommand(w *world) *cobra.Command {
	var data, domain string
	var names []string
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make the authority of a fleet in the aggregator's data directory",
		Long: `Make the authority of a fleet in the aggregator's data directory. An aggregator that
is started afterwards serves mutual TLS on every TCP address, with certificates that it makes
itself. Where there is an authority already it is kept, and only
the names change that the aggregator is reached by; it takes them over without a restart.`,
		Example: `  sudo httpctl ca init --name center.example.org,192.0.2.1
  sudo httpctl ca init --data /srv/httpctl --name center.example.org`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			if data == "" {
				return usagef("--data is missing: there is no home directory to choose one in")
			}
			names, err := aggregatorNames(names)
			if err != nil {
				return err
			}
			return initAuthority(w, data, domain, names)
		},
	}
	addData(w, cmd, &data)
	cmd.Flags().StringSliceVar(&names, "name", nil, "host `NAME`s and addresses by which agents and readers reach the aggregator; several times, or with commas (default: this host's name and addresses)")
	cmd.Flags().StringVar(&domain, "trust-domain", authority.DefaultTrustDomain, "trust `DOMAIN`, the first part of every identity: spiffe://DOMAIN/agent/HOSTID")
	return cmd
}

// aggregatorNames checks the names of --name, or finds those of this host.
func aggregatorNames(names []string) ([]string, error) {
	for i, n := range names {
		n = strings.TrimSpace(n)
		if strings.HasPrefix(n, "[") && strings.HasSuffix(n, "]") { // an IPv6 address as in a URL
			n = n[1 : len(n)-1]
		}
		if err := authority.CheckHost(n); err != nil {
			if host, _, e := net.SplitHostPort(n); e == nil {
				return nil, usagef("--name %s: want it without a port: %s", n, host)
			}
			return nil, usagef("--name %s", err)
		}
		names[i] = n
	}
	if len(names) > 0 {
		return names, nil
	}
	if name, err := os.Hostname(); err == nil && authority.CheckHost(name) == nil {
		names = append(names, name)
	}
	addresses, _ := net.InterfaceAddrs()
	for _, a := range addresses {
		if ip, _, err := net.ParseCIDR(a.String()); err == nil && ip.IsGlobalUnicast() && !slices.Contains(names, ip.String()) {
			names = append(names, ip.String())
		}
	}
	if len(names) == 0 {
		return nil, usagef("--name is missing: this host has no name and no address")
	}
	return names, nil
}

func initAuthority(w *world, data, domain string, names []string) error {
	if err := os.MkdirAll(data, 0o750); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	owner := authority.OwnerOf(data)
	dir := authority.Dir(data)
	a, err := authority.Create(dir, domain, owner, w.now())
	made := err == nil
	if errors.Is(err, authority.ErrExists) {
		a, err = authority.Open(dir)
	}
	if err == nil {
		err = authority.WriteNames(dir, names, owner)
	}
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("%w; run it as root or as the aggregator's user", err)
		}
		return err
	}
	first := "This fleet has its authority already, in " + dir + "; the aggregator's names are now these."
	if made {
		first = "The authority of this fleet is made, in " + dir + "."
	}
	fmt.Fprintf(w.out, `%s
  fingerprint  %s
  identities   spiffe://%s/...
  aggregator   %s
  until        %s
`, first, a.Fingerprint(), a.TrustDomain(), strings.Join(names, ", "), a.Certificate().NotAfter.UTC().Format(time.DateOnly))
	if !made {
		return nil
	}
	_, err = fmt.Fprintf(w.out, `Who has ca.key can be anyone in the fleet: back it up where nobody else reads it.
Next: set aggregator.listen to an address that the agents reach, and start the aggregator again.
`)
	return err
}

// defaultIssued is how long certificates of people are valid.
const defaultIssued = 30 * 24 * time.Hour

func newCAIssueCommand(w *world) *cobra.Command {
	var data, role, out, ttl string
	cmd := &cobra.Command{
		Use:   "issue NAME",
		Short: "Make a key and a certificate, for httpctl on another host",
		Long: `Make a key and a certificate, for httpctl on another host: a viewer may read, an admin may
also change. With --role agent, NAME is the host id of an agent that cannot get its own.
The files NAME.pem, NAME.key and ca.pem are made in the directory -o. With -o - all three are
printed as one: out of a container, for instance, or to openssl. Such a file does for --tls-ca,
--tls-cert and --tls-key.`,
		Example: `  sudo httpctl ca issue --role viewer alice -o alice
  httpctl dashboard --aggregator center.example.org:7420 \
      --tls-ca alice/ca.pem --tls-cert alice/alice.pem --tls-key alice/alice.key`,
		Args: arguments(1, 1, "one name"),
		RunE: func(_ *cobra.Command, args []string) error {
			life, err := config.ParseDuration(ttl)
			if err != nil || life < time.Minute {
				return usagef("--ttl %s: want at least 1m, such as 12h or 30d", ttl)
			}
			if role != string(authority.Viewer) && role != string(authority.Admin) && role != string(authority.Agent) {
				return usagef("--role %s: want viewer, admin or agent", role)
			}
			return issue(w, data, authority.Subject{Role: authority.Role(role), Name: args[0]}, out, life)
		},
	}
	addData(w, cmd, &data)
	f := cmd.Flags()
	f.StringVar(&role, "role", string(authority.Viewer), "`ROLE`: viewer, admin or agent")
	f.StringVarP(&out, "out", "o", ".", "`DIR` for the files, made if it is not there; - prints them as one")
	f.StringVar(&ttl, "ttl", config.FormatDuration(defaultIssued), "`TIME` for which it is valid")
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"viewer", "admin", "agent"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func issue(w *world, data string, s authority.Subject, out string, life time.Duration) error {
	if err := authority.CheckName(s.Name); err != nil {
		return usageError{err.Error()}
	}
	dir := authority.Dir(data)
	a, err := authority.Open(dir)
	if err != nil {
		return authorityMissing(err)
	}
	key, err := authority.NewKey()
	if err != nil {
		return err
	}
	der, err := a.Sign(key.Public(), s, life, w.now())
	if err != nil {
		return err
	}
	pair, err := authority.EncodePair(key)
	if err != nil {
		return err
	}
	until := w.now().Add(life)
	if end := a.Certificate().NotAfter; until.After(end) {
		until = end
	}
	said := fmt.Sprintf("spiffe://%s/%s/%s, until %s\n", a.TrustDomain(), s.Role, s.Name, until.UTC().Format(time.RFC3339))
	if out == "-" {
		// The certificate comes before that of the authority: what reads a pair takes the first.
		if _, err := w.out.Write(slices.Concat(pair, authority.EncodeCertificate(der), a.PEM())); err != nil {
			return err
		}
		_, err = fmt.Fprint(w.err, said) // not to standard output, where the key is
		return err
	}
	if err := os.MkdirAll(out, 0o700); err != nil {
		return err
	}
	owner := authority.OwnerOf(out)
	base := filepath.Join(out, s.Name)
	for _, f := range []struct {
		path string
		data []byte
		mode fs.FileMode
	}{
		{base + ".key", pair, 0o600},
		{base + ".pem", authority.EncodeCertificate(der), 0o644},
		{filepath.Join(out, "ca.pem"), a.PEM(), 0o644},
	} {
		if err := authority.WriteFile(f.path, f.data, f.mode, owner); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(w.out, "%s  --tls-ca %s --tls-cert %s.pem --tls-key %s.key\n", said, filepath.Join(out, "ca.pem"), base, base)
	return err
}

// authorityMissing says what to do where there is no authority.
func authorityMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w; httpctl ca init makes one, --data says where the aggregator keeps it", err)
	}
	return err
}
