package ingest

import httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"

// Protocol names the contract that is spoken, with its version: httpctl.v1.
func Protocol() string { return string(httpctlv1.File_httpctl_v1_ingest_proto.Package()) }
