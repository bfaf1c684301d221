package command

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/httpctl/httpctl/cmd/httpctl/client"
	"github.com/httpctl/httpctl/pkg/authority"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/view"
)

func newEnrollCommand(w *world) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "enroll",
		Short: "Make tokens with which hosts come into the fleet",
		Long: `Make tokens with which hosts come into the fleet. The aggregator needs an authority
of its own (httpctl ca init); on the host, httpctl-agent enroll takes the token.`,
		Example: `  sudo httpctl enroll create --ttl 1h --uses 1 -o web1.token
  sudo httpctl enroll list
  sudo httpctl enroll revoke 3f9a01b2c4d5`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			return usagef("enroll needs a command: create, list, revoke or hosts")
		},
	}
	cmd.AddCommand(newEnrollCreateCommand(w), newEnrollListCommand(w), newEnrollRevokeCommand(w), newEnrollHostsCommand(w))
	return cmd
}

func newEnrollCreateCommand(w *world) *cobra.Command {
	r := &reading{w: w}
	var ttl, host, out string
	var uses uint32
	var addresses []string
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make an enrolment token",
		Long: `Make an enrolment token: one line that names the aggregator, by its addresses and the
fingerprint of its authority, and says that its bearer may enrol. Without -o it is printed.
It is told once, and not kept: only a hash of it is.

A token enrols hosts that are not enrolled. One with --host is for a host that is, and
has lost its certificate.`,
		Example: `  sudo httpctl enroll create --ttl 1h --uses 1 -o web1.token
  sudo httpctl enroll create --ttl 30m --uses 500 | ssh admin@deploy.example.org 'cat > fleet.token'
  sudo httpctl enroll create --host 6fd7f59e1f0c4f1a9d3b2c4d5e6f7081 -o web7.token`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			life, err := config.ParseDuration(ttl)
			if err != nil {
				return usagef("--ttl %s: want a time such as 30m, 1h or 7d", ttl)
			}
			t := client.NewToken{TTL: life, Uses: uses, Addresses: addresses}
			if host != "" {
				if t.Host, err = hex.DecodeString(host); err != nil || len(t.Host) != 16 {
					return usagef("--host %s: want a host id, 32 hexadecimal digits (httpctl hosts -o wide)", host)
				}
			}
			for _, a := range addresses {
				if h, p, err := net.SplitHostPort(a); err != nil || h == "" || p == "" {
					return usagef("--address %s: want host:port", a)
				}
			}
			if out != "" { // before a token is made that would be lost
				if err := writable(out); err != nil {
					return fmt.Errorf("-o: %w", err)
				}
			}
			c, err := r.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			return createToken(cmd.Context(), w, c, t, out)
		},
	}
	r.addConnection(cmd)
	f := cmd.Flags()
	f.StringVar(&ttl, "ttl", "1h", "`TIME` in which it can be used")
	f.Uint32Var(&uses, "uses", 1, "`N` hosts may enrol with it")
	f.StringVar(&host, "host", "", "for this host only, by its `ID`, and although it is enrolled")
	f.StringSliceVar(&addresses, "address", nil, "where agents reach the aggregator, `HOST:PORT`; several times, or with commas (default: its names and the port on which it listens)")
	f.StringVarP(&out, "out", "o", "", "write it into `FILE`, which only this user may read, instead of printing it")
	return cmd
}

// writable says whether a file can be made at path, where there must be none.
func writable(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already; remove it or choose another name", path)
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(path))
}

func createToken(ctx context.Context, w *world, c *client.Client, t client.NewToken, out string) error {
	text, info, addresses, err := c.CreateToken(ctx, t)
	if err != nil {
		return err
	}
	if out == "" {
		if _, err := fmt.Fprintln(w.out, text); err != nil {
			return err
		}
	} else if err := authority.WriteFile(out, []byte(text+"\n"), 0o600, authority.Owner{}); err != nil {
		return err
	}
	where := "--token-file FILE"
	if out != "" {
		where = "--token-file " + out
	}
	uses := "1 use"
	if info.Uses > 1 {
		uses = fmt.Sprintf("%d uses", info.Uses)
	}
	// Not to standard output, where the token is.
	_, err = fmt.Fprintf(w.err, "Token %s, %s, until %s, for the aggregator at %s.\nOn the host, in a file that only root may read: httpctl-agent enroll %s\n",
		info.ID, uses, info.Expires.In(w.location).Format(time.DateTime), view.Clean(strings.Join(addresses, ", ")), where)
	return err
}

