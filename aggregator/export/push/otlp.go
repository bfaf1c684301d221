package push

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/url"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/encoding/gzip" // registers the compressor
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

// exportMethod is that of opentelemetry.proto.collector.metrics.v1.
const exportMethod = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"

// grpcSender calls a MetricsService.
type grpcSender struct {
	to      *url.URL
	secrets *secrets
	agent   string
	conn    *grpc.ClientConn
}

func (s *grpcSender) send(ctx context.Context, body []byte) (refused int, why string, err error) {
	cfg, changed, err := s.secrets.tls()
	if err != nil {
		return 0, "", err
	}
	if changed || s.conn == nil {
		s.close()
		transport := insecure.NewCredentials()
		if s.to.Scheme == "grpcs" {
			transport = credentials.NewTLS(cfg)
		}
		host := s.to.Host
		if s.to.Port() == "" {
			host = net.JoinHostPort(s.to.Hostname(), "4317") // OTLP's
		}
		if s.conn, err = grpc.NewClient(host, grpc.WithTransportCredentials(transport), grpc.WithUserAgent(s.agent)); err != nil {
			return 0, "", err
		}
	}
	authorization, err := s.secrets.authorization()
	if err != nil {
		return 0, "", err
	}
	if authorization != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", authorization)
	}
	var answer []byte
	err = s.conn.Invoke(ctx, exportMethod, body, &answer, grpc.ForceCodecV2(raw{}), grpc.UseCompressor("gzip"), grpc.MaxCallRecvMsgSize(64<<10))
	if err != nil {
		code := status.Code(err)
		after, asked := retryInfo(err)
		if code == codes.Unavailable {
			// A connection waits up to two minutes until it tries again by itself; a new one tries when it is used.
			s.close()
			s.conn = nil
		}
		return 0, "", &failure{err: err, final: !againCode(code) && !(asked && code == codes.ResourceExhausted), after: after}
	}
	refused, why = partialSuccess(answer)
	return refused, why, nil
}

func (s *grpcSender) close() {
	if s.conn != nil {
		_ = s.conn.Close() // nothing is under way
	}
}

func (s *grpcSender) hide(text string) string { return s.secrets.hide(text) }

// retryInfo is how long a receiver asks to wait, and whether it asks to be tried again at all: google.rpc.RetryInfo.
func retryInfo(err error) (after time.Duration, asked bool) {
	for _, detail := range status.Convert(err).Proto().GetDetails() {
		if !strings.HasSuffix(detail.GetTypeUrl(), "/google.rpc.RetryInfo") {
			continue
		}
		asked = true
		for _, f := range fields(detail.GetValue()) {
			if f.number != 1 {
				continue
			}
			for _, f := range fields(f.bytes) { // a google.protobuf.Duration
				switch f.number {
				case 1:
					after += time.Duration(min(f.value, 1e6)) * time.Second
				case 2:
					after += time.Duration(min(f.value, 1e9))
				}
			}
		}
	}
	return after, asked
}

// againCode reports whether OTLP has a call sent again after a code; and what an operator mends, as again does. ResourceExhausted is
// one only together with RetryInfo: otherwise it is a message that is too large, and stays so.
func againCode(c codes.Code) bool {
	switch c {
	case codes.Canceled, codes.DeadlineExceeded, codes.Aborted, codes.OutOfRange, codes.Unavailable, codes.DataLoss,
		codes.Unauthenticated, codes.PermissionDenied, codes.Unimplemented:
		return true
	}
	return false
}

// raw hands messages over that are encoded already.
type raw struct{}

// Name is that of the encoding: the messages are protobuf's.
func (raw) Name() string { return "proto" }

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("a message of type %T is not encoded", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return errors.New("an answer is taken as it is")
	}
	*b = data.Materialize()
	return nil
}

// partialSuccess reads an ExportMetricsServiceResponse: how many points were rejected, and why. What cannot be read says
// nothing.
func partialSuccess(answer []byte) (rejected int, why string) {
	for _, f := range fields(answer) {
		if f.number != 1 {
			continue
		}
		for _, f := range fields(f.bytes) {
			switch f.number {
			case 1:
				rejected = int(min(f.value, 1<<31))
			case 2:
				why = string(f.bytes)
			}
		}
	}
	return rejected, why
}

// statusMessage is what a google.rpc.Status, with which OTLP over HTTP answers, says; else the answer as it is.
func statusMessage(answer []byte) string {
	for _, f := range fields(answer) {
		if f.number == 2 && f.bytes != nil {
			return string(f.bytes)
		}
	}
	return strings.TrimSpace(string(answer))
}

// field is one of a message: a number, or something that has a length.
type field struct {
	number protowire.Number
	value  uint64
	bytes  []byte
}

// fields yields those of a message, as far as it is one.
func fields(data []byte) iter.Seq2[int, field] {
	return func(yield func(int, field) bool) {
		for i := 0; len(data) > 0; i++ {
			number, kind, n := protowire.ConsumeTag(data)
			if n < 0 {
				return
			}
			f, rest := field{number: number}, data[n:]
			if n = protowire.ConsumeFieldValue(number, kind, rest); n < 0 {
				return
			}
			switch kind {
			case protowire.VarintType:
				f.value, _ = protowire.ConsumeVarint(rest)
			case protowire.BytesType:
				f.bytes, _ = protowire.ConsumeBytes(rest)
			}
			if data = rest[n:]; !yield(i, f) {
				return
			}
		}
	}
}
