package app

import (
	"context"
	"net"
	"time"

	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/telemetry"
)

// knockWait is how long the program's own socket may take to accept a connection. It is on this host.
const knockWait = time.Second

// live says whether the aggregator's loops go round.
func (a *App) live() []telemetry.Condition {
	return []telemetry.Condition{
		{Name: "store", Err: a.ingest.Progress()},
		{Name: "judge", Err: a.judge.get().Progress()},
	}
}

// ready says whether buckets can be stored and callers are let in. That judging fails is no reason
// to keep agents away; readers are told, see warnings.
func (a *App) ready(ctx context.Context, data string) []telemetry.Condition {
	_, failure := a.ingest.StoreFailure()
	return []telemetry.Condition{{Name: "store", Err: failure}, {Name: "listen", Err: knock(ctx, config.SocketPath(data))}}
}

// knock connects to the aggregator's socket, which somebody may have removed.
func knock(ctx context.Context, socket string) error {
	dialer := net.Dialer{Timeout: knockWait}
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	return conn.Close()
}
