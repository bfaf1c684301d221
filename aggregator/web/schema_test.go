package web

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// schemaChecker holds values against the schemas of an OpenAPI document: the keywords that ours use, and no other.
type schemaChecker struct {
	schemas map[string]any
	// whole wants every column of rows.
	whole bool
}

// check returns what is wrong with a value.
func (c schemaChecker) check(schema map[string]any, value any, at string) (wrong []string) {
	bad := func(format string, args ...any) { wrong = append(wrong, at+": "+fmt.Sprintf(format, args...)) }
	for _, keyword := range slices.Sorted(maps.Keys(schema)) {
		switch of := schema[keyword].(type) {
		case map[string]any:
			if keyword == "additionalProperties" || keyword == "properties" || keyword == "items" {
				continue
			}
			bad("the checker does not know the keyword %s", keyword)
		case string:
			switch keyword {
			case "$ref":
				name, ok := strings.CutPrefix(of, "#/components/schemas/")
				target, there := c.schemas[name].(map[string]any)
				if !ok || !there {
					bad("there is no %s", of)
					continue
				}
				wrong = append(wrong, c.check(target, value, at)...)
			case "type":
				if !isType(of, value) {
					bad("%v is no %s", value, of)
				}
			case "format":
				if text, ok := value.(string); ok {
					if at, err := time.Parse(time.RFC3339Nano, text); of != "date-time" || err != nil || at.Location() != time.UTC {
						bad("%q is no %s in UTC", text, of)
					}
				}
			case "description":
			default:
				bad("the checker does not know the keyword %s", keyword)
			}
		case []any:
			switch keyword {
			case "type":
				if !slices.ContainsFunc(of, func(t any) bool { return isType(t.(string), value) }) {
					bad("%v is none of %v", value, of)
				}
			case "enum":
				if !slices.Contains(of, value) {
					bad("%v is none of %v", value, of)
				}
			case "anyOf":
				if !slices.ContainsFunc(of, func(s any) bool { return len(c.check(s.(map[string]any), value, at)) == 0 }) {
					bad("fits none of %d schemas: %v", len(of), c.check(of[0].(map[string]any), value, at))
				}
			case "x-columns": // below
			case "required":
				if o, ok := value.(map[string]any); ok {
					for _, name := range of {
						if _, there := o[name.(string)]; !there {
							bad("%s is missing", name)
						}
					}
				}
			default:
				bad("the checker does not know the keyword %s", keyword)
			}
		case float64:
			if n, ok := value.(float64); keyword != "minimum" || ok && n < of {
				bad("%v is less than %v, or %s is not known", value, of, keyword)
			}
		case bool:
			if keyword != "additionalProperties" {
				bad("the checker does not know the keyword %s", keyword)
			}
		}
	}
	switch v := value.(type) {
	case []any:
		if items, ok := schema["items"].(map[string]any); ok {
			for i, item := range v {
				wrong = append(wrong, c.check(items, item, fmt.Sprintf("%s[%d]", at, i))...)
			}
		}
	case map[string]any:
		properties, _ := schema["properties"].(map[string]any)
		for name, member := range v {
			if p, ok := properties[name].(map[string]any); ok {
				wrong = append(wrong, c.check(p, member, at+"."+name)...)
			} else if more, ok := schema["additionalProperties"].(map[string]any); ok {
				wrong = append(wrong, c.check(more, member, at+"."+name)...)
			} else if schema["additionalProperties"] == false {
				bad("%s is not described", name)
			}
		}
		if columns, _ := schema["x-columns"].([]any); c.whole {
			for _, name := range columns {
				if _, there := v[name.(string)]; !there {
					bad("the column %s is missing", name)
				}
			}
		}
	}
	return wrong
}

func isType(name string, value any) bool {
	switch v := value.(type) {
	case nil:
		return name == "null"
	case string:
		return name == "string"
	case bool:
		return name == "boolean"
	case float64:
		return name == "number" || name == "integer" && v == math.Trunc(v)
	case []any:
		return name == "array"
	case map[string]any:
		return name == "object"
	}
	return false
}

// document reads the description that a server gives.
func (c *schemaChecker) read(body []byte) (paths map[string]any, err error) {
	var doc struct {
		OpenAPI    string
		Paths      map[string]any
		Components struct{ Schemas map[string]any }
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, err
	}
	if doc.OpenAPI != "3.1.0" {
		return nil, fmt.Errorf("openapi %q", doc.OpenAPI)
	}
	c.schemas = doc.Components.Schemas
	return doc.Paths, nil
}
