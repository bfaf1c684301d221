package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/httpctl/httpctl/aggregator/enroll"
	"github.com/httpctl/httpctl/aggregator/store/bolt"
	"github.com/httpctl/httpctl/pkg/authority"
	"github.com/httpctl/httpctl/pkg/boltfile"
	"github.com/httpctl/httpctl/pkg/config"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// backup is `store backup`.
func (c *storeCall) backup() int {
	if c.output == "-" {
		n, err := c.writeBackup(c.stdout)
		if err != nil {
			return c.failed(err)
		}
		fmt.Fprintf(c.stderr, "httpctl-aggregator store: %d bytes written\n", n)
		return storeDone
	}
	// Under another name, so that a file of the wanted name is always whole.
	part := c.output + ".part"
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return c.failed(err)
	}
	_, err = c.writeBackup(f)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		_ = os.Remove(part)
		return c.failed(err)
	}
	r, err := bolt.CheckBackup(c.ctx, part, c.checkOptions())
	if err == nil {
		err = os.Rename(part, c.output)
	}
	if err == nil {
		err = boltfile.SyncDir(filepath.Dir(c.output))
	}
	if err != nil {
		return c.failed(err)
	}
	r.Path = c.output
	c.report(r)
	if r.Damages > 0 {
		fmt.Fprintln(c.stderr, "httpctl-aggregator store: the backup is as damaged as the database is")
		return storeFailed
	}
	return storeDone
}

// writeBackup has the running aggregator write a backup, or reads the file if none runs.
func (c *storeCall) writeBackup(w io.Writer) (int64, error) {
	socket := config.SocketPath(c.data)
	dialer := net.Dialer{Timeout: knockWait}
	conn, err := dialer.DialContext(c.ctx, "unix", socket)
	switch {
	case err == nil:
		_ = conn.Close()
		return receiveBackup(c.ctx, socket, w)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return bolt.BackupFile(c.ctx, c.path, w)
	}
	return 0, fmt.Errorf("reach the aggregator: %w", err)
}

// receiveBackup gets a backup from the aggregator at a socket.
func receiveBackup(ctx context.Context, socket string, w io.Writer) (n int64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	stream, err := httpctlv1.NewAdminServiceClient(conn).Backup(ctx, &httpctlv1.BackupRequest{})
	if err != nil {
		return 0, fmt.Errorf("ask the aggregator for a backup: %w", err)
	}
	for {
		piece, err := stream.Recv()
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, fmt.Errorf("the aggregator stopped the backup after %d bytes: %w", n, err)
		}
		k, err := w.Write(piece.GetData())
		n += int64(k)
		if err != nil {
			return n, err
		}
	}
}

// restore is `store restore`.
func (c *storeCall) restore() int {
	from := io.Reader(os.Stdin)
	if c.files[0] != "-" {
		f, err := os.Open(c.files[0])
		if err != nil {
			return c.failed(err)
		}
		defer f.Close()
		from = f
	}
	r, err := bolt.Restore(c.ctx, c.path, from, bolt.RestoreOptions{CheckOptions: c.checkOptions(), Force: c.force,
		Carry: enroll.Carry, CarryPrefix: enroll.StatePrefix})
	if err != nil {
		return c.failed(err)
	}
	when := func(ns int64) string { return time.Unix(0, ns).UTC().Format(time.RFC3339) }
	made := "a copy of a database"
	if !r.Made.IsZero() {
		made = "a backup made at " + r.Made.UTC().Format(time.RFC3339)
	}
	fmt.Fprintf(c.stdout, "%s: restored from %s, %d intervals of %d hosts\n", c.path, made, r.Report.Intervals, r.Report.Hosts)
	if r.Aside != "" {
		fmt.Fprintf(c.stdout, "the database that was there is kept: %s\n", r.Aside)
	}
	newest := "it has nothing"
	if r.Report.NewestEnd != 0 {
		newest = "it ends at " + when(r.Report.NewestEnd)
	}
	switch {
	case r.OldNewest > r.Report.NewestEnd:
		fmt.Fprintf(c.stdout, "%s, the one before at %s: what agents delivered of that time is gone, and shows as not covered\n", newest, when(r.OldNewest))
	case r.OldNewest == 0:
		fmt.Fprintf(c.stdout, "%s: what agents had delivered of the time since is gone, and shows as not covered\n", newest)
	}
	switch {
	case !authority.Exists(authority.Dir(filepath.Dir(c.path))):
	case r.Carried:
		fmt.Fprint(c.stdout, "who is revoked, and which tokens can be used, is as the database that was there had it\n")
	default:
		fmt.Fprint(c.stdout, "no database that can be read was there: who was revoked since the backup, and which tokens were used, is forgotten: revoke them again (httpctl revoke, httpctl enroll list)\n")
	}
	return storeDone
}
