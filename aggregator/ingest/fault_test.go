package ingest

import (
	"testing"

	"github.com/httpctl/httpctl/pkg/bucket"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// TestFaultCostsItsBucket: a fault of this program with a bucket has that one refused; one with what was stored costs nobody his bucket.
func TestFaultCostsItsBucket(t *testing.T) {
	s, c := serveWith(t, DefaultConfig(), Deps{
		Store: appender(storeAll),
		Extract: func(b *bucket.Bucket) Extract {
			if b.Ordinal == 1 {
				panic("as a test wants")
			}
			return nil
		},
		OnStored: func(fresh []Stored) {
			if fresh[0].Header.Ordinal == 2 {
				panic("as a test wants")
			}
		},
	})
	stream := connect(t, c, hostA, inc1)
	for i, want := range []httpctlv1.BucketStatus{0: httpctlv1.BucketStatus_BUCKET_STATUS_STORED, 1: httpctlv1.BucketStatus_BUCKET_STATUS_REFUSED,
		2: httpctlv1.BucketStatus_BUCKET_STATUS_STORED, 3: httpctlv1.BucketStatus_BUCKET_STATUS_STORED} {
		if err := stream.Send(&httpctlv1.DeliverRequest{Message: &httpctlv1.DeliverRequest_Bucket{
			Bucket: &httpctlv1.Bucket{Sequence: uint64(i), Data: encode(t, sound(int64(i)))}}}); err != nil {
			t.Fatal(err)
		}
		m, err := stream.Recv()
		if err != nil {
			t.Fatalf("after bucket %d: %v", i, err)
		}
		if r := m.GetAck().GetResults(); len(r) != 1 || r[0].GetStatus() != want {
			t.Errorf("bucket %d is answered %v, want %v", i, m, want)
		}
	}
	if n := count(t, s.metrics.faults); n != 2 {
		t.Errorf("%v faults are counted, want 2", n)
	}
}