func newEnrollListCommand(w *world) *cobra.Command {
	r := &reading{w: w}
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the tokens that can be used",
		Example: "  sudo httpctl enroll list -o json",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return r.list(cmd.Context(), func(ctx context.Context, c *client.Client, _ client.Question, f view.Format) error {
				tokens, err := c.Tokens(ctx)
				if err != nil {
					return err
				}
				return view.WriteTokens(r.out, f, r.style(), tokens)
			})
		},
	}
	r.addConnection(cmd)
	r.addList(cmd)
	return cmd
}

func newEnrollRevokeCommand(w *world) *cobra.Command {
	r := &reading{w: w}
	cmd := &cobra.Command{
		Use:     "revoke TOKEN",
		Short:   "End a token, by its id",
		Long:    "End a token, by its id. Hosts that have enrolled with it stay: httpctl revoke ends those.",
		Example: "  sudo httpctl enroll revoke 3f9a01b2c4d5",
		Args:    arguments(1, 1, "the id of one token"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !authority.IsTokenID(args[0]) { // not repeated: it may be the token itself
				return usagef("that is no id of a token: httpctl enroll list names them")
			}
			c, err := r.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.RevokeToken(cmd.Context(), args[0]); err != nil {
				return err
			}
			_, err = fmt.Fprintf(w.out, "Token %s cannot be used any more.\n", args[0])
			return err
		},
	}
	r.addConnection(cmd)
	return cmd
}

func newEnrollHostsCommand(w *world) *cobra.Command {
	r := &reading{w: w}
	cmd := &cobra.Command{
		Use:     "hosts",
		Short:   "List the hosts that have enrolled, and what is revoked",
		Example: "  sudo httpctl enroll hosts",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return r.list(cmd.Context(), func(ctx context.Context, c *client.Client, _ client.Question, f view.Format) error {
				all, err := c.Certificates(ctx)
				if err != nil {
					return err
				}
				return view.WriteCertificates(r.out, f, r.style(), all)
			})
		},
	}
	r.addConnection(cmd)
	r.addList(cmd)
	return cmd
}

func newRevokeCommand(w *world) *cobra.Command {
	r := &reading{w: w}
	var q client.Revocation
	cmd := &cobra.Command{
		Use:   "revoke HOST|ROLE/NAME",
		Short: "Refuse a certificate from now on, and end what is open with it",
		Long: `Refuse the certificates of a host, a reader, or an identity from now on, and end what is open
with them. The host is named by its id or name; others of the aggregator's own authority as
viewer/NAME or admin/NAME; certificates of another authority by --identity, what is in
them: the first URI, else the first DNS name, else the common name.

A host is let in again by a token of its own: httpctl enroll create --host ID. Its old
certificates stay refused. --undo accepts all of them again.`,
		Example: `  sudo httpctl revoke web7
  sudo httpctl revoke viewer/alice
  sudo httpctl revoke --identity web7.example.org
  sudo httpctl revoke --undo web7`,
		Args: arguments(0, 1, "one host, or ROLE/NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				q.Who = args[0]
			}
			if (q.Who == "") == (q.Identity == "") {
				return usagef("revoke needs a host or ROLE/NAME, or --identity")
			}
			c, err := r.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			identity, ended, err := c.Revoke(cmd.Context(), q)
			if err != nil {
				return err
			}
			text := fmt.Sprintf("%s is revoked; %d open streams and calls were ended.\n", view.Clean(identity), ended)
			if q.Undo {
				text = fmt.Sprintf("%s is accepted again.\n", view.Clean(identity))
			}
			_, err = fmt.Fprint(w.out, text)
			return err
		},
	}
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return r.proposals(cmd, hostNames), cobra.ShellCompDirectiveNoFileComp
	}
	r.addConnection(cmd)
	cmd.Flags().StringVar(&q.Identity, "identity", "", "the `NAME` in a certificate, in place of a host")
	cmd.Flags().BoolVar(&q.Undo, "undo", false, "accept the certificates again, instead")
	return cmd
}
