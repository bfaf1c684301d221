package exchange

// A Counter is something that a pipeline counts apart from its tables: what it
// saw, and what it could not see. Ids are part of the bucket format: append,
// never reorder.
type Counter uint8

// What was seen.
const (
	Packets            Counter = iota // frames read from the source
	PacketBytes                       // their original length
	Segments                          // TCP segments decoded
	Connections                       // flows that entered the table
	Requests                          // request heads completed
	Responses                         // final response heads completed
	InterimResponses                  // 1xx other than 101
	Outcomes                          // exchanges ended
	UnmatchedRequests                 // ended without a response
	UnmatchedResponses                // ended without a request
	EarlyResponses                    // began before their request ended
	Upgrades                          // exchanges that turned into a tunnel

	// What was not seen, or not understood.
	KernelDrops       // packets the kernel had no room for
	TruncatedPackets  // captured shorter than they were (snaplen, small ring blocks)
	MalformedPackets  // headers that contradict themselves
	FragmentsDropped  // IP fragments that never made a datagram
	UndecodedPackets  // an encapsulation that is not known, or nested too deep
	GapBytes          // TCP payload that never arrived here
	Gaps              // runs of such bytes
	Resyncs           // times a parser lost its place and found the next message
	Malformed         // messages whose start looked like HTTP and whose head or framing is not
	SkippedBytes      // HTTP connection bytes passed over while out of step
	OversizedHeads    // heads longer than max_header_bytes
	PipelineOverflows // requests given up beyond max_pipelined on one connection
	EvictedFlows      // connections given up to stay within the flow limit
	EvictedBytes      // out-of-order bytes given up to stay within memory
	FlowPanics        // connections lost to a fault of this program
	StatisticPanics   // observations a statistic lost to its own fault
	EvictedKeys       // table rows folded into "other": beyond max_keys, or table_memory
	LateEvents        // events for an interval already closed, sent as a further part
	SpoolDropped      // closed buckets the full spool had to drop

	// Bytes and connections that are not HTTP/1: left alone on purpose.
	OtherTLS
	OtherHTTP2
	OtherSSH
	OtherRTSP
	OtherSIP
	OtherUpgraded // connections that left HTTP through 101 or CONNECT
	OtherUnknown

	// Requests that two servers would frame differently, and for which reasons
	// (see Suspicion, whose order this is; a request may have several).
	SmugglingSuspects
	SuspectLengthAndCoding
	SuspectDifferingLengths
	SuspectInvalidLength
	SuspectUnknownCoding
	SuspectChunkedNotLast
	SuspectChunkedTwice
	SuspectCodingInOld
	SuspectSpaceBeforeColon
	SuspectFoldedFraming
	SuspectBareCR
	SuspectMixedLineEnds
	SuspectDisguisedName
	SuspectChunkFraming

	// More of what is left alone on purpose.
	OtherICAP
	OtherSSDP // datagrams: it is HTTP's form over UDP

	// More of what was not seen.
	WaitingOverflows // requests given up beyond max_waiting on all connections
	EvictedExchanges // exchanges given up to stay within max_open_memory

	NumCounters
)

var counterNames = [NumCounters]string{
	Packets: "packets", PacketBytes: "packet_bytes", Segments: "segments", Connections: "connections",
	Requests: "requests", Responses: "responses", InterimResponses: "interim_responses", Outcomes: "outcomes",
	UnmatchedRequests: "unmatched_requests", UnmatchedResponses: "unmatched_responses",
	EarlyResponses: "early_responses", Upgrades: "upgrades",
	KernelDrops: "kernel_drops", TruncatedPackets: "truncated_packets", MalformedPackets: "malformed_packets",
	FragmentsDropped: "fragments_dropped", UndecodedPackets: "undecoded_packets",
	GapBytes: "gap_bytes", Gaps: "gaps", Resyncs: "resyncs", Malformed: "malformed",
	SkippedBytes: "skipped_bytes", OversizedHeads: "oversized_heads", PipelineOverflows: "pipeline_overflows",
	EvictedFlows: "evicted_flows", EvictedBytes: "evicted_bytes", FlowPanics: "flow_panics",
	StatisticPanics: "statistic_panics", EvictedKeys: "evicted_keys", LateEvents: "late_events",
	SpoolDropped: "spool_dropped_buckets",
	OtherTLS:     "tls", OtherHTTP2: "http2", OtherSSH: "ssh", OtherRTSP: "rtsp", OtherSIP: "sip",
	OtherUpgraded: "upgraded", OtherUnknown: "unknown",
	SmugglingSuspects:      "smuggling_suspects",
	SuspectLengthAndCoding: "suspect_length_and_coding", SuspectDifferingLengths: "suspect_differing_lengths",
	SuspectInvalidLength: "suspect_invalid_length", SuspectUnknownCoding: "suspect_unknown_coding",
	SuspectChunkedNotLast: "suspect_chunked_not_last", SuspectChunkedTwice: "suspect_chunked_twice",
	SuspectCodingInOld: "suspect_coding_in_http10", SuspectSpaceBeforeColon: "suspect_space_before_colon",
	SuspectFoldedFraming: "suspect_folded_framing", SuspectBareCR: "suspect_bare_cr",
	SuspectMixedLineEnds: "suspect_mixed_line_ends", SuspectDisguisedName: "suspect_disguised_name",
	SuspectChunkFraming: "suspect_chunk_framing",
	OtherICAP:           "icap", OtherSSDP: "ssdp",
	WaitingOverflows: "waiting_overflows", EvictedExchanges: "evicted_exchanges",
}

// String returns the name that outputs and docs/formats.md carry.
func (c Counter) String() string { return counterNames[c] }

// Loss reports whether c counts something that was not seen or not understood.
func (c Counter) Loss() bool {
	return c >= KernelDrops && c <= SpoolDropped || c >= WaitingOverflows && c <= EvictedExchanges
}

// OtherProtocol reports whether c counts connections, or datagrams, of another
// protocol.
func (c Counter) OtherProtocol() bool {
	return c >= OtherTLS && c <= OtherUnknown || c >= OtherICAP && c <= OtherSSDP
}

// Suspicion reports whether c counts the requests that are suspect for one reason.
func (c Counter) Suspicion() bool { return c >= SuspectLengthAndCoding && c <= SuspectChunkFraming }

// Counters holds one value for each Counter. The rooms of one pipeline share
// one Counters and add to it; it is not safe for concurrent use.
type Counters [NumCounters]uint64

// Add adds every value of b to c.
func (c *Counters) Add(b *Counters) {
	for i := range c {
		c[i] += b[i]
	}
}

// Sub returns c - b, value by value: what happened since b was copied from c.
func (c *Counters) Sub(b *Counters) (d Counters) {
	for i := range c {
		d[i] = c[i] - b[i]
	}
	return d
}
