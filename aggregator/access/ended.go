package access

import (
	"context"

	"google.golang.org/grpc/stats"
)

// ended ends the context of a connection, of which those of its calls are made, when the connection ends. gRPC never
// ends that of a call which the tap refuses: with a deadline its timer would stay until then, for 292 years if a
// stranger says so.
type ended struct{}

var _ stats.Handler = ended{}

type endKey struct{}

// TagConn implements stats.Handler.
func (ended) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context {
	ctx, end := context.WithCancel(ctx)
	return context.WithValue(ctx, endKey{}, end)
}

// HandleConn implements stats.Handler.
func (ended) HandleConn(ctx context.Context, s stats.ConnStats) {
	if _, ok := s.(*stats.ConnEnd); !ok {
		return
	}
	if end, ok := ctx.Value(endKey{}).(context.CancelFunc); ok {
		end()
	}
}

// TagRPC implements stats.Handler.
func (ended) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC implements stats.Handler.
func (ended) HandleRPC(context.Context, stats.RPCStats) {}
