// Package torture does to agents and their aggregator what a bad week does, and then holds what is stored
// against what passed the interfaces: `make torture`.
package torture
