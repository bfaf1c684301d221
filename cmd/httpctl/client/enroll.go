package client

import (
	"context"
	"encoding/hex"
	"time"

	"github.com/httpctl/httpctl/cmd/httpctl/view"
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
		ID: t.GetId(), Created: moment(t.GetCreatedUnixNs()), Expires: moment(t.GetExpiresUnixNs()),
		Uses: t.GetUses(), Left: t.GetUsesLeft(), Host: hex.EncodeToString(t.GetHostId()),
	}
}
