// Package export adds up what the store has newly taken into counters of traffic, for the monitoring that people
// already have: Prometheus, what speaks its remote write, and OpenTelemetry collectors.
//
// [Accumulator] is the one place that counts. It is pure: it does no I/O and reads no clock. Who takes a bucket
// from an agent has a [Digest] made of it while it is decoded anyway, and hands that in once the store says that the
// bucket is new; so each bucket counts exactly once, however late it comes and however often it is sent, and none is
// decoded for this. [Accumulator.Snapshot] gives the counters as [Family] values, from which the writers
// make what their receivers read: [Scrape] a page for Prometheus, [RemoteWrite] and [OTLP] messages to push.
//
// # What it counts
//
// Counters are cumulative from the start of the program: they are not kept over a restart, after which they begin
// at 0 again, as Prometheus and OpenTelemetry expect of counters. Every point carries the time from which it counts.
// Their time is that of arrival: an agent that was cut off brings what it counted meanwhile when it is back.
//
// # How it stays bounded
//
// Three bounds, see [Config]: domains with a place of their own, hosts likewise, and rows in all. What has no place counts
// under [Other], so that sums stay what they were. A place is given up when nothing was counted there for an hour and
// another wants it; its series end then.
package export
