package web

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"
)

// schemas are those of the answers (JSON Schema 2020-12, as OpenAPI 3.1 has them), by name. x-columns names
// what each row has, unless the parameter columns makes it narrower.
//
//go:embed schemas.json
var schemas []byte

type object = map[string]any

// document describes the API (OpenAPI 3.1): the endpoints and parameters that there are, and the schemas.
func document() ([]byte, error) {
	var components object
	if err := json.Unmarshal(schemas, &components); err != nil {
		return nil, fmt.Errorf("schemas.json: %w", err)
	}
	reference := func(name string) object { return object{"$ref": "#/components/schemas/" + name} }
	failed := object{"description": "There is no answer: what is wrong, with which parameter, and what to do.", "content": object{"application/json": object{"schema": reference("Error")}}}
	paths := object{}
	for _, e := range list {
		parameters := []any{}
		for _, p := range e.parameters {
			parameters = append(parameters, object{"name": p.name, "in": "query", "required": p.need, "description": p.description(), "schema": p.schema()})
		}
		description := ""
		if e.command != "" {
			description = "The JSON that `httpctl " + e.command + " -o json` prints."
		}
		answer := object{"schema": object{"type": "object"}}
		if e.schema != "" {
			answer["schema"] = reference(e.schema)
		}
		content := object{"application/json": answer}
		if e.write == nil {
			content = object{"text/event-stream": object{"schema": object{"type": "string", "description": "Events whose data is a " + e.schema + " in one line. " +
				"An event has an id; who comes again with it as Last-Event-ID gets the next picture, not the same again."}}}
		}
		operation := object{
			"operationId": strings.TrimSuffix(e.path, ".json"), "summary": e.summary, "description": description, "parameters": parameters,
			"responses": object{"200": object{"description": "The answer.", "content": content}, "default": failed},
		}
		paths["/"+e.path] = object{"get": operation}
	}
	b, err := json.MarshalIndent(object{
		"openapi": "3.1.0",
		"info": object{"title": "httpctl", "version": "1", "description": "What the aggregator of httpctl knows, read only. Keys are added, never renamed. " +
			"Times are RFC 3339 in UTC, null where there is none; durations are in seconds. Whoever asks needs the role viewer: on another host a certificate (mutual TLS)."},
		"servers":    []any{object{"url": "."}},
		"paths":      paths,
		"components": object{"schemas": components},
	}, "", "  ")
	return append(b, '\n'), err
}

func (p *parameter) description() string {
	switch p.kind {
	case values:
		return p.help + " Several times, or with commas: any of them."
	case texts:
		return p.help + " Several times."
	}
	return p.help
}

func (p *parameter) schema() object {
	one := object{"type": "string"}
	if p.of != nil {
		one["enum"] = p.of
	}
	switch p.kind {
	case number:
		return object{"type": "integer", "minimum": 0, "maximum": 4294967295}
	case flag:
		return object{"type": "boolean"}
	case values, texts:
		return object{"type": "array", "items": one}
	}
	return one
}
