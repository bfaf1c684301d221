package client

import (
	"context"
	"encoding/hex"
	"time"

	"github.com/httpctl/httpctl/pkg/answer"
	"github.com/httpctl/httpctl/pkg/view"
	pb "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// NewToken says what an enrolment token is to be good for.
type NewToken struct {
	TTL  time.Duration
	Uses uint32
	// Host is the id of the one host that may use it; nil is any that is not enrolled.
	Host []byte
	// Addresses are where agents reach the aggregator; none: as it is configured.
	Addresses []string
}

// CreateToken makes an enrolment token and returns its text, and where it sends agents.
func (c *Client) CreateToken(ctx context.Context, t NewToken) (text string, info view.Token, addresses []string, err error) {
	a, err := call(ctx, c, pb.NewEnrollServiceClient(c.conn).CreateToken,
		&pb.CreateTokenRequest{TtlNs: int64(t.TTL), Uses: t.Uses, HostId: t.Host, Addresses: t.Addresses})
	if err != nil {
		return "", view.Token{}, nil, err
	}
	return a.GetToken(), tokenInfo(a.GetInfo()), a.GetAddresses(), nil
}

// Tokens asks for the tokens that can be used.
func (c *Client) Tokens(ctx context.Context) ([]view.Token, error) {
	a, err := call(ctx, c, pb.NewEnrollServiceClient(c.conn).ListTokens, &pb.ListTokensRequest{})
	if err != nil {
		return nil, err
	}
	var tokens []view.Token
	for _, t := range a.GetTokens() {
		tokens = append(tokens, tokenInfo(t))
	}
	return tokens, nil
}

// RevokeToken ends a token.
func (c *Client) RevokeToken(ctx context.Context, id string) error {
	_, err := call(ctx, c, pb.NewEnrollServiceClient(c.conn).RevokeToken, &pb.RevokeTokenRequest{Id: id})
	return err
}

func tokenInfo(t *pb.TokenInfo) view.Token {
	return view.Token{
		ID: t.GetId(), Created: answer.Moment(t.GetCreatedUnixNs()), Expires: answer.Moment(t.GetExpiresUnixNs()),
		Uses: t.GetUses(), Left: t.GetUsesLeft(), Host: hex.EncodeToString(t.GetHostId()),
	}
}

// Revocation names whose certificates are revoked: by Who, a host's id or name or ROLE/NAME, or by Identity.
type Revocation struct {
	Who, Identity string
	// Undo accepts them again, instead.
	Undo bool
}

// Revoke has certificates refused, and returns whose, and how many streams and calls that ended.
func (c *Client) Revoke(ctx context.Context, r Revocation) (identity string, ended int, err error) {
	a, err := call(ctx, c, pb.NewEnrollServiceClient(c.conn).Revoke, &pb.RevokeRequest{Who: r.Who, Identity: r.Identity, Undo: r.Undo})
	if err != nil {
		return "", 0, err
	}
	return a.GetIdentity(), int(a.GetEnded()), nil
}

// Certificates asks for the hosts that have enrolled, and what is revoked.
func (c *Client) Certificates(ctx context.Context) ([]view.Certificate, error) {
	a, err := call(ctx, c, pb.NewEnrollServiceClient(c.conn).ListCertificates, &pb.ListCertificatesRequest{})
	if err != nil {
		return nil, err
	}
	var all []view.Certificate
	for _, i := range a.GetCertificates() {
		all = append(all, view.Certificate{
			Identity: i.GetIdentity(), Host: i.GetHostName(), Enrolled: answer.Moment(i.GetEnrolledUnixNs()),
			Until: answer.Moment(i.GetUntilUnixNs()), Revoked: answer.Moment(i.GetRevokedUnixNs()),
		})
	}
	return all, nil
}
