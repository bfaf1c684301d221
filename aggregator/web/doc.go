// Package web serves the web page and the API behind it, /api/v1, over HTTP: what the reading commands of httpctl
// print with -o json, by the same code, and the dashboard as a stream. It reads and changes nothing. Questions go to the
// query service in this process, with the roles and limits that calls of gRPC have.
package web
